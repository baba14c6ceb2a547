/* SPDX-License-Identifier: GPL-2.0-only */
#ifndef _KLPCTL_TASK_H
#define _KLPCTL_TASK_H

#include <linux/sched.h>
#include <linux/types.h>

#include "klpctl.h"

/**
 * struct klpctl_task - a task, and whether it has switched
 * @pid: thread group, in the initial PID namespace
 * @tid: thread
 * @cpu: of an idle task
 * @comm: its name
 * @idle: it is an idle task
 * @pending: it has not switched
 */
struct klpctl_task {
	pid_t pid;
	pid_t tid;
	unsigned int cpu;
	char comm[TASK_COMM_LEN];
	bool idle;
	bool pending;
};

void klpctl_task_init(void);
void klpctl_task_exit(void);
bool klpctl_task_sees_idle(void);
void klpctl_task_count(enum klpctl_target target, u32 *total, u32 *done);
struct klpctl_task *klpctl_task_snapshot(enum klpctl_target target, unsigned int *len);

#endif /* _KLPCTL_TASK_H */
