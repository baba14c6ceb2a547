// SPDX-License-Identifier: GPL-2.0-only
/* A patch of a function at a position that no kernel has. */
#include <klpctl/klpctl.h>

static int replacement(void)
{
	return 0;
}

static struct klp_func funcs[] = {
	{ .old_name = "type_show", .new_func = replacement, .old_sympos = 4000 },
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

MODULE_DESCRIPTION("Test patch that cannot be enabled");
MODULE_LICENSE("GPL");
