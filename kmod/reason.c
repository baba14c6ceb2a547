// SPDX-License-Identifier: GPL-2.0-only
/*
 * Why a task has not switched, as the livepatch core itself found at its last try.
 *
 * The core drops what klp_check_and_switch_task() tells, after a pr_debug() that
 * hardly anybody reads. A return probe keeps it. The function runs with the task's
 * pi_lock and perhaps its run queue's lock held, so the handlers write to tables of
 * fixed size and do nothing else. Each pass of the core tries all tasks that are
 * pending; where there are too many of them some have the reason "unknown".
 *
 * Never under the task that is being checked: the probe's return address is then on
 * the stack that is walked, and not each architecture calls such a stack reliable.
 */
#include <linux/cpumask.h>
#include <linux/hash.h>
#include <linux/kprobes.h>
#include <linux/percpu.h>
#include <linux/sched.h>
#include <linux/spinlock.h>
#include <linux/string.h>
#include <linux/uaccess.h>

#include "reason.h"

#define TASK_BITS	12
#define NEIGHBOURS	8	/* places looked at for one task */
#define FUNCS		64

/* Of a task, by its address; the function by the core's string. */
struct entry {
	const struct task_struct *task;	/* only compared */
	const char *func;		/* only compared */
	pid_t pid;			/* the address may be another task's by now */
	unsigned int transition;
	enum klpctl_reason reason;
};

struct name {
	const char *func;
	unsigned int transition;
	char text[KSYM_NAME_LEN];
};

/* Protects what follows; innermost of all locks, taken with interrupts off. */
static DEFINE_RAW_SPINLOCK(lock);
static struct entry entries[1 << TASK_BITS];
static struct name names[FUNCS];
static unsigned int transition = 1;
static unsigned int evicted;

/* Idle tasks are in no list that a module can walk. They are never freed. */
static DEFINE_PER_CPU(struct task_struct *, idle);

static bool seen __ro_after_init;

/* Like strscpy(), of what the core may have left unset. */
static void copy_name(char *text, const char *from, size_t size)
{
	size_t i;

	for (i = 0; i < size - 1; i++)
		if (get_kernel_nofault(text[i], from + i) || !text[i])
			break;
	text[i] = '\0';
}

/* Where a task is, or may be put: in place of another when there is no room. */
static struct entry *find_entry(const struct task_struct *task, bool make)
{
	unsigned int start = hash_ptr(task, TASK_BITS), i;
	struct entry *entry, *room = NULL;

	for (i = 0; i < NEIGHBOURS; i++) {
		entry = &entries[(start + i) % ARRAY_SIZE(entries)];
		if (entry->transition != transition)
			room = room ?: entry;
		else if (entry->task == task && entry->pid == task->pid)
			return entry;
	}
	if (!make)
		return NULL;
	return room ?: &entries[(start + evicted++ % NEIGHBOURS) % ARRAY_SIZE(entries)];
}

/* The name of a function, or where it may be put; NULL when there is no room. */
static struct name *find_name(const char *func)
{
	struct name *name, *room = NULL;

	for (name = names; name < names + FUNCS; name++) {
		if (name->transition != transition)
			room = room ?: name;
		else if (name->func == func)
			return name;
	}
	return room;
}

static void record_reason(const struct task_struct *task, int error, const char *func)
{
	struct entry *entry;
	struct name *name;
	unsigned long flags;

	raw_spin_lock_irqsave(&lock, flags);
	entry = find_entry(task, true);
	*entry = (struct entry){
		.task = task,
		.func = func,
		.pid = task->pid,
		.transition = transition,
		.reason = error == -EBUSY ? KLPCTL_REASON_RUNNING :
			  error == -EINVAL ? KLPCTL_REASON_UNRELIABLE :
			  error == -EADDRINUSE ? KLPCTL_REASON_SLEEPING :
			  KLPCTL_REASON_UNKNOWN,
	};
	name = func ? find_name(func) : NULL;
	if (name && name->transition != transition) {
		name->func = func;
		name->transition = transition;
		copy_name(name->text, func, sizeof(name->text));
	}
	raw_spin_unlock_irqrestore(&lock, flags);
}

struct call {
	struct task_struct *task;
	const char **func;	/* where the core puts the name, on its stack */
};

static int entry_handler(struct kretprobe_instance *instance, struct pt_regs *regs)
{
	struct call *call = (void *)instance->data;

	call->task = (void *)regs_get_kernel_argument(regs, 0);
	call->func = (void *)regs_get_kernel_argument(regs, 1);
	return call->task == current;	/* 1: do not probe the return */
}

static int return_handler(struct kretprobe_instance *instance, struct pt_regs *regs)
{
	const struct call *call = (void *)instance->data;
	int error = (int)regs_return_value(regs);

	if (!error)
		return 0;
	record_reason(call->task, error, error == -EADDRINUSE ? *call->func : NULL);
	/* Not is_idle_task(): a task that injects idle time passes for one. */
	if (!call->task->pid)
		/* Listed from now on, with its reason: pairs with klpctl_reason_idle_task(). */
		smp_store_release(&per_cpu(idle, task_cpu(call->task)), call->task);
	return 0;
}

static struct kretprobe probe = {
	.kp.symbol_name = "klp_check_and_switch_task",
	.entry_handler = entry_handler,
	.handler = return_handler,
	.data_size = sizeof(struct call),
};

/**
 * klpctl_reason_init() - start to keep the reasons
 *
 * Cannot fail: without them tasks are still listed, but idle ones.
 *
 * Context: Process context, module_init(). May sleep.
 */
void __init klpctl_reason_init(void)
{
	/* One CPU walks the tasks; since 6.4 each may also try the task it runs. */
	probe.maxactive = 2 * num_possible_cpus();
	seen = !register_kretprobe(&probe);
}

void klpctl_reason_exit(void)
{
	if (seen)
		unregister_kretprobe(&probe);
}

bool klpctl_reason_seen(void)
{
	return seen;
}

/* Forget all, for a new transition or a reversed one. */
void klpctl_reason_reset(void)
{
	unsigned long flags;

	raw_spin_lock_irqsave(&lock, flags);
	transition++;
	raw_spin_unlock_irqrestore(&lock, flags);
}

/**
 * klpctl_reason_get() - why has a task not switched?
 * @task: stays valid meanwhile
 * @func: set to the function's name, with KLPCTL_REASON_SLEEPING; may be NULL
 * @size: of @func
 *
 * Context: Any but NMI.
 * Return: The reason at its last try.
 */
enum klpctl_reason klpctl_reason_get(const struct task_struct *task, char *func, size_t size)
{
	enum klpctl_reason reason = KLPCTL_REASON_UNKNOWN;
	const struct entry *entry;
	const struct name *name;
	unsigned long flags;

	raw_spin_lock_irqsave(&lock, flags);
	entry = find_entry(task, false);
	if (entry) {
		reason = entry->reason;
		if (func && reason == KLPCTL_REASON_SLEEPING) {
			name = find_name(entry->func);
			strscpy(func, name && name->transition == transition ? name->text : "?",
				size);
		}
	}
	raw_spin_unlock_irqrestore(&lock, flags);
	return reason;
}

/* The idle task of a CPU, once it has held a transition up; or NULL. */
struct task_struct *klpctl_reason_idle_task(unsigned int cpu)
{
	/* Pairs with return_handler(). */
	return smp_load_acquire(&per_cpu(idle, cpu));
}
