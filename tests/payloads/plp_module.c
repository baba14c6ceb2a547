// SPDX-License-Identifier: GPL-2.0-only
/* A patch of a module that may be loaded before it or after it. */
#include <linux/seq_file.h>

#include <klpctl/klpctl.h>

static int show(struct seq_file *seq, void *data)
{
	seq_puts(seq, "target: patched\n");
	return 0;
}

static struct klp_func funcs[] = {
	{ .old_name = "plp_target_show", .new_func = show },
	{ }
};

static struct klp_object objs[] = {
	{ .name = "plp_target", .funcs = funcs },
	{ }
};

static const struct klp_patch patch = {
	.mod = THIS_MODULE,
	.objs = objs,
};

module_klpctl_patch(patch);

MODULE_DESCRIPTION("Test patch of a module");
MODULE_LICENSE("GPL");
