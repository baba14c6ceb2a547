/* SPDX-License-Identifier: GPL-2.0-only */
#ifndef _KLPCTL_WATCH_H
#define _KLPCTL_WATCH_H

#include <linux/types.h>

struct klp_patch;

void klpctl_watch_init(void (*wake)(void));
void klpctl_watch_exit(void);
bool klpctl_watch_active(void);
unsigned int klpctl_watch_starts(void);
u64 klpctl_watch_started(void);
u64 klpctl_watch_ended(void);
const struct klp_patch *klpctl_watch_forced(void);

#endif /* _KLPCTL_WATCH_H */
