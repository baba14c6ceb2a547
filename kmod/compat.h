/* SPDX-License-Identifier: GPL-2.0-only */
/* The only place that looks at the kernel's version number. */
#ifndef _KLPCTL_COMPAT_H
#define _KLPCTL_COMPAT_H

#include <linux/device/class.h>
#include <linux/livepatch.h>
#include <linux/version.h>
#include <net/genetlink.h>

/* 23680f0b7d7f ("driver core: make struct class.dev_uevent() take a const *"), 6.2 */
#if LINUX_VERSION_CODE < KERNEL_VERSION(6, 2, 0)
#define klpctl_uevent_device struct device
#else
#define klpctl_uevent_device const struct device
#endif

/* 1aaba11da9aa ("driver core: class: remove module * from class_create()"), 6.4 */
#if LINUX_VERSION_CODE < KERNEL_VERSION(6, 4, 0)
#define klpctl_class_create(name) class_create(THIS_MODULE, name)
#else
#define klpctl_class_create(name) class_create(name)
#endif

/* struct genl_dumpit_info has got a struct genl_info inside, 6.6 */
static inline struct nlattr **klpctl_dump_attrs(struct netlink_callback *cb)
{
#if LINUX_VERSION_CODE < KERNEL_VERSION(6, 6, 0)
	return genl_dumpit_info(cb)->attrs;
#else
	return genl_info_dump(cb)->attrs;
#endif
}

/* d927752f287f ("livepatch: Rename KLP_* to KLP_TRANSITION_*"), 6.10 */
#ifndef KLP_TRANSITION_IDLE
#define KLP_TRANSITION_IDLE KLP_UNDEFINED
#endif

/* A number in place of the bool was under review in May 2026. */
static inline bool klpctl_replaces(const struct klp_patch *patch)
{
	return patch->replace;
}

#endif /* _KLPCTL_COMPAT_H */
