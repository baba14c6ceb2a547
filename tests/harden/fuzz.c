// SPDX-License-Identifier: MIT
/*
 * Random requests, made of what a right one is made of, to the family and the device.
 *
 *	fuzz COUNT SEED [user]
 *
 * Each request must get an answer, whatever that is. Prints how many of each there were.
 * What must not happen is for the kernel to say.
 */
#include <err.h>
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <linux/genetlink.h>
#include <linux/netlink.h>
#include <poll.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "klpctl.h"

static uint64_t state;

static uint32_t rnd(uint32_t below)
{
	state ^= state << 13;
	state ^= state >> 7;
	state ^= state << 17;
	return below ? (uint32_t)(state >> 20) % below : (uint32_t)(state >> 20);
}

static const char *const names[] = {
	"plp_cmdline", "plp_hold", "plp_callback", "plp_foreign", "plp_replace", "", "nobody", "../x",
};

/* ---- netlink ---- */

static int sock;
static uint16_t family = GENL_ID_CTRL;
static uint32_t sequence;

struct message {
	struct nlmsghdr nlh;
	struct genlmsghdr genl;
	char data[8192];
};

static void put(struct message *m, uint16_t type, const void *value, uint16_t len)
{
	struct nlattr *nla = (void *)((char *)m + NLMSG_ALIGN(m->nlh.nlmsg_len));

	if (NLMSG_ALIGN(m->nlh.nlmsg_len) + NLA_HDRLEN + len + 8 > sizeof(*m))
		return;
	nla->nla_type = type;
	nla->nla_len = NLA_HDRLEN + len;
	memcpy(nla + 1, value, len);
	memset((char *)(nla + 1) + len, 0, NLA_ALIGN(len) - len);
	m->nlh.nlmsg_len = NLMSG_ALIGN(m->nlh.nlmsg_len) + NLA_ALIGN(nla->nla_len);
}

static void start(struct message *m, uint8_t cmd, uint16_t flags)
{
	m->nlh = (struct nlmsghdr){
		.nlmsg_len = NLMSG_LENGTH(GENL_HDRLEN), .nlmsg_type = family,
		.nlmsg_flags = NLM_F_REQUEST | NLM_F_ACK | flags, .nlmsg_seq = ++sequence,
	};
	m->genl = (struct genlmsghdr){ .cmd = cmd, .version = 1 };
}

/* Send, and read the answer to its end. Return: its error, or 1 when there was none. */
static int ask(const struct message *m, uint32_t len)
{
	static char buf[1 << 20] __attribute__((aligned(8)));
	struct pollfd pfd = { .fd = sock, .events = POLLIN };
	const struct nlmsghdr *nlh;
	ssize_t left;

	if (send(sock, m, len, 0) < 0)
		return -errno;
	/* What is too short to be a request gets none. */
	while (poll(&pfd, 1, len < sizeof(m->nlh) || m->nlh.nlmsg_len > len ||
		    m->nlh.nlmsg_len < sizeof(m->nlh) ? 0 : 20000) > 0) {
		left = recv(sock, buf, sizeof(buf), 0);
		if (left < 0)
			return -errno;
		for (nlh = (void *)buf; NLMSG_OK(nlh, left); nlh = NLMSG_NEXT(nlh, left))
			if (nlh->nlmsg_seq == m->nlh.nlmsg_seq &&
			    (nlh->nlmsg_type == NLMSG_ERROR || nlh->nlmsg_type == NLMSG_DONE))
				return *(const int *)NLMSG_DATA(nlh);
	}
	return 1;
}

static void resolve(void)
{
	struct message m;
	char buf[8192] __attribute__((aligned(8)));
	const struct nlmsghdr *nlh = (void *)buf;
	const struct nlattr *nla;
	ssize_t len;

	start(&m, CTRL_CMD_GETFAMILY, 0);
	m.nlh.nlmsg_flags = NLM_F_REQUEST;
	put(&m, CTRL_ATTR_FAMILY_NAME, KLPCTL_GENL_NAME, sizeof(KLPCTL_GENL_NAME));
	if (send(sock, &m, m.nlh.nlmsg_len, 0) < 0 || (len = recv(sock, buf, sizeof(buf), 0)) < 0)
		err(1, "klpctl");
	for (nla = (void *)(buf + NLMSG_LENGTH(GENL_HDRLEN)); (char *)nla < buf + nlh->nlmsg_len;
	     nla = (void *)((char *)nla + NLA_ALIGN(nla->nla_len)))
		if (nla->nla_type == CTRL_ATTR_FAMILY_ID)
			family = *(const uint16_t *)(nla + 1);
	if (family == GENL_ID_CTRL)
		errx(1, "no family klpctl");
}

static void put_something(struct message *m)
{
	char value[600];
	const char *name = names[rnd(sizeof(names) / sizeof(*names))];
	uint16_t type = rnd(4) ? rnd(KLPCTL_A_MAX + 4) : rnd(1 << 16);
	uint32_t i, len, number = rnd(3) ? rnd(4) : rnd(0);

	switch (rnd(5)) {
	case 0:
		put(m, KLPCTL_A_NAME, name, strlen(name) + rnd(2));
		break;
	case 1:
		put(m, KLPCTL_A_OPTIONS, &number, sizeof(number));
		break;
	case 2:
		put(m, type, &number, rnd(5));
		break;
	case 3:
		/* A nest, or what pretends to be one. */
		put(m, type | NLA_F_NESTED, &number, sizeof(number));
		break;
	default:
		len = rnd(rnd(8) ? 70 : sizeof(value));
		for (i = 0; i < len; i++)
			value[i] = rnd(256);
		put(m, type, value, len);
	}
}

static int fuzz_netlink(void)
{
	struct message m;
	uint32_t i, len, n = rnd(5);

	start(&m, rnd(10) ? rnd(KLPCTL_CMD_MAX + 2) : rnd(256), 0);
	if (!rnd(3))
		m.nlh.nlmsg_flags |= NLM_F_DUMP;
	if (!rnd(20))
		m.nlh.nlmsg_flags |= rnd(1 << 16);
	if (!rnd(20))
		m.genl.version = rnd(256);
	if (!rnd(20))
		m.genl.reserved = rnd(1 << 16);
	for (i = 0; i < n; i++)
		put_something(&m);
	len = m.nlh.nlmsg_len;
	/* Bytes that are wrong, and lengths that do not fit. */
	if (!rnd(10) && len > NLMSG_LENGTH(GENL_HDRLEN))
		((char *)&m)[NLMSG_LENGTH(GENL_HDRLEN) + rnd(len - NLMSG_LENGTH(GENL_HDRLEN))] ^= 1 << rnd(8);
	if (!rnd(50))
		m.nlh.nlmsg_len = rnd(rnd(2) ? 64 : 0);
	if (!rnd(50))
		len = rnd(len);
	return ask(&m, len);
}

/* ---- the device ---- */

static int device;

static int fuzz_device(void)
{
	static char words[64];
	struct {
		struct klpctl_request request;
		char tail[64];
	} arg = { 0 };
	uint32_t i, size = sizeof(arg.request), nr = 1 + rnd(5);
	unsigned long cmd;
	int ret;

	strcpy(arg.request.name, names[rnd(sizeof(names) / sizeof(*names))]);
	arg.request.flags = rnd(3) ? rnd(4) : 0;
	/* Short waits, and now and then a window. */
	arg.request.timeout_ms = nr == 5 ? rnd(2) : rnd(3) ? 0 : 1 + rnd(50);
	arg.request.words = rnd(4) ? (uintptr_t)words : rnd(0);
	arg.request.words_len = rnd(4) ? rnd(sizeof(words)) : rnd(0);
	if (rnd(4) && arg.request.words == (uintptr_t)words && arg.request.words_len > sizeof(words))
		arg.request.words_len = sizeof(words);
	if (arg.request.words_len > sizeof(words) && arg.request.words == (uintptr_t)words)
		arg.request.words = 8;
	if (!rnd(10))
		((unsigned char *)&arg)[rnd(sizeof(arg.request.name) + 8)] = rnd(256);
	if (!rnd(10))
		for (i = 0; i < sizeof(arg.request.name); i++)
			arg.request.name[i] = rnd(256);
	if (!rnd(20))
		arg.request.state = rnd(0);
	if (!rnd(10)) {
		size = rnd(sizeof(arg) + 1);
		if (rnd(2))
			arg.tail[rnd(sizeof(arg.tail))] = rnd(2);
	}
	/* Nobody waits for ever, nor forces. */
	if (nr == 5 && arg.request.timeout_ms > 10)
		arg.request.timeout_ms = 1;
	if (nr == 3)
		arg.request.flags &= ~1U;
	cmd = _IOC(rnd(20) ? _IOC_READ | _IOC_WRITE : rnd(4), rnd(50) ? KLPCTL_IOC_MAGIC : rnd(256),
		   rnd(20) ? nr : 6 + rnd(250), size);
	/* A terminal's, say: those of others are theirs. */
	if (_IOC_TYPE(cmd) != KLPCTL_IOC_MAGIC && (cmd >> 8 & 0xff) == 'T')
		return -ENOTTY;
	ret = ioctl(device, cmd, rnd(100) ? (void *)&arg : (void *)(uintptr_t)rnd(0)) ? -errno : 0;
	return ret;
}

int main(int argc, char **argv)
{
	static unsigned long answers[2][4096];
	long i, count = argc > 2 ? atol(argv[1]) : 0;
	int which, ret;

	if (count <= 0)
		errx(2, "see the first comment");
	state = strtoull(argv[2], NULL, 0) * 0x9e3779b97f4a7c15u + 1;
	sock = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_GENERIC);
	if (sock < 0)
		err(1, "netlink");
	device = open(KLPCTL_DEVICE, O_RDWR | O_CLOEXEC);
	if (device < 0)
		err(1, KLPCTL_DEVICE);
	if (argc > 3 && (setgroups(0, NULL) || setgid(65534) || setuid(65534)))
		err(1, "nobody");
	resolve();
	for (i = 0; i < count; i++) {
		which = rnd(3) == 0;
		ret = which ? fuzz_device() : fuzz_netlink();
		answers[which][ret > 0 ? 4095 : -ret]++;
		/* Descriptors come and go, with what they own. */
		if (!rnd(1000) && argc <= 3) {
			close(device);
			device = open(KLPCTL_DEVICE, O_RDWR | O_CLOEXEC);
			if (device < 0)
				err(1, KLPCTL_DEVICE);
		}
	}
	for (which = 0; which < 2; which++)
		for (i = 0; i < 4096; i++)
			if (answers[which][i])
				printf("%s: %lu %s\n", which ? "device" : "netlink", answers[which][i],
				       i == 4095 ? "without an answer" : strerror(i));
	return 0;
}
