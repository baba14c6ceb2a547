/* SPDX-License-Identifier: GPL-2.0-only */
#ifndef _KLPCTL_TASK_H
#define _KLPCTL_TASK_H

#include <linux/sched.h>
#include <linux/types.h>

#include "klpctl.h"

/**
 * struct klpctl_task - a task, and whether it has switched
 * @task: kept by a reference
 * @pid: thread group, in the initial PID namespace
 * @tid: thread
 * @cpu: of an idle task
 * @comm: its name
 * @idle: it is an idle task
 * @pending: it has not switched
 */
struct klpctl_task {
	struct task_struct *task;
	pid_t pid;
	pid_t tid;
	unsigned int cpu;
	char comm[TASK_COMM_LEN];
	bool idle;
	bool pending;
};

/**
 * struct klpctl_tasks - a snapshot
 * @entries: the tasks
 * @len: how many
 */
struct klpctl_tasks {
	struct klpctl_task *entries;
	unsigned int len;
};

void klpctl_task_init(void);
void klpctl_task_exit(void);
bool klpctl_task_sees_idle(void);
void klpctl_task_count(enum klpctl_target target, u32 *total, u32 *done);
int klpctl_task_snapshot(struct klpctl_tasks *tasks, enum klpctl_target target,
			 bool only_pending);
void klpctl_task_free(struct klpctl_tasks *tasks);

#endif /* _KLPCTL_TASK_H */
