/* SPDX-License-Identifier: GPL-2.0-only */
#ifndef _KLPCTL_DEVICE_H
#define _KLPCTL_DEVICE_H

int klpctl_device_init(void);
void klpctl_device_exit(void);

#endif /* _KLPCTL_DEVICE_H */
