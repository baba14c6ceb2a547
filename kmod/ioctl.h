/* SPDX-License-Identifier: GPL-2.0-only */
#ifndef _KLPCTL_IOCTL_H
#define _KLPCTL_IOCTL_H

int klpctl_ioctl_init(void);
void klpctl_ioctl_exit(void);

#endif /* _KLPCTL_IOCTL_H */
