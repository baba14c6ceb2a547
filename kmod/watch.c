// SPDX-License-Identifier: GPL-2.0-only
/*
 * Probes on the livepatch core. They wake, number and date what happens there, and
 * decide nothing: one that is missed, since kprobes can be disarmed and functions be
 * inlined, leaves a gap in the numbers, and no state is wrong.
 *
 * The core calls these functions under klp_mutex, in process context and with no other
 * lock, so the handlers never run beside each other. There are no post_handlers: with
 * one, a probed function could not be live-patched itself.
 */
#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include <linux/kprobes.h>
#include <linux/ktime.h>
#include <linux/livepatch.h>

#include "core.h"
#include "reason.h"
#include "watch.h"

static unsigned int starts;
static bool reversing;
static u64 started, ended;		/* CLOCK_MONOTONIC in ns */
static const struct klp_patch *forced;	/* in this transition; only compared */

static void (*wake)(void) __ro_after_init;
static bool active __ro_after_init;

static void note_start(void)
{
	WRITE_ONCE(forced, NULL);
	WRITE_ONCE(started, ktime_get_mono_fast_ns());
	klpctl_reason_reset();
	wake();
}

/* A reversal ends with it, and may have it inline. */
static int start_handler(struct kprobe *probe, struct pt_regs *regs)
{
	WRITE_ONCE(starts, starts + !reversing);
	reversing = false;
	note_start();
	return 0;
}

static int reverse_handler(struct kprobe *probe, struct pt_regs *regs)
{
	WRITE_ONCE(starts, starts + 1);
	reversing = true;
	note_start();
	return 0;
}

static int force_handler(struct kprobe *probe, struct pt_regs *regs)
{
	WRITE_ONCE(forced, klpctl_core_in_transition());
	wake();
	return 0;
}

static int complete_handler(struct kretprobe_instance *instance, struct pt_regs *regs)
{
	WRITE_ONCE(ended, ktime_get_mono_fast_ns());
	reversing = false;
	wake();
	return 0;
}

static struct kprobe start_probe = {
	.symbol_name = "klp_start_transition",
	.pre_handler = start_handler,
};

static struct kprobe reverse_probe = {
	.symbol_name = "klp_reverse_transition",
	.pre_handler = reverse_handler,
};

static struct kprobe force_probe = {
	.symbol_name = "klp_force_transition",
	.pre_handler = force_handler,
};

static struct kretprobe complete_probe = {
	.kp.symbol_name = "klp_complete_transition",
	.handler = complete_handler,
	.maxactive = 2,		/* klp_mutex allows one; one is being recycled */
};

static struct kprobe *probes[] = { &start_probe, &reverse_probe, &force_probe };

/**
 * klpctl_watch_init() - start to watch the livepatch core
 * @how: called whenever something has happened, under klp_mutex and not preemptible
 *
 * Where the functions cannot be probed klpctl sees transitions when it is asked, and
 * klpctl_watch_active() tells.
 *
 * Context: Process context, module_init(). May sleep.
 */
void __init klpctl_watch_init(void (*how)(void))
{
	int ret;

	wake = how;
	ret = register_kretprobe(&complete_probe);
	if (!ret) {
		ret = register_kprobes(probes, ARRAY_SIZE(probes));
		if (ret)
			unregister_kretprobe(&complete_probe);
	}
	active = !ret;
	if (ret)
		pr_warn("the livepatch core cannot be probed (%d): no events, unless klpctl is used\n",
			ret);
}

void klpctl_watch_exit(void)
{
	if (!active)
		return;
	unregister_kprobes(probes, ARRAY_SIZE(probes));
	unregister_kretprobe(&complete_probe);
}

bool klpctl_watch_active(void)
{
	return active;
}

/* How often a transition was started or reversed. */
unsigned int klpctl_watch_starts(void)
{
	return READ_ONCE(starts);
}

/* When that was the last time. */
u64 klpctl_watch_started(void)
{
	return READ_ONCE(started);
}

u64 klpctl_watch_ended(void)
{
	return READ_ONCE(ended);
}

/* Whose transition was forced, until the next one starts. */
const struct klp_patch *klpctl_watch_forced(void)
{
	return READ_ONCE(forced);
}
