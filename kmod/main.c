// SPDX-License-Identifier: GPL-2.0-only
/*
 * klpctl: the registration core for live patches. The parts, in the order of Kbuild, each
 * of which uses only those before it:
 *
 *   symbol core clone            the livepatch core: its words, its list, what it is given
 *   reason task stack            the tasks of a transition
 *   watch                        probes, which wake
 *   event                        numbers, and who is told
 *   registry                     the list of patches, and what the core says of them
 *   operation                    enable, revert, force, confirm, expire
 *   device netlink ioctl         the faces
 */
#include <linux/init.h>
#include <linux/module.h>

#include "device.h"
#include "ioctl.h"
#include "netlink.h"
#include "operation.h"
#include "reason.h"
#include "registry.h"
#include "stack.h"
#include "symbol.h"

static int __init klpctl_init(void)
{
	int ret;

	ret = klpctl_symbol_init();
	if (ret)
		return ret;
	ret = klpctl_registry_init();
	if (ret)
		return ret;
	ret = klpctl_operation_init();
	if (ret)
		goto exit_registry;
	ret = klpctl_device_init();
	if (ret)
		goto exit_operation;
	ret = klpctl_netlink_init();
	if (ret)
		goto exit_device;
	ret = klpctl_ioctl_init();
	if (ret)
		goto exit_netlink;
	/* From here on nothing fails, and things happen. */
	klpctl_stack_init();
	klpctl_reason_init();
	klpctl_registry_start();
	return 0;

exit_netlink:
	klpctl_netlink_exit();
exit_device:
	klpctl_device_exit();
exit_operation:
	klpctl_operation_exit();
exit_registry:
	klpctl_registry_exit();
	return ret;
}

/* The list is emptied while there is still somebody to tell. */
static void __exit klpctl_exit(void)
{
	klpctl_ioctl_exit();
	klpctl_operation_exit();
	klpctl_registry_exit();
	klpctl_netlink_exit();
	klpctl_device_exit();
	klpctl_reason_exit();
	klpctl_stack_exit();
}

module_init(klpctl_init);
module_exit(klpctl_exit);

MODULE_DESCRIPTION("Registration core for kernel live patches");
MODULE_AUTHOR("The pylivepatch developers");
MODULE_LICENSE("GPL");
MODULE_VERSION("0.1.0");
