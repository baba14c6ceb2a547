// SPDX-License-Identifier: GPL-2.0-only
/* klpctl: the registration core for live patches. The parts, bottom up. */
#include <linux/init.h>
#include <linux/module.h>

#include "confirm.h"
#include "device.h"
#include "ioctl.h"
#include "kick.h"
#include "netlink.h"
#include "patch.h"
#include "progress.h"
#include "reason.h"
#include "stack.h"
#include "symbol.h"
#include "task.h"
#include "transition.h"

static int __init klpctl_init(void)
{
	int ret;

	klpctl_symbol_init();
	ret = klpctl_device_init();
	if (ret)
		return ret;
	ret = klpctl_kick_init();
	if (ret)
		goto exit_device;
	ret = klpctl_netlink_init();
	if (ret)
		goto exit_kick;
	ret = klpctl_patch_init();
	if (ret)
		goto exit_netlink;
	ret = klpctl_ioctl_init();
	if (ret)
		goto exit_patch;
	/* From here on nothing fails, and things happen. */
	klpctl_stack_init();
	klpctl_task_init();
	klpctl_reason_init();
	klpctl_transition_init();
	klpctl_patch_adopt();
	return 0;

exit_patch:
	klpctl_patch_exit();
exit_netlink:
	klpctl_netlink_exit();
exit_kick:
	klpctl_kick_exit();
exit_device:
	klpctl_device_exit();
	return ret;
}

static void __exit klpctl_exit(void)
{
	klpctl_transition_exit();
	klpctl_progress_exit();
	klpctl_reason_exit();
	klpctl_task_exit();
	klpctl_ioctl_exit();
	klpctl_confirm_exit();
	klpctl_patch_exit();
	klpctl_netlink_exit();
	klpctl_kick_exit();
	klpctl_device_exit();
	klpctl_stack_exit();
}

module_init(klpctl_init);
module_exit(klpctl_exit);

MODULE_DESCRIPTION("Registration core for kernel live patches");
MODULE_AUTHOR("The pylivepatch developers");
MODULE_LICENSE("GPL");
MODULE_VERSION("0.1.0");
