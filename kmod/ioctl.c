// SPDX-License-Identifier: GPL-2.0-only
/* /dev/klpctl: what changes something, and what waits. See uapi/klpctl.h. */
#include <linux/build_bug.h>
#include <linux/capability.h>
#include <linux/fs.h>
#include <linux/jiffies.h>
#include <linux/miscdevice.h>
#include <linux/module.h>
#include <linux/string.h>
#include <linux/uaccess.h>

#include "ioctl.h"
#include "klpctl.h"
#include "operation.h"
#include "registry.h"

static_assert(KLPCTL_NAME_LEN + 1 == MODULE_NAME_LEN);
static_assert(sizeof(struct klpctl_request) == KLPCTL_REQUEST_SIZE_VER0);

static int check_request(const struct klpctl_request *request, u32 flags, bool time,
			 const char **why)
{
	if (strnlen(request->name, sizeof(request->name)) == sizeof(request->name))
		*why = "the name has no final NUL";
	else if (request->flags & ~flags)
		*why = "unknown flags";
	else if (request->timeout_ms && !time)
		*why = "this takes no time";
	else if (request->state)
		*why = "state must be zero";
	else
		return 0;
	return -EINVAL;
}

static int enable(const struct klpctl_request *request, struct file *file, const char **why)
{
	bool owned = request->flags & KLPCTL_ENABLE_OWNED;
	bool deadline = request->flags & KLPCTL_ENABLE_DEADLINE;

	if (request->flags && !request->timeout_ms) {
		*why = "these flags need a window: timeout_ms";
		return -EINVAL;
	}
	return klpctl_operation_enable(request->name, request->timeout_ms, deadline,
				       owned ? file : NULL, why);
}

static int force(const struct klpctl_request *request, const char **why)
{
	if (!(request->flags & KLPCTL_FORCE_ACCEPT_RISK)) {
		*why = "forcing may crash the kernel: KLPCTL_FORCE_ACCEPT_RISK is missing";
		return -EINVAL;
	}
	return klpctl_operation_force(request->name, why);
}

static int wait(struct klpctl_request *request)
{
	long timeout = request->timeout_ms == KLPCTL_WAIT_FOREVER ?
		       MAX_SCHEDULE_TIMEOUT : msecs_to_jiffies(request->timeout_ms);
	enum klpctl_state state = 0;
	int ret;

	ret = klpctl_registry_wait(request->name, timeout, &state);
	request->state = state;
	return ret;
}

static int handle(unsigned int nr, struct klpctl_request *request, struct file *file,
		  const char **why)
{
	static const u32 flags[] = {
		[_IOC_NR(KLPCTL_IOC_ENABLE)] = KLPCTL_ENABLE_OWNED | KLPCTL_ENABLE_DEADLINE,
		[_IOC_NR(KLPCTL_IOC_FORCE)] = KLPCTL_FORCE_ACCEPT_RISK,
		[_IOC_NR(KLPCTL_IOC_WAIT)] = 0,
	};
	bool waits = nr == _IOC_NR(KLPCTL_IOC_WAIT);
	int ret;

	if (!waits && !capable(CAP_SYS_MODULE)) {
		*why = "CAP_SYS_MODULE in the initial user namespace is needed";
		return -EPERM;
	}
	ret = check_request(request, flags[nr], waits || nr == _IOC_NR(KLPCTL_IOC_ENABLE), why);
	if (ret)
		return ret;
	switch (nr) {
	case _IOC_NR(KLPCTL_IOC_ENABLE):
		return enable(request, file, why);
	case _IOC_NR(KLPCTL_IOC_REVERT):
		return klpctl_operation_revert(request->name, why);
	case _IOC_NR(KLPCTL_IOC_FORCE):
		return force(request, why);
	case _IOC_NR(KLPCTL_IOC_CONFIRM):
		return klpctl_operation_confirm(request->name, why);
	default:
		return wait(request);
	}
}

/* The words of a refusal, cut to the caller's buffer. */
static void put_words(const struct klpctl_request *request, const char *why)
{
	size_t len = min_t(size_t, strlen(why) + 1, request->words_len);
	char __user *to = u64_to_user_ptr(request->words);

	/* They are lost when they cannot be written: the error counts more. */
	if (len && !copy_to_user(to, why, len))
		put_user('\0', to + len - 1);
}

static long ioctl(struct file *file, unsigned int cmd, unsigned long arg)
{
	struct klpctl_request __user *user = (void __user *)arg;
	struct klpctl_request request;
	unsigned int nr = _IOC_NR(cmd);
	const char *why = NULL;
	int ret;

	/* The size is the caller's: _IOC_SIZE(), for structures that have grown. */
	if (_IOC_TYPE(cmd) != KLPCTL_IOC_MAGIC || _IOC_DIR(cmd) != (_IOC_READ | _IOC_WRITE) ||
	    nr < _IOC_NR(KLPCTL_IOC_ENABLE) || nr > _IOC_NR(KLPCTL_IOC_WAIT))
		return -ENOTTY;
	if (_IOC_SIZE(cmd) < KLPCTL_REQUEST_SIZE_VER0)
		return -EINVAL;
	ret = copy_struct_from_user(&request, sizeof(request), user, _IOC_SIZE(cmd));
	if (ret)
		return ret;

	ret = handle(nr, &request, file, &why);
	if (ret && why)
		put_words(&request, why);
	if (request.state && put_user(request.state, &user->state))
		return -EFAULT;
	return ret;
}

static int release(struct inode *inode, struct file *file)
{
	klpctl_operation_abandon(file);
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

/* Nobody has it open: that would hold the module. */
void klpctl_ioctl_exit(void)
{
	misc_deregister(&device);
}
