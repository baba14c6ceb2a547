// SPDX-License-Identifier: GPL-2.0-only
/* Events: numbered, then sent by netlink and as a uevent. */
#include <linux/ktime.h>

#include "device.h"
#include "event.h"
#include "netlink.h"

static u64 seq;		/* of the newest event; protected by klpctl_patch_lock() */

/**
 * klpctl_event_send() - tell the world what happened to a patch
 * @patch: to which; in the state after it
 * @action: what
 * @time: CLOCK_MONOTONIC in ns
 * @target: of the transition, for the actions that have one
 *
 * Listeners that are too slow lose events and see it by their numbers; nothing
 * here waits for them.
 *
 * Context: Process context, under klpctl_patch_lock(). May sleep.
 */
void klpctl_event_send(struct klpctl_patch *patch, enum klpctl_action action,
		       u64 time, enum klpctl_target target)
{
	const struct klpctl_event event = {
		.patch = patch,
		.seq = ++seq,
		.time = time,
		.action = action,
		.target = target,
	};

	klpctl_netlink_event(&event);
	klpctl_device_event(&event);
}

/**
 * klpctl_event_progress() - tell those who listen how far a transition has come
 * @patch: in transition
 * @target: where it leads
 * @total: tasks
 * @done: of these, switched
 *
 * Has the number of the event before it, so that who does not care, and udev,
 * which is not told, see no gap.
 *
 * Context: Process context, under klpctl_patch_lock(). May sleep.
 */
void klpctl_event_progress(struct klpctl_patch *patch, enum klpctl_target target,
			   u32 total, u32 done)
{
	const struct klpctl_event event = {
		.patch = patch,
		.seq = seq,
		.time = ktime_get_ns(),
		.action = KLPCTL_ACTION_PROGRESS,
		.target = target,
		.total = total,
		.done = done,
	};

	klpctl_netlink_event(&event);
}

/**
 * klpctl_event_skip() - leave a gap in the numbers, because something was lost
 *
 * Context: Process context, under klpctl_patch_lock().
 */
void klpctl_event_skip(void)
{
	seq++;
}

/**
 * klpctl_event_seq() - the number of the newest event
 *
 * Context: Process context, under klpctl_patch_lock().
 * Return: The number; 0 before the first.
 */
u64 klpctl_event_seq(void)
{
	return seq;
}
