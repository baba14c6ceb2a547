// SPDX-License-Identifier: GPL-2.0-only
/*
 * A patch with a callback that waits until it is told to go on, and with a state whose
 * data it frees and does not forget, as upstream's samples do.
 */
#include <linux/delay.h>
#include <linux/seq_file.h>
#include <linux/slab.h>

#include <klpctl/klpctl.h>

#define STATE_ID 0x706c71

enum { NOWHERE, PRE_PATCH, POST_PATCH, PRE_UNPATCH, POST_UNPATCH };

static unsigned int hold;
module_param(hold, uint, 0644);
MODULE_PARM_DESC(hold, "the callback that waits: 1 pre-patch, 2 post-patch, 3 pre-unpatch, 4 post-unpatch");

static unsigned int waiting;
module_param(waiting, uint, 0444);
MODULE_PARM_DESC(waiting, "the callback that waits now");

static int fail;
module_param(fail, int, 0644);
MODULE_PARM_DESC(fail, "what the pre-patch callback returns");

static unsigned int stale;
module_param(stale, uint, 0444);
MODULE_PARM_DESC(stale, "how often the state had data before it was given any");

static int show(struct seq_file *seq, void *data)
{
	seq_puts(seq, "cmdline: with callbacks\n");
	return 0;
}

static struct klp_state states[] = {
	{ .id = STATE_ID, .version = 1 },
	{ }
};

static void wait(unsigned int where)
{
	WRITE_ONCE(waiting, where);
	while (READ_ONCE(hold) == where)
		msleep(20);
	WRITE_ONCE(waiting, NOWHERE);
}

static int pre_patch(struct klp_object *obj)
{
	wait(PRE_PATCH);
	if (fail)
		return fail;
	if (states[0].data)
		stale++;
	states[0].data = kzalloc(8, GFP_KERNEL);
	return states[0].data ? 0 : -ENOMEM;
}

static void post_patch(struct klp_object *obj)
{
	wait(POST_PATCH);
}

static void pre_unpatch(struct klp_object *obj)
{
	wait(PRE_UNPATCH);
}

static void post_unpatch(struct klp_object *obj)
{
	wait(POST_UNPATCH);
	kfree(states[0].data);
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
	.states = states,
};

module_klpctl_patch(patch);

MODULE_DESCRIPTION("Test patch whose callbacks wait");
MODULE_LICENSE("GPL");
