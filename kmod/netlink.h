/* SPDX-License-Identifier: GPL-2.0-only */
#ifndef _KLPCTL_NETLINK_H
#define _KLPCTL_NETLINK_H

#include <linux/types.h>

#include "klpctl.h"

struct genl_family;
struct genl_info;
struct klpctl_event;
struct netlink_callback;
struct netlink_ext_ack;
struct sk_buff;

extern struct genl_family klpctl_netlink_family;

int klpctl_netlink_init(void);
void klpctl_netlink_exit(void);
bool klpctl_netlink_has_listeners(void);
void klpctl_netlink_event(const struct klpctl_event *event);

/* netlink.c, for the other two */
int klpctl_netlink_check_root(struct sk_buff *skb, struct netlink_ext_ack *extack);
int klpctl_netlink_check_name(struct genl_info *info);
int klpctl_netlink_put_target(struct sk_buff *skb, enum klpctl_target target);

/* netlink_patch.c */
int klpctl_netlink_patch_get(struct sk_buff *skb, struct genl_info *info);
int klpctl_netlink_patch_dump_start(struct netlink_callback *cb);
int klpctl_netlink_patch_dump(struct sk_buff *skb, struct netlink_callback *cb);

/* netlink_task.c */
int klpctl_netlink_task_dump_start(struct netlink_callback *cb);
int klpctl_netlink_task_dump(struct sk_buff *skb, struct netlink_callback *cb);
int klpctl_netlink_task_dump_done(struct netlink_callback *cb);

#endif /* _KLPCTL_NETLINK_H */
