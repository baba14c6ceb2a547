// SPDX-License-Identifier: GPL-2.0-only
/*
 * Why a task has not switched, as the livepatch core itself found at its last try.
 *
 * The core drops what klp_check_and_switch_task() tells, after a pr_debug() that
 * hardly anybody reads. A return probe keeps it, in a table of fixed size: the
 * function runs with the task's pi_lock and perhaps its run queue's lock held.
 *
 * A task that is freed leaves its entry behind, and the next one at its address
 * shows that reason until it is tried itself, within the same transition.
 */
#include <linux/cpumask.h>
#include <linux/hash.h>
#include <linux/kprobes.h>
#include <linux/sched.h>
#include <linux/spinlock.h>
#include <linux/string.h>

#include "reason.h"

#define TABLE_BITS	13
#define TABLE_SIZE	(1 << TABLE_BITS)
#define NEIGHBOURS	8	/* slots looked at for one task; then it stays unknown */
#define FUNCS		64	/* different functions in one transition; then unnamed */

struct entry {
	const struct task_struct *task;	/* only compared */
	u8 reason;
	u8 func;			/* index into funcs */
};

/* Protects what follows; innermost of all locks, taken with interrupts off. */
static DEFINE_RAW_SPINLOCK(lock);
static struct entry table[TABLE_SIZE];
static struct {
	const char *key;		/* the core's string; only compared */
	char name[KSYM_NAME_LEN];
} funcs[FUNCS];
static unsigned int funcs_len;
static bool used;

static bool seen __ro_after_init;

static struct entry *find(const struct task_struct *task, bool make)
{
	unsigned int start = hash_ptr(task, TABLE_BITS), i;
	struct entry *entry;

	for (i = 0; i < NEIGHBOURS; i++) {
		entry = &table[(start + i) % TABLE_SIZE];
		if (entry->task == task)
			return entry;
		if (!entry->task) {
			if (!make)
				return NULL;
			entry->task = task;
			return entry;
		}
	}
	return NULL;
}

static unsigned int func_index(const char *name)
{
	unsigned int i;

	for (i = 0; i < funcs_len; i++)
		if (funcs[i].key == name)
			return i;
	if (funcs_len == FUNCS)
		return FUNCS;
	funcs[i].key = name;
	strscpy(funcs[i].name, name, sizeof(funcs[i].name));
	return funcs_len++;
}

static void note(const struct task_struct *task, int error, const char *func)
{
	struct entry *entry;
	unsigned long flags;

	raw_spin_lock_irqsave(&lock, flags);
	entry = find(task, true);
	if (entry) {
		used = true;
		entry->reason = error == -EBUSY ? KLPCTL_REASON_RUNNING :
				error == -EINVAL ? KLPCTL_REASON_UNRELIABLE :
				error == -EADDRINUSE ? KLPCTL_REASON_SLEEPING :
				KLPCTL_REASON_UNKNOWN;
		if (error == -EADDRINUSE)
			entry->func = func_index(func);
	}
	raw_spin_unlock_irqrestore(&lock, flags);
}

struct call {
	const struct task_struct *task;
	const char **func;	/* where the core puts the name, on its stack */
};

static int entry_handler(struct kretprobe_instance *instance, struct pt_regs *regs)
{
	struct call *call = (void *)instance->data;

	call->task = (void *)regs_get_kernel_argument(regs, 0);
	call->func = (void *)regs_get_kernel_argument(regs, 1);
	return 0;
}

static int return_handler(struct kretprobe_instance *instance, struct pt_regs *regs)
{
	const struct call *call = (void *)instance->data;
	int error = regs_return_value(regs);

	if (error)
		note(call->task, error, error == -EADDRINUSE ? *call->func : NULL);
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
 * Cannot fail: reasons are then unknown.
 *
 * Context: Process context, module_init(). May sleep.
 */
void __init klpctl_reason_init(void)
{
	/* One CPU walks the tasks; since 6.4 each may also try the task it runs. */
	probe.maxactive = 2 * num_possible_cpus();
	seen = !register_kretprobe(&probe);
}

/**
 * klpctl_reason_exit() - undo klpctl_reason_init()
 *
 * Context: Process context. May sleep.
 */
void klpctl_reason_exit(void)
{
	if (seen)
		unregister_kretprobe(&probe);
}

/**
 * klpctl_reason_seen() - are the reasons kept?
 *
 * Context: Any.
 * Return: Whether they are.
 */
bool klpctl_reason_seen(void)
{
	return seen;
}

/**
 * klpctl_reason_reset() - forget all, for a new transition or a reversed one
 *
 * Context: Any but NMI; the core tries no task at that moment.
 */
void klpctl_reason_reset(void)
{
	unsigned long flags;

	raw_spin_lock_irqsave(&lock, flags);
	if (used)
		memset(table, 0, sizeof(table));
	used = false;
	funcs_len = 0;
	raw_spin_unlock_irqrestore(&lock, flags);
}

/**
 * klpctl_reason_get() - why has a task not switched?
 * @task: only compared
 * @func: set to the function's name, with KLPCTL_REASON_SLEEPING
 *
 * Context: Any but NMI.
 * Return: The reason at its last try.
 */
enum klpctl_reason klpctl_reason_get(const struct task_struct *task,
				     char func[KSYM_NAME_LEN])
{
	enum klpctl_reason reason = KLPCTL_REASON_UNKNOWN;
	const struct entry *entry;
	unsigned long flags;

	raw_spin_lock_irqsave(&lock, flags);
	entry = find(task, false);
	if (entry) {
		reason = entry->reason;
		if (reason == KLPCTL_REASON_SLEEPING)
			strscpy(func, entry->func < FUNCS ? funcs[entry->func].name : "?",
				KSYM_NAME_LEN);
	}
	raw_spin_unlock_irqrestore(&lock, flags);
	return reason;
}
