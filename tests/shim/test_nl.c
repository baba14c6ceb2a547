// SPDX-License-Identifier: MIT
/* nl.c against the kernel's own generic netlink controller, which is always there. */
#include <errno.h>
#include <fcntl.h>
#include <linux/genetlink.h>
#include <poll.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

#include "check.h"
#include "klpctl.h"
#include "plp_msg.h"

static struct plp_nl *controller(void)
{
	struct plp_nl *nl = NULL;

	CHECK_EQ(plp_nl_open_family(&nl, "nlctrl", "notify", &plp_schema_ctrl), 0);
	CHECK(nl != NULL);
	return nl;
}

static double now(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (double)ts.tv_sec + (double)ts.tv_nsec * 1e-9;
}

/* Read a dump of all families to its end. Return: how many; *ctrl: "nlctrl" was one. */
static int families(struct plp_nl *nl, int *ctrl)
{
	struct plp_attr attr;
	int count = 0;
	int ret;

	*ctrl = 0;
	while ((ret = plp_nl_receive(nl, 5000)) > 0) {
		uint64_t id = 0;
		int named = 0;

		CHECK_EQ(plp_nl_cmd(nl), CTRL_CMD_NEWFAMILY);
		while ((ret = plp_nl_next(nl, &attr)) > 0) {
			if (attr.depth == 0 && attr.type == CTRL_ATTR_FAMILY_ID)
				id = attr.number;
			if (attr.depth == 0 && attr.type == CTRL_ATTR_FAMILY_NAME)
				named = strcmp(attr.text, "nlctrl") == 0;
		}
		CHECK_EQ(ret, 0);
		CHECK(id >= GENL_MIN_ID);
		if (named)
			*ctrl = id == GENL_ID_CTRL;
		count++;
	}
	CHECK_EQ(ret, 0);
	return count;
}

/* Without klpctl there is no such family; with it there is. */
CASE(open_klpctl)
{
	int loaded = access("/sys/module/klpctl", F_OK) == 0;
	struct plp_nl *nl = NULL;

	CHECK_EQ(plp_nl_open(&nl), loaded ? 0 : -ENOENT);
	CHECK_EQ(nl != NULL, loaded);
	plp_nl_close(nl);
}

/* A family, or a group of it, that does not exist is -ENOENT. */
CASE(open_unknown)
{
	struct plp_nl *nl = NULL;

	CHECK_EQ(plp_nl_open_family(&nl, "plp-nonesuch", NULL, &plp_schema_ctrl), -ENOENT);
	CHECK_EQ(plp_nl_open_family(&nl, "nlctrl", "nonesuch", &plp_schema_ctrl), -ENOENT);
	CHECK(nl == NULL);
}

/* A name that no family can have is refused by the kernel, or does not fit. */
CASE(open_long_name)
{
	struct plp_nl *nl = NULL;
	char name[301];
	int ret;

	memset(name, 'a', sizeof(name) - 1);
	name[sizeof(name) - 1] = '\0';
	CHECK_EQ(plp_nl_open_family(&nl, name, NULL, &plp_schema_ctrl), -ENAMETOOLONG);
	name[GENL_NAMSIZ] = '\0';
	ret = plp_nl_open_family(&nl, name, NULL, &plp_schema_ctrl);
	CHECK(ret == -ERANGE || ret == -EINVAL);
	CHECK(nl == NULL);
}

/* Closing nothing is allowed. */
CASE(close_null)
{
	plp_nl_close(NULL);
	CHECK(1);
}

/* The descriptor does not block and is not inherited. */
CASE(descriptor)
{
	struct plp_nl *nl = controller();

	CHECK_EQ(fcntl(plp_nl_fd(nl), F_GETFD), FD_CLOEXEC);
	CHECK(fcntl(plp_nl_fd(nl), F_GETFL) & O_NONBLOCK);
	plp_nl_close(nl);
}

/* A dump in several parts is read to its end, attributes and all, any number of times. */
CASE(dump)
{
	struct plp_nl *nl = controller();
	int first, again, ctrl;

	CHECK_EQ(plp_nl_send(nl, CTRL_CMD_GETFAMILY, 1, NULL, 0), 0);
	first = families(nl, &ctrl);
	CHECK(first > 1);
	CHECK(ctrl);
	CHECK_EQ(plp_nl_send(nl, CTRL_CMD_GETFAMILY, 1, NULL, 0), 0);
	again = families(nl, &ctrl);
	CHECK_EQ(again, first);
	CHECK(ctrl);
	plp_nl_close(nl);
}

/* After the end there is nothing: no message, no attribute, no words. */
CASE(after_the_end)
{
	struct plp_nl *nl = controller();
	struct plp_attr attr;
	int ctrl;

	CHECK_EQ(plp_nl_next(nl, &attr), 0);
	CHECK_EQ(plp_nl_send(nl, CTRL_CMD_GETFAMILY, 1, NULL, 0), 0);
	families(nl, &ctrl);
	CHECK_EQ(plp_nl_cmd(nl), 0);
	CHECK_EQ(plp_nl_next(nl, &attr), 0);
	CHECK_TEXT(plp_nl_extack(nl), "");
	CHECK_EQ(plp_nl_receive(nl, 0), -EAGAIN);
	plp_nl_close(nl);
}

/* A command that the family does not have is refused by number, and the connection goes on. */
CASE(refusal)
{
	struct plp_nl *nl = controller();
	int ctrl;

	CHECK_EQ(plp_nl_send(nl, 99, 0, NULL, 0), 0);
	CHECK_EQ(plp_nl_receive(nl, 5000), -EOPNOTSUPP);
	CHECK_EQ(plp_nl_cmd(nl), 0);
	CHECK_EQ(plp_nl_send(nl, CTRL_CMD_GETFAMILY, 1, NULL, 0), 0);
	CHECK(families(nl, &ctrl) > 1);
	plp_nl_close(nl);
}

/* The kernel's words come with its refusal, and are gone with the next request. */
CASE(refusal_words)
{
	struct plp_nl *nl = controller();

	/* Attribute 8 is one that this command does not take. */
	CHECK_EQ(KLPCTL_A_NAME, CTRL_ATTR_POLICY);
	CHECK_EQ(plp_nl_send(nl, CTRL_CMD_GETPOLICY, 1, "name", 0), 0);
	CHECK_EQ(plp_nl_receive(nl, 5000), -EINVAL);
	CHECK(strlen(plp_nl_extack(nl)) > 0);
	CHECK_EQ(plp_nl_send(nl, 99, 0, NULL, 0), 0);
	CHECK_TEXT(plp_nl_extack(nl), "");
	CHECK_EQ(plp_nl_receive(nl, 5000), -EOPNOTSUPP);
	CHECK_TEXT(plp_nl_extack(nl), "");
	plp_nl_close(nl);
}

/* What is left of the answer to an older request does not answer a newer one. */
CASE(stale_answer)
{
	struct plp_nl *nl = controller();
	int ctrl;

	CHECK_EQ(plp_nl_send(nl, 99, 0, NULL, 0), 0);
	CHECK_EQ(plp_nl_send(nl, 98, 0, NULL, 0), 0);
	CHECK_EQ(plp_nl_send(nl, CTRL_CMD_GETFAMILY, 1, NULL, 0), 0);
	CHECK(families(nl, &ctrl) > 1);
	CHECK(ctrl);
	plp_nl_close(nl);
}

/* One byte more than the longest name is refused here, the longest one by the kernel. */
CASE(long_names)
{
	struct plp_nl *nl = controller();
	char name[301];

	memset(name, 'a', sizeof(name) - 1);
	name[sizeof(name) - 1] = '\0';
	CHECK_EQ(plp_nl_send(nl, CTRL_CMD_GETPOLICY, 1, name, 0), -ENAMETOOLONG);
	name[KLPCTL_NAME_LEN + 1] = '\0';
	CHECK_EQ(plp_nl_send(nl, CTRL_CMD_GETPOLICY, 1, name, 0), -ENAMETOOLONG);
	CHECK_EQ(plp_nl_receive(nl, 0), -EAGAIN);
	name[KLPCTL_NAME_LEN] = '\0';
	CHECK_EQ(plp_nl_send(nl, CTRL_CMD_GETPOLICY, 1, name, 0xffffffff), 0);
	CHECK_EQ(plp_nl_receive(nl, 5000), -EINVAL);
	plp_nl_close(nl);
}

/* Waiting ends with -EAGAIN when the time is over, not before. */
CASE(timeout)
{
	struct plp_nl *nl = controller();
	double start = now();

	CHECK_EQ(plp_nl_receive(nl, 50), -EAGAIN);
	CHECK(now() - start >= 0.049);
	CHECK_EQ(plp_nl_receive(nl, 0), -EAGAIN);
	plp_nl_close(nl);
}

static void on_alarm(int number)
{
	(void)number;
}

/* A signal ends the waiting, with a time limit and without one. */
CASE(interrupted)
{
	struct sigaction action = { .sa_handler = on_alarm, .sa_flags = SA_RESTART };
	struct itimerval every = { { 0, 20000 }, { 0, 20000 } };
	struct itimerval never = { { 0, 0 }, { 0, 0 } };
	struct plp_nl *nl = controller();

	CHECK_EQ(sigaction(SIGALRM, &action, NULL), 0);
	CHECK_EQ(setitimer(ITIMER_REAL, &every, NULL), 0);
	CHECK_EQ(plp_nl_receive(nl, -1), -EINTR);
	CHECK_EQ(plp_nl_receive(nl, 10000), -EINTR);
	CHECK_EQ(setitimer(ITIMER_REAL, &never, NULL), 0);
	CHECK_EQ(plp_nl_receive(nl, 0), -EAGAIN);
	plp_nl_close(nl);
}

/* What the kernel had to drop is reported once, and the connection goes on. */
CASE(lost)
{
	struct plp_nl *nl = controller();
	int len = 1;
	int lost = 0;
	int ctrl, i, ret;

	CHECK_EQ(setsockopt(plp_nl_fd(nl), SOL_SOCKET, SO_RCVBUF, &len, sizeof(len)), 0);
	for (i = 0; i < 200; i++)
		CHECK_EQ(plp_nl_send(nl, 99, 0, NULL, 0), 0);
	while ((ret = plp_nl_receive(nl, 0)) != -EAGAIN) {
		CHECK_EQ(ret, -ENOBUFS);
		lost++;
	}
	CHECK_EQ(lost, 1);
	CHECK_EQ(plp_nl_send(nl, CTRL_CMD_GETFAMILY, 1, NULL, 0), 0);
	CHECK(families(nl, &ctrl) > 1);
	CHECK(ctrl);
	plp_nl_close(nl);
}

/* A message that another process sends, if it may, is not taken for the kernel's. */
CASE(forged)
{
	struct {
		struct nlmsghdr nlh;
		struct genlmsghdr genl;
	} event = {
		.nlh = { .nlmsg_len = sizeof(event), .nlmsg_type = GENL_ID_CTRL },
		.genl = { .cmd = CTRL_CMD_NEWFAMILY },
	};
	struct plp_nl *nl = controller();
	struct plp_nl *other = controller();
	struct sockaddr_nl to;
	socklen_t len = sizeof(to);
	struct pollfd pfd = { .fd = plp_nl_fd(nl), .events = POLLIN };

	CHECK_EQ(getsockname(plp_nl_fd(nl), (struct sockaddr *)&to, &len), 0);
	if (sendto(plp_nl_fd(other), &event, sizeof(event), 0, (struct sockaddr *)&to, len) < 0)
		CHECK_EQ(errno, EPERM);
	else
		CHECK_EQ(poll(&pfd, 1, 5000), 1);
	CHECK_EQ(plp_nl_receive(nl, 0), -EAGAIN);
	plp_nl_close(other);
	plp_nl_close(nl);
}

/* The group is joined, and a subscribed connection still gets its answers. */
CASE(subscribe)
{
	struct plp_nl *nl = controller();
	struct plp_nl *without = NULL;
	unsigned int groups[8] = { 0 };
	socklen_t len = sizeof(groups);
	unsigned int joined = 0;
	size_t i;
	int ctrl;

	CHECK_EQ(plp_nl_subscribe(nl), 0);
	CHECK_EQ(getsockopt(plp_nl_fd(nl), SOL_NETLINK, NETLINK_LIST_MEMBERSHIPS, groups, &len), 0);
	for (i = 0; i < sizeof(groups) / sizeof(groups[0]); i++)
		joined |= groups[i];
	CHECK(joined != 0);
	CHECK_EQ(plp_nl_send(nl, CTRL_CMD_GETFAMILY, 1, NULL, 0), 0);
	CHECK(families(nl, &ctrl) > 1);
	CHECK(ctrl);
	plp_nl_close(nl);

	CHECK_EQ(plp_nl_open_family(&without, "nlctrl", NULL, &plp_schema_ctrl), 0);
	CHECK_EQ(plp_nl_subscribe(without), -EINVAL);
	plp_nl_close(without);
}
