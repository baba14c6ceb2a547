/* SPDX-License-Identifier: GPL-2.0-only */
#ifndef _KLPCTL_STACK_H
#define _KLPCTL_STACK_H

#include <linux/types.h>

#define KLPCTL_STACK_FRAMES	32
#define KLPCTL_STACK_LEN	2048

struct task_struct;

/**
 * struct klpctl_stack - the stack saved last; zeroed before the first
 * @text: a line for each function, innermost first, without addresses
 * @frames: what it was made of: threads that wait together have the same
 * @len: of @frames
 */
struct klpctl_stack {
	char text[KLPCTL_STACK_LEN];
	unsigned long frames[KLPCTL_STACK_FRAMES];
	unsigned int len;
};

void klpctl_stack_init(void);
void klpctl_stack_exit(void);
bool klpctl_stack_available(void);
bool klpctl_stack_save(struct task_struct *task, struct klpctl_stack *stack);

#endif /* _KLPCTL_STACK_H */
