// SPDX-License-Identifier: GPL-2.0-only
/*
 * Fast completion: the livepatch core's own retry, earlier.
 *
 * The core retries once a second, on a whole second. Its first try nearly
 * always fails on a machine with several CPUs, because the idle task of another
 * CPU counts as running; a few ms later that has passed. Moving the core's own
 * work item forward changes nothing but the time: it takes the same lock and
 * does the same checks.
 *
 * Each 15th retry sends signals to those that still block (SIGNALS_TIMEOUT), so
 * the back-off stays short until the first ones are out, and then grows to the
 * core's own pace: a transition that waits for hours costs nothing more.
 */
#include <linux/atomic.h>
#include <linux/moduleparam.h>
#include <linux/timer.h>
#include <linux/workqueue.h>

#include "kick.h"
#include "symbol.h"
#include "transition.h"

#define FIRST_MS	2
#define SHORT_MS	50	/* the longest before the first signals */
#define SIGNAL_RETRIES	16
#define LONG_MS		1000	/* the core's own */

static bool fast_completion = true;
module_param(fast_completion, bool, 0644);
MODULE_PARM_DESC(fast_completion, "retry transitions earlier than once a second (default: on)");

static struct workqueue_struct *queue;
static atomic64_t count = ATOMIC64_INIT(0);
static unsigned int delay_ms, retries;	/* of the running series; see kick() */

static void kick(struct work_struct *work);
static DECLARE_DELAYED_WORK(kick_work, kick);
static void restart(struct work_struct *work);
static DECLARE_WORK(restart_work, restart);

static unsigned int next_delay(void)
{
	unsigned int bound = retries < SIGNAL_RETRIES ? SHORT_MS : LONG_MS;

	return min(delay_ms * 2, bound);
}

/* The queue is ordered, so kick() and restart() never run beside each other. */
static void kick(struct work_struct *work)
{
	if (!klpctl_transition_running(NULL) || !READ_ONCE(fast_completion))
		return;

	/* Where the core queues it: schedule_delayed_work(). */
	mod_delayed_work(system_wq, klpctl_symbols.klp_transition_work, 0);
	atomic64_inc(&count);
	retries++;
	delay_ms = next_delay();
	queue_delayed_work(queue, &kick_work, msecs_to_jiffies(delay_ms));
}

static void restart(struct work_struct *work)
{
	retries = 0;
	delay_ms = FIRST_MS;
	mod_delayed_work(queue, &kick_work, msecs_to_jiffies(delay_ms));
}

/**
 * klpctl_kick_init() - get ready
 *
 * Context: Process context, module_init(). May sleep.
 * Return: 0 or -ENOMEM.
 */
int __init klpctl_kick_init(void)
{
	queue = alloc_ordered_workqueue("klpctl_kick", 0);
	return queue ? 0 : -ENOMEM;
}

/**
 * klpctl_kick_exit() - stop
 *
 * Context: Process context, after klpctl_transition_exit(). May sleep.
 */
void klpctl_kick_exit(void)
{
	cancel_work_sync(&restart_work);
	cancel_delayed_work_sync(&kick_work);
	destroy_workqueue(queue);
}

/**
 * klpctl_kick_active() - are transitions retried early?
 *
 * Context: Any.
 * Return: Whether they are, by the module's parameter and the kernel's symbols.
 */
bool klpctl_kick_active(void)
{
	return READ_ONCE(fast_completion) && klpctl_transition_watched() &&
	       klpctl_symbols.klp_transition_work;
}

/**
 * klpctl_kick_start() - retry early from now on
 *
 * Context: Any. The series ends with the transition.
 */
void klpctl_kick_start(void)
{
	if (klpctl_kick_active())
		queue_work(queue, &restart_work);
}

/**
 * klpctl_kick_count() - early retries since klpctl was loaded
 *
 * Context: Any.
 * Return: How many.
 */
u64 klpctl_kick_count(void)
{
	return atomic64_read(&count);
}
