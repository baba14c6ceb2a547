// SPDX-License-Identifier: GPL-2.0-only
/* An ordinary livepatch module: loading it enables it. */
#include <linux/livepatch.h>
#include <linux/module.h>
#include <linux/seq_file.h>

static bool fail;
module_param(fail, bool, 0444);
MODULE_PARM_DESC(fail, "fail in the pre-patch callback");

static int show(struct seq_file *seq, void *data)
{
	seq_puts(seq, "loadavg: foreign\n");
	return 0;
}

static int pre_patch(struct klp_object *obj)
{
	return fail ? -ENOMEDIUM : 0;
}

static struct klp_func funcs[] = {
	{ .old_name = "loadavg_proc_show", .new_func = show },
	{ }
};

static struct klp_object objs[] = {
	{ .funcs = funcs, .callbacks.pre_patch = pre_patch },
	{ }
};

static struct klp_patch patch = {
	.mod = THIS_MODULE,
	.objs = objs,
};

module_param_named(replace, patch.replace, bool, 0444);
MODULE_PARM_DESC(replace, "replace all patches");

static int __init foreign_init(void)
{
	return klp_enable_patch(&patch);
}

static void __exit foreign_exit(void)
{
}

module_init(foreign_init);
module_exit(foreign_exit);
MODULE_INFO(livepatch, "Y");

MODULE_DESCRIPTION("Test patch that klpctl knows nothing of");
MODULE_LICENSE("GPL");
