// SPDX-License-Identifier: GPL-2.0-only
/* A patch whose pre-patch callback fails while its parameter says so. */
#include <linux/seq_file.h>

#include <klpctl/klpctl.h>

static int fail = -ENOMEDIUM;
module_param(fail, int, 0644);
MODULE_PARM_DESC(fail, "what the pre-patch callback returns");

static unsigned int pre, post, unpre, unpost;
module_param(pre, uint, 0444);
module_param(post, uint, 0444);
module_param(unpre, uint, 0444);
module_param(unpost, uint, 0444);

static int show(struct seq_file *seq, void *data)
{
	seq_puts(seq, "cmdline: with callbacks\n");
	return 0;
}

static int pre_patch(struct klp_object *obj)
{
	pre++;
	return fail;
}

static void post_patch(struct klp_object *obj)
{
	post++;
}

static void pre_unpatch(struct klp_object *obj)
{
	unpre++;
}

static void post_unpatch(struct klp_object *obj)
{
	unpost++;
}

static struct klp_func funcs[] = {
	{ .old_name = "cmdline_proc_show", .new_func = show },
	{ }
};

static struct klp_object objs[] = {
	{
		.funcs = funcs,
		.callbacks = {
			.pre_patch = pre_patch,
			.post_patch = post_patch,
			.pre_unpatch = pre_unpatch,
			.post_unpatch = post_unpatch,
		},
	},
	{ }
};

static const struct klp_patch patch = {
	.mod = THIS_MODULE,
	.objs = objs,
};

module_klpctl_patch(patch);

MODULE_DESCRIPTION("Test patch with callbacks");
MODULE_LICENSE("GPL");
