// SPDX-License-Identifier: MIT
/* The device /dev/klpctl. */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "klpctl.h"
#include "plp.h"

int plp_dev_open(const char *path)
{
	int fd = open(path ? path : KLPCTL_DEVICE, O_RDWR | O_CLOEXEC);

	return fd < 0 ? -errno : fd;
}

int plp_dev_close(int fd)
{
	/* The descriptor is gone after EINTR too. */
	return close(fd) && errno != EINTR ? -errno : 0;
}

static int dev_ioctl(int fd, unsigned long request, void *arg)
{
	return ioctl(fd, request, arg) < 0 ? -errno : 0;
}

static int name_copy(char to[KLPCTL_NAME_LEN + 1], const char *name)
{
	size_t len = strlen(name);

	if (len > KLPCTL_NAME_LEN)
		return -ENAMETOOLONG;
	memcpy(to, name, len);
	return 0;
}

int plp_dev_version(int fd, uint32_t *version, uint64_t *features)
{
	struct klpctl_ioc_version arg = { .size = sizeof(arg) };
	int ret = dev_ioctl(fd, KLPCTL_IOC_VERSION, &arg);

	if (ret)
		return ret;
	*version = arg.version;
	*features = arg.features;
	return 0;
}

int plp_dev_enable(int fd, const char *name, uint32_t confirm_ms, uint32_t flags)
{
	struct klpctl_ioc_enable arg = {
		.size = sizeof(arg),
		.flags = flags,
		.confirm_ms = confirm_ms,
	};
	int ret = name_copy(arg.name, name);

	return ret ? ret : dev_ioctl(fd, KLPCTL_IOC_ENABLE, &arg);
}

static int dev_patch(int fd, unsigned long request, const char *name)
{
	struct klpctl_ioc_patch arg = { .size = sizeof(arg) };
	int ret = name_copy(arg.name, name);

	return ret ? ret : dev_ioctl(fd, request, &arg);
}

int plp_dev_revert(int fd, const char *name)
{
	return dev_patch(fd, KLPCTL_IOC_REVERT, name);
}

int plp_dev_confirm(int fd, const char *name)
{
	return dev_patch(fd, KLPCTL_IOC_CONFIRM, name);
}

int plp_dev_wait(int fd, const char *name, uint32_t timeout_ms, uint32_t *state)
{
	struct klpctl_ioc_wait arg = { .size = sizeof(arg), .timeout_ms = timeout_ms };
	int ret = name_copy(arg.name, name);

	if (ret)
		return ret;
	ret = dev_ioctl(fd, KLPCTL_IOC_WAIT, &arg);
	if (ret == 0 || ret == -ETIMEDOUT)
		*state = arg.state;
	return ret;
}
