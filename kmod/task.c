// SPDX-License-Identifier: GPL-2.0-only
/* The tasks of a transition: which have switched, and which have not. */
#include <linux/cpumask.h>
#include <linux/livepatch.h>
#include <linux/mm.h>
#include <linux/rcupdate.h>
#include <linux/sched/signal.h>
#include <linux/sched/task.h>

#include "compat.h"
#include "core.h"
#include "reason.h"
#include "task.h"

static void account_task(struct klpctl_tasks *tasks, unsigned int room,
			 struct task_struct *task, int target)
{
	int state = READ_ONCE(task->patch_state);

	tasks->total++;
	/* Idle: the transition is over for this task, as for all. */
	if (state == KLP_TRANSITION_IDLE || state == target)
		return;
	tasks->pending++;
	if (klpctl_reason_get(task, NULL, 0) == KLPCTL_REASON_SLEEPING)
		tasks->stuck++;
	if (tasks->len < room)
		tasks->list[tasks->len++] = get_task_struct(task);
}

/*
 * All tasks, under RCU, idle ones last. Exiting tasks may be missed or seen once
 * more, which makes no difference to what this is for.
 */
static void walk_tasks(struct klpctl_tasks *tasks, unsigned int room)
{
	struct task_struct *process, *task;
	int target = klpctl_core_target();
	unsigned int cpu;

	tasks->total = tasks->pending = tasks->stuck = 0;
	if (target == KLP_TRANSITION_IDLE)
		return;
	rcu_read_lock();
	for_each_process_thread(process, task)
		account_task(tasks, room, task, target);
	rcu_read_unlock();

	for_each_online_cpu(cpu) {
		task = klpctl_reason_idle_task(cpu);
		if (task)
			account_task(tasks, room, task, target);
		else
			tasks->total++;
	}
}

/* How far is the transition? Without the list. */
void klpctl_task_count(struct klpctl_tasks *tasks)
{
	*tasks = (struct klpctl_tasks){ };
	walk_tasks(tasks, 0);
}

/**
 * klpctl_task_snapshot() - the tasks that have not switched, at one moment
 * @tasks: set to them, for klpctl_task_free()
 *
 * Context: Process context. May sleep.
 * Return: 0 or -ENOMEM.
 */
int klpctl_task_snapshot(struct klpctl_tasks *tasks)
{
	unsigned int room;

	klpctl_task_count(tasks);
	/* Room for those that are born in between; more would be left out. */
	room = tasks->pending + 128;
	tasks->list = kvmalloc_array(room, sizeof(*tasks->list), GFP_KERNEL);
	if (!tasks->list)
		return -ENOMEM;
	walk_tasks(tasks, room);
	return 0;
}

void klpctl_task_free(struct klpctl_tasks *tasks)
{
	while (tasks->len)
		put_task_struct(tasks->list[--tasks->len]);
	kvfree(tasks->list);
	tasks->list = NULL;
}
