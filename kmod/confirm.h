/* SPDX-License-Identifier: GPL-2.0-only */
#ifndef _KLPCTL_CONFIRM_H
#define _KLPCTL_CONFIRM_H

#include <linux/types.h>

struct file;
struct klpctl_patch;

void klpctl_confirm_exit(void);
void klpctl_confirm_await(struct klpctl_patch *patch, u64 from, u32 confirm_ms,
			  const struct file *owner);
void klpctl_confirm_forget(struct klpctl_patch *patch);
int klpctl_confirm(const char *name);
void klpctl_confirm_abandon(const struct file *owner);

#endif /* _KLPCTL_CONFIRM_H */
