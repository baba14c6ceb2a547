// SPDX-License-Identifier: GPL-2.0-only
/* Where a task sleeps, in words. */
#include <linux/kallsyms.h>
#include <linux/module.h>
#include <linux/sched.h>
#include <linux/stacktrace.h>
#include <linux/string.h>

#include "stack.h"
#include "symbol.h"

#define FRAMES 32

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

/**
 * klpctl_stack_exit() - undo klpctl_stack_init()
 *
 * Context: Process context.
 */
void klpctl_stack_exit(void)
{
	if (exported)
		symbol_put(stack_trace_save_tsk);
}

/**
 * klpctl_stack_available() - can stacks be told?
 *
 * Context: Any.
 * Return: Whether they can.
 */
bool klpctl_stack_available(void)
{
	return save;
}

/**
 * klpctl_stack_save() - write down the stack of a task that sleeps
 * @task: kept by the caller
 * @text: set to a line for each function, innermost first, without addresses
 *
 * Like /proc/<pid>/stack, and as reliable: the task may wake up meanwhile.
 *
 * Context: Process context.
 * Return: Whether there is anything in @text.
 */
bool klpctl_stack_save(struct task_struct *task, char text[KLPCTL_STACK_LEN])
{
	unsigned long frames[FRAMES];
	char symbol[KSYM_SYMBOL_LEN];
	unsigned int i, len;
	size_t used = 0;

	/* A running task has no stack that could be read. */
	if (!save || task_is_running(task))
		return false;
	len = save(task, frames, FRAMES, 0);
	for (i = 0; i < len; i++) {
		sprint_symbol(symbol, frames[i]);
		/* What has no name would be printed as an address. */
		if (strstarts(symbol, "0x"))
			strscpy(symbol, "?", sizeof(symbol));
		used += scnprintf(text + used, KLPCTL_STACK_LEN - used, "%s%s",
				  i ? "\n" : "", symbol);
	}
	return used;
}
