/* SPDX-License-Identifier: GPL-2.0-only */
#ifndef _KLPCTL_KICK_H
#define _KLPCTL_KICK_H

#include <linux/types.h>

int klpctl_kick_init(void);
void klpctl_kick_exit(void);
void klpctl_kick_start(void);
bool klpctl_kick_active(void);
u64 klpctl_kick_count(void);

#endif /* _KLPCTL_KICK_H */
