/* SPDX-License-Identifier: GPL-2.0-only */
#ifndef _KLPCTL_STACK_H
#define _KLPCTL_STACK_H

#include <linux/types.h>

#define KLPCTL_STACK_LEN 2048

struct task_struct;

void klpctl_stack_init(void);
void klpctl_stack_exit(void);
bool klpctl_stack_available(void);
bool klpctl_stack_save(struct task_struct *task, char text[KLPCTL_STACK_LEN]);

#endif /* _KLPCTL_STACK_H */
