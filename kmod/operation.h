/* SPDX-License-Identifier: GPL-2.0-only */
#ifndef _KLPCTL_OPERATION_H
#define _KLPCTL_OPERATION_H

#include <linux/types.h>

struct file;

int klpctl_operation_init(void);
void klpctl_operation_exit(void);

int klpctl_operation_enable(const char *name, u32 window_ms, bool deadline,
			    const struct file *owner, const char **why);
int klpctl_operation_revert(const char *name, const char **why);
int klpctl_operation_force(const char *name, const char **why);
int klpctl_operation_confirm(const char *name, const char **why);
void klpctl_operation_abandon(const struct file *owner);

#endif /* _KLPCTL_OPERATION_H */
