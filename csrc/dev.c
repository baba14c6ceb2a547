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

int plp_dev_request(int fd, uint32_t request, const char *name, uint32_t flags,
		    uint32_t timeout_ms, struct plp_answer *answer)
{
	struct klpctl_request arg = {
		.flags = flags,
		.timeout_ms = timeout_ms,
		.words = (uintptr_t)answer->words,
		.words_len = sizeof(answer->words),
	};
	size_t len = strlen(name);
	int ret;

	*answer = (struct plp_answer){ 0 };
	if (len > KLPCTL_NAME_LEN)
		return -ENAMETOOLONG;
	memcpy(arg.name, name, len);
	ret = ioctl(fd, request, &arg) < 0 ? -errno : 0;
	answer->state = arg.state;
	return ret;
}
