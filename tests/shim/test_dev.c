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

/* Another device knows none of the requests, and nothing is written to the caller. */
CASE(wrong_device)
{
	int fd = plp_dev_open("/dev/null");
	uint32_t version = 77;
	uint64_t features = 77;
	uint32_t state = 77;

	CHECK(fd >= 0);
	CHECK_EQ(plp_dev_version(fd, &version, &features), -ENOTTY);
	CHECK_EQ(plp_dev_enable(fd, "patch", 0, 0), -ENOTTY);
	CHECK_EQ(plp_dev_revert(fd, "patch"), -ENOTTY);
	CHECK_EQ(plp_dev_confirm(fd, "patch"), -ENOTTY);
	CHECK_EQ(plp_dev_wait(fd, "patch", 0, &state), -ENOTTY);
	CHECK_EQ(version, 77);
	CHECK_EQ(features, 77);
	CHECK_EQ(state, 77);
	CHECK_EQ(plp_dev_close(fd), 0);
}

/* A descriptor that is not open is -EBADF. */
CASE(wrong_descriptor)
{
	uint32_t version;
	uint64_t features;

	CHECK_EQ(plp_dev_version(-1, &version, &features), -EBADF);
	CHECK_EQ(plp_dev_enable(-1, "patch", 0, 0), -EBADF);
	CHECK_EQ(plp_dev_close(-1), -EBADF);
}

/* A name is refused before the kernel sees it when it is one byte too long. */
CASE(long_names)
{
	char fits[KLPCTL_NAME_LEN + 1];
	char longer[KLPCTL_NAME_LEN + 2];
	char much_longer[301];
	uint32_t state;

	memset(fits, 'a', sizeof(fits) - 1);
	fits[sizeof(fits) - 1] = '\0';
	memset(longer, 'a', sizeof(longer) - 1);
	longer[sizeof(longer) - 1] = '\0';
	memset(much_longer, 'a', sizeof(much_longer) - 1);
	much_longer[sizeof(much_longer) - 1] = '\0';

	CHECK_EQ(plp_dev_enable(-1, fits, 0, 0), -EBADF);
	CHECK_EQ(plp_dev_enable(-1, longer, 0, 0), -ENAMETOOLONG);
	CHECK_EQ(plp_dev_revert(-1, longer), -ENAMETOOLONG);
	CHECK_EQ(plp_dev_wait(-1, longer, 0, &state), -ENAMETOOLONG);
	CHECK_EQ(plp_dev_enable(-1, much_longer, 0, 0), -ENAMETOOLONG);
}
