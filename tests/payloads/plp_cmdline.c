// SPDX-License-Identifier: GPL-2.0-only
/* The payload most tests use: /proc/cmdline says something else. */
#include <linux/seq_file.h>

#include <klpctl/klpctl.h>

static int show(struct seq_file *seq, void *data)
{
	seq_puts(seq, "cmdline: patched\n");
	return 0;
}

static struct klp_func funcs[] = {
	{ .old_name = "cmdline_proc_show", .new_func = show },
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

MODULE_DESCRIPTION("Test patch of /proc/cmdline");
MODULE_LICENSE("GPL");
