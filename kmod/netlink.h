/* SPDX-License-Identifier: GPL-2.0-only */
#ifndef _KLPCTL_NETLINK_H
#define _KLPCTL_NETLINK_H

int klpctl_netlink_init(void);
void klpctl_netlink_exit(void);

#endif /* _KLPCTL_NETLINK_H */
