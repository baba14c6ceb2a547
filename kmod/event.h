/* SPDX-License-Identifier: GPL-2.0-only */
#ifndef _KLPCTL_EVENT_H
#define _KLPCTL_EVENT_H

#include <linux/list.h>
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
	struct klpctl_patch *patch;
	u64 seq;
	u64 time;
	enum klpctl_action action;
	enum klpctl_target target;
	u32 total;
	u32 done;
};

/**
 * struct klpctl_event_sink - who is told
 * @node: in the list of all
 * @wanted: does anybody listen there? NULL: not to progress
 * @send: called in process context, under klpctl_registry_lock(); may sleep
 */
struct klpctl_event_sink {
	struct list_head node;
	bool (*wanted)(void);
	void (*send)(const struct klpctl_event *event);
};

void klpctl_event_add_sink(struct klpctl_event_sink *sink);
bool klpctl_event_has_target(const struct klpctl_event *event);
bool klpctl_event_wanted(void);
void klpctl_event_send(struct klpctl_event *event);
void klpctl_event_skip(void);
u64 klpctl_event_seq(void);

#endif /* _KLPCTL_EVENT_H */
