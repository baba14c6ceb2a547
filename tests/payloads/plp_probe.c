// SPDX-License-Identifier: GPL-2.0-only
/* A kprobe; with a post-handler it decides where its function goes, as a patch does. */
#include <linux/delay.h>
#include <linux/kprobes.h>
#include <linux/module.h>

static char *func = "loadavg_proc_show";
module_param(func, charp, 0444);

static bool post;
module_param(post, bool, 0444);
MODULE_PARM_DESC(post, "have a post-handler");

static bool skip;
module_param(skip, bool, 0444);
MODULE_PARM_DESC(skip, "let the function, which returns nothing, do nothing; needs post");

static unsigned int delay;
module_param(delay, uint, 0444);
MODULE_PARM_DESC(delay, "keep the CPU busy for that many ms before each call");

static void nothing(void)
{
}

static int before(struct kprobe *probe, struct pt_regs *regs)
{
	mdelay(delay);
	if (skip)
		instruction_pointer_set(regs, (unsigned long)nothing);
	return skip;
}

static void after(struct kprobe *probe, struct pt_regs *regs, unsigned long flags)
{
}

static struct kprobe probe = { .pre_handler = before };

static int __init probe_init(void)
{
	probe.symbol_name = func;
	if (post)
		probe.post_handler = after;
	return register_kprobe(&probe);
}

static void __exit probe_exit(void)
{
	unregister_kprobe(&probe);
}

module_init(probe_init);
module_exit(probe_exit);

MODULE_DESCRIPTION("Test module that probes a function");
MODULE_LICENSE("GPL");
