/* SPDX-License-Identifier: GPL-2.0-only */
#ifndef _KLPCTL_TASK_H
#define _KLPCTL_TASK_H

#include <linux/types.h>

#include "klpctl.h"

struct task_struct;

/**
 * struct klpctl_tasks - the tasks of a transition, at one moment
 * @total: all tasks
 * @pending: of these, not switched
 * @stuck: of those, found in a function that changes
 * @list: those that have not switched, each with a reference; NULL: not asked for
 * @len: how many are there
 */
struct klpctl_tasks {
	u32 total;
	u32 pending;
	u32 stuck;
	struct task_struct **list;
	unsigned int len;
};

void klpctl_task_count(struct klpctl_tasks *tasks);
int klpctl_task_snapshot(struct klpctl_tasks *tasks);
void klpctl_task_free(struct klpctl_tasks *tasks);

#endif /* _KLPCTL_TASK_H */
