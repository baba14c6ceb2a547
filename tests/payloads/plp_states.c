// SPDX-License-Identifier: GPL-2.0-only
/* A patch with a system state, of two objects. */
#include <linux/seq_file.h>

#include <klpctl/klpctl.h>

#define STATE_ID 0x706c70

static bool found;
module_param(found, bool, 0444);
MODULE_PARM_DESC(found, "the core found the state of the running patch");

static int show(struct seq_file *seq, void *data)
{
	seq_puts(seq, "state\n");
	return 0;
}

static struct klp_state states[] = {
	{ .id = STATE_ID, .version = 1 },
	{ }
};

static struct klp_func vmlinux_funcs[] = {
	{ .old_name = "cmdline_proc_show", .new_func = show, .old_sympos = 1 },
	{ }
};

static struct klp_func target_funcs[] = {
	{ .old_name = "plp_target_show", .new_func = show },
	{ }
};

static struct klp_patch patch;

static void post_patch(struct klp_object *obj)
{
	found = klp_get_state(&patch, STATE_ID) == &states[0];
}

static struct klp_object objs[] = {
	{ .funcs = vmlinux_funcs, .callbacks.post_patch = post_patch },
	{ .name = "plp_target", .funcs = target_funcs },
	{ }
};

static struct klp_patch patch = {
	.mod = THIS_MODULE,
	.objs = objs,
	.states = states,
};

module_klpctl_patch(patch);

MODULE_DESCRIPTION("Test patch with a state");
MODULE_LICENSE("GPL");
