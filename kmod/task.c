// SPDX-License-Identifier: GPL-2.0-only
/* The tasks of a transition: which have switched, and which have not. */
#include <linux/cpumask.h>
#include <linux/kprobes.h>
#include <linux/livepatch.h>
#include <linux/mm.h>
#include <linux/percpu.h>
#include <linux/rcupdate.h>
#include <linux/sched/signal.h>
#include <linux/sched/task.h>
#include <linux/string.h>

#include "compat.h"
#include "task.h"

/*
 * Idle tasks are in no list that a module can walk (idle_task() is not
 * exported), but the core tries them like all others, each time. They are never
 * freed.
 */
static DEFINE_PER_CPU(struct task_struct *, idle);
static bool sees_idle __ro_after_init;

static int try_switch_handler(struct kprobe *probe, struct pt_regs *regs)
{
	struct task_struct *task = (void *)regs_get_kernel_argument(regs, 0);

	/* Not is_idle_task(): a task that injects idle time passes for one. */
	if (!task->pid)
		WRITE_ONCE(per_cpu(idle, task_cpu(task)), task);
	return 0;
}

static struct kprobe try_switch_probe = {
	.symbol_name = "klp_try_switch_task",
	.pre_handler = try_switch_handler,
};

/**
 * klpctl_task_init() - start to learn the idle tasks
 *
 * Cannot fail: without them the others are still listed.
 *
 * Context: Process context, module_init(). May sleep.
 */
void __init klpctl_task_init(void)
{
	sees_idle = !register_kprobe(&try_switch_probe);
}

/**
 * klpctl_task_exit() - undo klpctl_task_init()
 *
 * Context: Process context. May sleep.
 */
void klpctl_task_exit(void)
{
	if (sees_idle)
		unregister_kprobe(&try_switch_probe);
}

/**
 * klpctl_task_sees_idle() - are idle tasks counted and listed?
 *
 * Context: Any.
 * Return: Whether they are.
 */
bool klpctl_task_sees_idle(void)
{
	return sees_idle;
}

/* KLP_TRANSITION_IDLE: the transition is over for it, as for all. */
static bool is_pending(const struct task_struct *task, enum klpctl_target target)
{
	int state = READ_ONCE(task->patch_state);

	return state != KLP_TRANSITION_IDLE && state != (int)target;
}

static void fill(struct klpctl_task *entry, struct task_struct *task,
		 enum klpctl_target target)
{
	entry->task = get_task_struct(task);
	entry->pid = task_tgid_nr(task);
	entry->tid = task_pid_nr(task);
	entry->cpu = task_cpu(task);
	entry->idle = !task->pid;
	entry->pending = is_pending(task, target);
	/* May be torn by a concurrent prctl(); it always ends in a NUL. */
	strscpy_pad(entry->comm, task->comm, sizeof(entry->comm));
}

/**
 * struct walk - what a walk looks for, and what it found
 * @target: in: where the transition leads
 * @only_pending: in: leave those that have switched out of @tasks
 * @tasks: in: where to put them
 * @room: in: how many fit there
 * @len: out: how many there would be
 * @total: out: all tasks
 * @pending: out: those that have not switched
 */
struct walk {
	enum klpctl_target target;
	bool only_pending;
	struct klpctl_task *tasks;
	unsigned int room, len, total, pending;
};

static void see(struct walk *walk, struct task_struct *task)
{
	bool pending = is_pending(task, walk->target);

	walk->total++;
	walk->pending += pending;
	if (walk->only_pending && !pending)
		return;
	if (walk->len < walk->room)
		fill(&walk->tasks[walk->len], task, walk->target);
	walk->len++;
}

/*
 * All tasks, under RCU, idle ones last. Exiting tasks may be missed or seen once
 * more, which makes no difference to what this is for.
 */
static void walk_tasks(struct walk *walk)
{
	struct task_struct *process, *task;
	unsigned int cpu;

	walk->len = walk->total = walk->pending = 0;
	rcu_read_lock();
	for_each_process_thread(process, task)
		see(walk, task);
	rcu_read_unlock();

	for_each_online_cpu(cpu) {
		task = READ_ONCE(per_cpu(idle, cpu));
		if (task)
			see(walk, task);
	}
}

/**
 * klpctl_task_count() - how far is a transition?
 * @target: where it leads
 * @total: set to the number of tasks
 * @done: set to how many of them have switched
 *
 * Context: Process context.
 */
void klpctl_task_count(enum klpctl_target target, u32 *total, u32 *done)
{
	struct walk walk = { .target = target };

	walk_tasks(&walk);
	*total = walk.total;
	*done = walk.total - walk.pending;
}

/**
 * klpctl_task_snapshot() - the tasks of a transition, at one moment
 * @tasks: set to them, for klpctl_task_free()
 * @target: where the transition leads
 * @only_pending: only those that have not switched
 *
 * Context: Process context. May sleep.
 * Return: 0 or -ENOMEM.
 */
int klpctl_task_snapshot(struct klpctl_tasks *tasks, enum klpctl_target target,
			 bool only_pending)
{
	struct walk walk = { .target = target, .only_pending = only_pending };

	/* Room for those that are born in between; more would be left out. */
	walk_tasks(&walk);
	walk.room = walk.len + 128;
	walk.tasks = kvmalloc_array(walk.room, sizeof(*walk.tasks), GFP_KERNEL);
	if (!walk.tasks)
		return -ENOMEM;
	walk_tasks(&walk);
	tasks->entries = walk.tasks;
	tasks->len = min(walk.len, walk.room);
	return 0;
}

/**
 * klpctl_task_free() - let go of the tasks of a snapshot
 * @tasks: from klpctl_task_snapshot(), or zeroed
 *
 * Context: Process context. May sleep.
 */
void klpctl_task_free(struct klpctl_tasks *tasks)
{
	unsigned int i;

	for (i = 0; i < tasks->len; i++)
		put_task_struct(tasks->entries[i].task);
	kvfree(tasks->entries);
}
