/* SPDX-License-Identifier: GPL-2.0-only */
#ifndef _KLPCTL_REASON_H
#define _KLPCTL_REASON_H

#include <linux/kallsyms.h>
#include <linux/types.h>

#include "klpctl.h"

struct task_struct;

void klpctl_reason_init(void);
void klpctl_reason_exit(void);
bool klpctl_reason_seen(void);
void klpctl_reason_reset(void);
enum klpctl_reason klpctl_reason_get(const struct task_struct *task, char *func, size_t size);
struct task_struct *klpctl_reason_idle_task(unsigned int cpu);

#endif /* _KLPCTL_REASON_H */
