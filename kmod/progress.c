// SPDX-License-Identifier: GPL-2.0-only
/* Events that tell how far the running transition has come. */
#include <linux/jiffies.h>
#include <linux/workqueue.h>

#include "event.h"
#include "netlink.h"
#include "patch.h"
#include "progress.h"
#include "task.h"
#include "transition.h"

#define INTERVAL_MS 100

static u32 last_done;	/* only the work item uses it */

static void tell(struct work_struct *work);
static DECLARE_DELAYED_WORK(tell_work, tell);

static void tell(struct work_struct *work)
{
	struct klpctl_transition running;
	struct klpctl_patch *patch;
	u32 total, done;

	if (!klpctl_transition_running(&running))
		return;
	if (klpctl_netlink_has_listeners()) {
		klpctl_task_count(running.target, &total, &done);
		klpctl_patch_lock();
		patch = klpctl_patch_find(running.name);
		if (patch && klpctl_patch_in_transition(patch) && done != last_done)
			klpctl_event_progress(patch, running.target, total, done);
		klpctl_patch_unlock();
		last_done = done;
	}
	queue_delayed_work(system_unbound_wq, &tell_work, msecs_to_jiffies(INTERVAL_MS));
}

/**
 * klpctl_progress_exit() - stop
 *
 * Context: Process context, after klpctl_transition_exit(). May sleep.
 */
void klpctl_progress_exit(void)
{
	cancel_delayed_work_sync(&tell_work);
}

/**
 * klpctl_progress_start() - tell how far the transition has come from now on
 *
 * Context: Any. Ends with the transition.
 */
void klpctl_progress_start(void)
{
	queue_delayed_work(system_unbound_wq, &tell_work, msecs_to_jiffies(INTERVAL_MS));
}
