/* SPDX-License-Identifier: GPL-2.0-only */
#ifndef _KLPCTL_EVENT_H
#define _KLPCTL_EVENT_H

#include <linux/types.h>

#include "klpctl.h"

struct klpctl_patch;

/**
 * struct klpctl_event - something that happened to a patch
 * @patch: to which; its state is the one after the event
 * @seq: its number
 * @time: CLOCK_MONOTONIC in ns
 * @action: what
 * @target: of the transition, for the actions that have one
 * @total: tasks, for progress
 * @done: of these, switched
 */
struct klpctl_event {
	const struct klpctl_patch *patch;
	u64 seq;
	u64 time;
	enum klpctl_action action;
	enum klpctl_target target;
	u32 total;
	u32 done;
};

static inline bool klpctl_event_has_target(const struct klpctl_event *event)
{
	return event->action == KLPCTL_ACTION_STARTED ||
	       event->action == KLPCTL_ACTION_REVERSED ||
	       event->action == KLPCTL_ACTION_PROGRESS ||
	       event->action == KLPCTL_ACTION_FORCED ||
	       event->action == KLPCTL_ACTION_COMPLETED;
}

void klpctl_event_send(struct klpctl_patch *patch, enum klpctl_action action,
		       u64 time, enum klpctl_target target);
void klpctl_event_progress(struct klpctl_patch *patch, enum klpctl_target target,
			   u32 total, u32 done);
void klpctl_event_skip(void);
u64 klpctl_event_seq(void);

#endif /* _KLPCTL_EVENT_H */
