// SPDX-License-Identifier: GPL-2.0-only
/*
 * Where a task sleeps, in words. /proc/<pid>/stack says the same, one file for each
 * thread: a dump of hundreds of blockers would take twenty times as long by that.
 */
#include <linux/kallsyms.h>
#include <linux/module.h>
#include <linux/sched.h>
#include <linux/stacktrace.h>
#include <linux/string.h>

#include "stack.h"
#include "symbol.h"

static typeof(&stack_trace_save_tsk) save __ro_after_init;
static bool exported __ro_after_init;

/**
 * klpctl_stack_init() - find what walks a stack
 *
 * 6.12 exports stack_trace_save_tsk(). 6.1 does not: its address is called there,
 * unless the kernel has IBT, where only exported functions keep their ENDBR.
 * Cannot fail: stacks are then not told.
 *
 * Context: Process context, module_init(). May sleep.
 */
void __init klpctl_stack_init(void)
{
	save = symbol_get(stack_trace_save_tsk);
	exported = save;
#ifndef CONFIG_X86_KERNEL_IBT
	if (!save)
		save = klpctl_symbol_find("stack_trace_save_tsk");
#endif
}

void klpctl_stack_exit(void)
{
	if (exported)
		symbol_put(stack_trace_save_tsk);
}

bool klpctl_stack_available(void)
{
	return save;
}

static void format_stack(struct klpctl_stack *stack)
{
	char symbol[KSYM_SYMBOL_LEN];
	size_t used = 0;
	unsigned int i;

	for (i = 0; i < stack->len; i++) {
		sprint_symbol(symbol, stack->frames[i]);
		/* What has no name would be printed as an address. */
		if (strstarts(symbol, "0x"))
			strscpy(symbol, "?", sizeof(symbol));
		used += scnprintf(stack->text + used, sizeof(stack->text) - used, "%s%s",
				  i ? "\n" : "", symbol);
	}
}

/**
 * klpctl_stack_save() - write down the stack of a task that sleeps
 * @task: kept by the caller
 * @stack: where to
 *
 * Like /proc/<pid>/stack, and as reliable: the task may wake up meanwhile.
 *
 * Context: Process context.
 * Return: Whether there is anything in @stack.
 */
bool klpctl_stack_save(struct task_struct *task, struct klpctl_stack *stack)
{
	unsigned long frames[KLPCTL_STACK_FRAMES];
	unsigned int len;

	/* A running task has no stack that could be read. */
	if (!save || task_is_running(task))
		return false;
	len = save(task, frames, ARRAY_SIZE(frames), 0);
	if (len != stack->len || memcmp(frames, stack->frames, len * sizeof(*frames))) {
		memcpy(stack->frames, frames, len * sizeof(*frames));
		stack->len = len;
		format_stack(stack);
	}
	return len;
}
