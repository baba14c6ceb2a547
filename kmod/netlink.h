/* SPDX-License-Identifier: GPL-2.0-only */
#ifndef _KLPCTL_NETLINK_H
#define _KLPCTL_NETLINK_H

#include <linux/types.h>

struct klpctl_event;

int klpctl_netlink_init(void);
void klpctl_netlink_exit(void);
void klpctl_netlink_event(const struct klpctl_event *event);

#endif /* _KLPCTL_NETLINK_H */
