/* SPDX-License-Identifier: GPL-2.0-only */
#ifndef _KLPCTL_PROGRESS_H
#define _KLPCTL_PROGRESS_H

void klpctl_progress_exit(void);
void klpctl_progress_start(void);

#endif /* _KLPCTL_PROGRESS_H */
