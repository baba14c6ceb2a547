// SPDX-License-Identifier: GPL-2.0-only
/* A patch that names one function twice. */
#include <klpctl/klpctl.h>

static int replacement(void)
{
	return 0;
}

static struct klp_func funcs[] = {
	{ .old_name = "cmdline_proc_show", .new_func = replacement },
	{ .old_name = "cmdline_proc_show", .new_func = replacement, .old_sympos = 1 },
	{ }
};

static struct klp_object objs[] = {
	{ .funcs = funcs },
	{ }
};

static const struct klp_patch patch = {
	.mod = THIS_MODULE,
	.objs = objs,
};

module_klpctl_patch(patch);

MODULE_DESCRIPTION("Test patch that the core would refuse with a splat");
MODULE_LICENSE("GPL");
