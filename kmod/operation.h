/* SPDX-License-Identifier: GPL-2.0-only */
#ifndef _KLPCTL_OPERATION_H
#define _KLPCTL_OPERATION_H

#include <linux/types.h>

struct file;

int klpctl_operation_enable(const char *name, u32 confirm_ms, const struct file *owner,
			    const char **why);
int klpctl_operation_revert(const char *name, const char **why);
int klpctl_operation_expire(const char *name, const char **why);
int klpctl_operation_force(const char *name, const char **why);

#endif /* _KLPCTL_OPERATION_H */
