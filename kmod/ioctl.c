// SPDX-License-Identifier: GPL-2.0-only
/* /dev/klpctl: see uapi/klpctl.h. */
#include <linux/capability.h>
#include <linux/fs.h>
#include <linux/jiffies.h>
#include <linux/miscdevice.h>
#include <linux/module.h>
#include <linux/string.h>
#include <linux/uaccess.h>

#include "confirm.h"
#include "feature.h"
#include "ioctl.h"
#include "operation.h"
#include "patch.h"

static int check_name(const char *name)
{
	return strnlen(name, KLPCTL_NAME_LEN + 1) <= KLPCTL_NAME_LEN ? 0 : -EINVAL;
}

static long ioc_version(struct klpctl_ioc_version __user *user)
{
	struct klpctl_ioc_version arg;

	if (copy_from_user(&arg, user, sizeof(arg)))
		return -EFAULT;
	if (arg.size != sizeof(arg) || memchr_inv(arg.reserved, 0, sizeof(arg.reserved)))
		return -EINVAL;
	arg.version = KLPCTL_VERSION;
	arg.features = klpctl_features();
	return copy_to_user(user, &arg, sizeof(arg)) ? -EFAULT : 0;
}

static long ioc_enable(struct file *file, struct klpctl_ioc_enable __user *user)
{
	struct klpctl_ioc_enable arg;
	const char *why;

	if (!capable(CAP_SYS_MODULE))
		return -EPERM;
	if (copy_from_user(&arg, user, sizeof(arg)))
		return -EFAULT;
	if (arg.size != sizeof(arg) || (arg.flags & ~KLPCTL_ENABLE_OWNED) ||
	    ((arg.flags & KLPCTL_ENABLE_OWNED) && !arg.confirm_ms) ||
	    check_name(arg.name) || arg.reserved0 ||
	    memchr_inv(arg.reserved, 0, sizeof(arg.reserved)))
		return -EINVAL;
	return klpctl_operation_enable(arg.name, arg.confirm_ms,
				       arg.flags & KLPCTL_ENABLE_OWNED ? file : NULL, &why);
}

static int confirm(const char *name, const char **why)
{
	return klpctl_confirm(name);
}

static long ioc_patch(struct klpctl_ioc_patch __user *user,
		      int (*operation)(const char *name, const char **why))
{
	struct klpctl_ioc_patch arg;
	const char *why;

	if (!capable(CAP_SYS_MODULE))
		return -EPERM;
	if (copy_from_user(&arg, user, sizeof(arg)))
		return -EFAULT;
	if (arg.size != sizeof(arg) || arg.flags || check_name(arg.name) ||
	    memchr_inv(arg.reserved, 0, sizeof(arg.reserved)))
		return -EINVAL;
	return operation(arg.name, &why);
}

static long ioc_wait(struct klpctl_ioc_wait __user *user)
{
	struct klpctl_ioc_wait arg;
	enum klpctl_state state = 0;
	long timeout;
	int ret;

	if (copy_from_user(&arg, user, sizeof(arg)))
		return -EFAULT;
	if (arg.size != sizeof(arg) || check_name(arg.name) || arg.reserved0 ||
	    memchr_inv(arg.reserved, 0, sizeof(arg.reserved)))
		return -EINVAL;
	timeout = arg.timeout_ms == KLPCTL_WAIT_FOREVER ? MAX_SCHEDULE_TIMEOUT :
							   msecs_to_jiffies(arg.timeout_ms);
	ret = klpctl_patch_wait(arg.name, timeout, &state);
	if (ret && ret != -ETIMEDOUT)
		return ret;
	arg.state = state;
	return copy_to_user(user, &arg, sizeof(arg)) ? -EFAULT : ret;
}

static long ioctl(struct file *file, unsigned int cmd, unsigned long arg)
{
	void __user *user = (void __user *)arg;

	switch (cmd) {
	case KLPCTL_IOC_VERSION:
		return ioc_version(user);
	case KLPCTL_IOC_ENABLE:
		return ioc_enable(file, user);
	case KLPCTL_IOC_REVERT:
		return ioc_patch(user, klpctl_operation_revert);
	case KLPCTL_IOC_WAIT:
		return ioc_wait(user);
	case KLPCTL_IOC_CONFIRM:
		return ioc_patch(user, confirm);
	default:
		return -ENOTTY;
	}
}

static int release(struct inode *inode, struct file *file)
{
	klpctl_confirm_abandon(file);
	return 0;
}

static const struct file_operations fops = {
	.owner = THIS_MODULE,
	.release = release,
	.unlocked_ioctl = ioctl,
	.compat_ioctl = compat_ptr_ioctl,
	.llseek = noop_llseek,
};

static struct miscdevice device = {
	.minor = MISC_DYNAMIC_MINOR,
	.name = "klpctl",
	.mode = 0600,
	.fops = &fops,
};

/**
 * klpctl_ioctl_init() - make /dev/klpctl
 *
 * Context: Process context, module_init(). May sleep.
 * Return: 0 or -errno.
 */
int __init klpctl_ioctl_init(void)
{
	return misc_register(&device);
}

/**
 * klpctl_ioctl_exit() - undo klpctl_ioctl_init()
 *
 * Context: Process context; nobody has it open: that would hold the module. May
 * sleep.
 */
void klpctl_ioctl_exit(void)
{
	misc_deregister(&device);
}
