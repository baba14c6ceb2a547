// SPDX-License-Identifier: MIT
/* dev.c against devices that are not klpctl. */
#include <errno.h>
#include <fcntl.h>
#include <unistd.h>

#include "check.h"
#include "klpctl.h"
#include "plp.h"

/* A device that is not there is -ENOENT. */
CASE(open_missing)
{
	CHECK_EQ(plp_dev_open("nothing-here"), -ENOENT);
}

/* Without a path it is /dev/klpctl that is opened. */
CASE(open_default)
{
	int there = access(KLPCTL_DEVICE, R_OK | W_OK) == 0;
	int fd = plp_dev_open(NULL);

	CHECK_EQ(fd >= 0, there);
	if (there)
		CHECK_EQ(plp_dev_close(fd), 0);
	else
		CHECK(fd == -ENOENT || fd == -EACCES);
}

/* A directory is refused by open() itself. */
CASE(open_directory)
{
	CHECK_EQ(plp_dev_open("/dev"), -EISDIR);
}

/* A program started later does not inherit the descriptor. */
CASE(open_cloexec)
{
	int fd = plp_dev_open("/dev/null");

	CHECK(fd >= 0);
	CHECK_EQ(fcntl(fd, F_GETFD), FD_CLOEXEC);
	CHECK_EQ(plp_dev_close(fd), 0);
	CHECK_EQ(plp_dev_close(fd), -EBADF);
}

/* Another device knows none of the requests, and nothing is left in the answer. */
CASE(wrong_device)
{
	static const uint32_t requests[] = {
		KLPCTL_IOC_ENABLE, KLPCTL_IOC_REVERT, KLPCTL_IOC_FORCE, KLPCTL_IOC_CONFIRM,
		KLPCTL_IOC_WAIT,
	};
	int fd = plp_dev_open("/dev/null");
	struct plp_answer answer;
	unsigned int i;

	CHECK(fd >= 0);
	for (i = 0; i < sizeof(requests) / sizeof(*requests); i++) {
		memset(&answer, 'x', sizeof(answer));
		CHECK_EQ(plp_dev_request(fd, requests[i], "patch", 0, 0, &answer), -ENOTTY);
		CHECK_EQ(answer.state, 0);
		CHECK_EQ(*answer.words, '\0');
	}
	CHECK_EQ(plp_dev_close(fd), 0);
}

/* A descriptor that is not open is -EBADF. */
CASE(wrong_descriptor)
{
	struct plp_answer answer;

	CHECK_EQ(plp_dev_request(-1, KLPCTL_IOC_WAIT, "patch", 0, 0, &answer), -EBADF);
	CHECK_EQ(plp_dev_close(-1), -EBADF);
}

/* A name is refused before the kernel sees it when it is one byte too long. */
CASE(long_names)
{
	char name[302];
	struct plp_answer answer;

	memset(name, 'a', sizeof(name));
	name[KLPCTL_NAME_LEN] = '\0';
	CHECK_EQ(plp_dev_request(-1, KLPCTL_IOC_ENABLE, name, 0, 0, &answer), -EBADF);
	name[KLPCTL_NAME_LEN] = 'a';
	name[KLPCTL_NAME_LEN + 1] = '\0';
	CHECK_EQ(plp_dev_request(-1, KLPCTL_IOC_ENABLE, name, 0, 0, &answer), -ENAMETOOLONG);
	name[KLPCTL_NAME_LEN + 1] = 'a';
	name[sizeof(name) - 1] = '\0';
	CHECK_EQ(plp_dev_request(-1, KLPCTL_IOC_WAIT, name, 0, 0, &answer), -ENAMETOOLONG);
}
