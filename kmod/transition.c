// SPDX-License-Identifier: GPL-2.0-only
/*
 * What the livepatch core does, as probes on its functions see it.
 *
 * The core calls all of the probed functions under klp_mutex, in process
 * context, so the handlers never run beside each other:
 *
 *   klp_init_transition()      running = { name, target }, not started
 *   klp_start_transition()     started, unless it already was (reversal)
 *   klp_reverse_transition()   target turned round
 *   klp_force_transition()     forced
 *   klp_complete_transition()  on return: completed, running = { }; nothing is
 *                              told if it was not started (klp_cancel_transition())
 *
 * Handlers write to the ring and leave the rest to a work item, through an
 * irq_work: they may sit inside any lock of whoever called the core. There are
 * no post_handlers: with one, a probed function could not be live-patched itself.
 */
#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include <linux/irq_work.h>
#include <linux/kprobes.h>
#include <linux/ktime.h>
#include <linux/livepatch.h>
#include <linux/spinlock.h>

#include "kick.h"
#include "patch.h"
#include "progress.h"
#include "reason.h"
#include "transition.h"

#define RING_SIZE 64	/* a power of two; a transition takes three */

/* Protects what follows; taken with interrupts off. */
static DEFINE_RAW_SPINLOCK(lock);
static struct klpctl_transition running;	/* .name is empty: none */
static bool started;
static struct klpctl_transition ring[RING_SIZE];
static unsigned int head, tail;			/* written at head, read at tail */
static bool ring_lost;
static u64 reversals;				/* written under it, read without */

static bool watched __ro_after_init;

static void wake(struct irq_work *work)
{
	klpctl_patch_wake();
	if (klpctl_transition_running(NULL)) {
		klpctl_kick_start();
		klpctl_progress_start();
	}
}

static DEFINE_IRQ_WORK(wake_work, wake);

static void record(enum klpctl_action action)
{
	struct klpctl_transition *slot;

	if (head - tail == RING_SIZE) {
		ring_lost = true;
		return;
	}
	slot = &ring[head++ % RING_SIZE];
	*slot = running;
	slot->action = action;
	slot->time = ktime_get_mono_fast_ns();
}

static int init_handler(struct kprobe *probe, struct pt_regs *regs)
{
	const struct klp_patch *patch = (void *)regs_get_kernel_argument(regs, 0);
	unsigned long flags;

	raw_spin_lock_irqsave(&lock, flags);
	strscpy(running.name, patch->mod->name, sizeof(running.name));
	running.target = regs_get_kernel_argument(regs, 1) ? KLPCTL_TARGET_PATCHED :
							      KLPCTL_TARGET_UNPATCHED;
	running.replace = patch->replace;
	started = false;
	raw_spin_unlock_irqrestore(&lock, flags);
	return 0;
}

static int start_handler(struct kprobe *probe, struct pt_regs *regs)
{
	unsigned long flags;

	raw_spin_lock_irqsave(&lock, flags);
	if (*running.name && !started) {
		started = true;
		running.time = ktime_get_mono_fast_ns();
		record(KLPCTL_ACTION_STARTED);
	}
	raw_spin_unlock_irqrestore(&lock, flags);
	klpctl_reason_reset();
	irq_work_queue(&wake_work);
	return 0;
}

static int reverse_handler(struct kprobe *probe, struct pt_regs *regs)
{
	unsigned long flags;

	raw_spin_lock_irqsave(&lock, flags);
	if (started) {
		running.target = !running.target;
		record(KLPCTL_ACTION_REVERSED);
		WRITE_ONCE(reversals, reversals + 1);
	}
	raw_spin_unlock_irqrestore(&lock, flags);
	irq_work_queue(&wake_work);
	return 0;
}

static int force_handler(struct kprobe *probe, struct pt_regs *regs)
{
	unsigned long flags;

	raw_spin_lock_irqsave(&lock, flags);
	if (started)
		record(KLPCTL_ACTION_FORCED);
	raw_spin_unlock_irqrestore(&lock, flags);
	irq_work_queue(&wake_work);
	return 0;
}

static int complete_handler(struct kretprobe_instance *instance, struct pt_regs *regs)
{
	unsigned long flags;

	raw_spin_lock_irqsave(&lock, flags);
	if (started)
		record(KLPCTL_ACTION_COMPLETED);
	started = false;
	*running.name = '\0';
	raw_spin_unlock_irqrestore(&lock, flags);
	irq_work_queue(&wake_work);
	return 0;
}

static struct kprobe init_probe = {
	.symbol_name = "klp_init_transition",
	.pre_handler = init_handler,
};

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

/* In this order: a transition whose init is seen is seen as a whole. */
static struct kprobe *probes[] = {
	&start_probe, &reverse_probe, &force_probe, &init_probe,
};

/**
 * klpctl_transition_init() - start to watch the livepatch core
 *
 * Where the functions cannot be probed klpctl goes on without events, and
 * klpctl_transition_watched() tells.
 *
 * Context: Process context, module_init(), after klpctl_patch_init(). May sleep.
 */
void __init klpctl_transition_init(void)
{
	int ret;

	ret = register_kretprobe(&complete_probe);
	if (ret)
		goto unwatched;
	ret = register_kprobes(probes, ARRAY_SIZE(probes));
	if (ret)
		goto unregister_complete;
	watched = true;
	return;

unregister_complete:
	unregister_kretprobe(&complete_probe);
unwatched:
	pr_warn("the livepatch core cannot be probed (%d): no events, no fast completion\n",
		ret);
}

/**
 * klpctl_transition_exit() - stop to watch the livepatch core
 *
 * Context: Process context. May sleep. Nothing calls klpctl_patch_wake(),
 * klpctl_kick_start() or klpctl_progress_start() afterwards.
 */
void klpctl_transition_exit(void)
{
	if (!watched)
		return;
	unregister_kprobes(probes, ARRAY_SIZE(probes));
	unregister_kretprobe(&complete_probe);
	irq_work_sync(&wake_work);
}

/**
 * klpctl_transition_adopt() - take over a transition that was already running
 * @patch: in transition
 *
 * Context: Process context, under klpctl_core_lock().
 */
void klpctl_transition_adopt(const struct klp_patch *patch)
{
	unsigned long flags;

	/* Its end would not be seen. */
	if (!watched)
		return;
	raw_spin_lock_irqsave(&lock, flags);
	if (!*running.name) {
		strscpy(running.name, patch->mod->name, sizeof(running.name));
		running.target = patch->enabled ? KLPCTL_TARGET_PATCHED :
						  KLPCTL_TARGET_UNPATCHED;
		running.replace = patch->replace;
		running.time = ktime_get_mono_fast_ns();
		started = true;
	}
	raw_spin_unlock_irqrestore(&lock, flags);
	irq_work_queue(&wake_work);
}

/**
 * klpctl_transition_watched() - are transitions seen?
 *
 * Context: Any, after klpctl_transition_init().
 * Return: Whether they are.
 */
bool klpctl_transition_watched(void)
{
	return watched;
}

/**
 * klpctl_transition_reversals() - how many transitions were turned round?
 *
 * Context: Any.
 * Return: Their number since klpctl was loaded.
 */
u64 klpctl_transition_reversals(void)
{
	return READ_ONCE(reversals);
}

/**
 * klpctl_transition_running() - is there a transition?
 * @transition: where to copy it; may be NULL
 *
 * Context: Any.
 * Return: Whether there is one, and it has started.
 */
bool klpctl_transition_running(struct klpctl_transition *transition)
{
	unsigned long flags;
	bool ret;

	raw_spin_lock_irqsave(&lock, flags);
	ret = started;
	if (ret && transition)
		*transition = running;
	raw_spin_unlock_irqrestore(&lock, flags);
	return ret;
}

/**
 * klpctl_transition_next() - take the oldest thing that happened from the ring
 * @done: where to copy it
 * @lost: set to true when something was lost before it
 *
 * Context: Process context, under klpctl_patch_lock().
 * Return: Whether there was one.
 */
bool klpctl_transition_next(struct klpctl_transition *done, bool *lost)
{
	unsigned long flags;
	bool ret;

	raw_spin_lock_irqsave(&lock, flags);
	*lost = ring_lost;
	ring_lost = false;
	ret = head != tail;
	if (ret)
		*done = ring[tail++ % RING_SIZE];
	raw_spin_unlock_irqrestore(&lock, flags);
	return ret;
}
