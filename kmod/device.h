/* SPDX-License-Identifier: GPL-2.0-only */
#ifndef _KLPCTL_DEVICE_H
#define _KLPCTL_DEVICE_H

struct device;
struct klpctl_event;

int klpctl_device_init(void);
void klpctl_device_exit(void);
struct device *klpctl_device_add(const char *name);
void klpctl_device_del(struct device *device);
void klpctl_device_event(const struct klpctl_event *event);

#endif /* _KLPCTL_DEVICE_H */
