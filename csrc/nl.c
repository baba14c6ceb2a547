// SPDX-License-Identifier: MIT
/* The connection to the klpctl generic netlink family. */
#include <errno.h>
#include <libmnl/libmnl.h>
#include <linux/genetlink.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>

#include "klpctl.h"
#include "plp_msg.h"

/* The kernel fills dumps up to this, when the reader has shown as much room. */
#define BUFFER_LEN	32768
/* Larger than anything the kernel can allocate for one message. */
#define BUFFER_MAX	(16U << 20)
/* Room for events while the reader is busy; the kernel may give less. */
#define QUEUE_LEN	(1 << 20)
/* A request: two headers, a name, a number. */
#define REQUEST_LEN	256

struct plp_nl {
	struct mnl_socket *socket;
	uint32_t group;
	void *buf;
	size_t buf_len;
	struct plp_frame frame;
};

/* ---- sending ---- */

struct request {
	uint8_t cmd;
	uint8_t version;
	uint16_t flags;
	uint16_t text_type;
	const char *text;
	uint16_t number_type;
	uint32_t number;
};

static int request_send(struct plp_nl *nl, const struct request *request)
{
	char buf[REQUEST_LEN] __attribute__((aligned(NLMSG_ALIGNTO)));
	struct plp_frame *frame = &nl->frame;
	struct nlmsghdr *nlh = mnl_nlmsg_put_header(buf);
	struct genlmsghdr *genl;

	nlh->nlmsg_type = frame->family;
	nlh->nlmsg_flags = NLM_F_REQUEST | NLM_F_ACK | request->flags;
	genl = mnl_nlmsg_put_extra_header(nlh, sizeof(*genl));
	genl->cmd = request->cmd;
	genl->version = request->version;
	if (request->text &&
	    !mnl_attr_put_strz_check(nlh, sizeof(buf), request->text_type, request->text))
		return -ENAMETOOLONG;
	if (request->number &&
	    !mnl_attr_put_u32_check(nlh, sizeof(buf), request->number_type, request->number))
		return -EMSGSIZE;

	frame->extack[0] = '\0';
	frame->changed = false;
	frame->pending = false;
	if (++frame->seq == 0)
		frame->seq = 1;
	nlh->nlmsg_seq = frame->seq;
	if (mnl_socket_sendto(nl->socket, nlh, nlh->nlmsg_len) < 0)
		return -errno;
	frame->pending = true;
	return 0;
}

/* ---- receiving ---- */

static int64_t now_ms(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

/* Until there is something to read. Return: 0 or -errno; -EAGAIN: too late. */
static int socket_wait(const struct plp_nl *nl, int64_t deadline)
{
	struct pollfd pfd = { .fd = plp_nl_fd(nl), .events = POLLIN };
	int timeout = -1;
	int ret;

	if (deadline >= 0) {
		int64_t left = deadline - now_ms();

		timeout = left > 0 ? (int)left : 0;
	}
	ret = poll(&pfd, 1, timeout);
	if (ret < 0)
		return -errno;
	return ret ? 0 : -EAGAIN;
}

static int buffer_grow(struct plp_nl *nl, size_t len)
{
	void *buf;

	if (len <= nl->buf_len)
		return 0;
	if (len > BUFFER_MAX)
		return -EMSGSIZE;
	buf = realloc(nl->buf, len);
	if (!buf)
		return -ENOMEM;
	nl->buf = buf;
	nl->buf_len = len;
	return 0;
}

/*
 * Take one datagram. recvmsg() rather than mnl_socket_recvfrom(), which hides
 * the sender: another process with CAP_NET_ADMIN could send to us as well.
 *
 * Return: 0 or -errno; -EAGAIN when there was none.
 */
static int socket_read(struct plp_nl *nl)
{
	struct sockaddr_nl from = { 0 };
	struct iovec iov;
	struct msghdr msg = {
		.msg_name = &from,
		.msg_namelen = sizeof(from),
		.msg_iov = &iov,
		.msg_iovlen = 1,
	};
	ssize_t len;
	int ret;

	len = recv(plp_nl_fd(nl), NULL, 0, MSG_PEEK | MSG_TRUNC);
	if (len < 0)
		return -errno;
	ret = buffer_grow(nl, (size_t)len);
	if (ret)
		return ret;

	iov = (struct iovec){ .iov_base = nl->buf, .iov_len = nl->buf_len };
	len = recvmsg(plp_nl_fd(nl), &msg, 0);
	if (len < 0)
		return -errno;
	if (msg.msg_flags & MSG_TRUNC)
		return -EMSGSIZE;
	if (from.nl_pid == 0)
		plp_frame_start(&nl->frame, nl->buf, (size_t)len);
	return 0;
}

int plp_nl_receive(struct plp_nl *nl, int timeout_ms)
{
	int64_t deadline = timeout_ms < 0 ? -1 : now_ms() + timeout_ms;
	int ret;

	for (;;) {
		ret = plp_frame_next(&nl->frame);
		if (ret != PLP_FRAME_EMPTY)
			return ret;
		ret = socket_wait(nl, deadline);
		if (ret)
			return ret;
		ret = socket_read(nl);
		if (ret == -EAGAIN || ret == 0)
			continue;
		/* An answer may be among what was lost: do not wait for it. */
		if (ret != -EINTR)
			nl->frame.pending = false;
		return ret;
	}
}

uint8_t plp_nl_cmd(const struct plp_nl *nl)
{
	return nl->frame.cmd;
}

int plp_nl_next(struct plp_nl *nl, struct plp_attr *attr)
{
	return plp_msg_next(&nl->frame.msg, attr);
}

const char *plp_nl_extack(const struct plp_nl *nl)
{
	return nl->frame.extack;
}

/* ---- opening ---- */

/* What the controller's answer says of a family. */
struct resolved {
	uint16_t family;
	uint32_t group;
};

static int resolved_read(struct plp_nl *nl, const char *group, struct resolved *found)
{
	struct plp_attr attr;
	uint32_t id = 0;
	bool wanted = false;
	int ret;

	while ((ret = plp_nl_next(nl, &attr)) > 0) {
		if (attr.depth == 0 && attr.type == CTRL_ATTR_FAMILY_ID)
			found->family = (uint16_t)attr.number;
		if (attr.depth == 1) {
			id = 0;
			wanted = false;
		}
		if (attr.depth != 2)
			continue;
		if (attr.type == CTRL_ATTR_MCAST_GRP_ID)
			id = (uint32_t)attr.number;
		else if (group && attr.type == CTRL_ATTR_MCAST_GRP_NAME)
			wanted = strcmp(attr.text, group) == 0;
		if (wanted && id)
			found->group = id;
	}
	return ret;
}

static int family_resolve(struct plp_nl *nl, const char *family, const char *group)
{
	const struct request request = {
		.cmd = CTRL_CMD_GETFAMILY,
		.version = 1,
		.text_type = CTRL_ATTR_FAMILY_NAME,
		.text = family,
	};
	struct resolved found = { 0 };
	int ret;

	nl->frame.family = GENL_ID_CTRL;
	nl->frame.schema = &plp_schema_ctrl;
	ret = request_send(nl, &request);
	if (ret)
		return ret;
	while ((ret = plp_nl_receive(nl, -1)) > 0) {
		ret = resolved_read(nl, group, &found);
		if (ret)
			return ret;
	}
	if (ret)
		return ret;
	if (!found.family || (group && !found.group))
		return -ENOENT;
	nl->frame.family = found.family;
	nl->group = found.group;
	return 0;
}

static int option_set(struct plp_nl *nl, int option)
{
	int on = 1;

	return mnl_socket_setsockopt(nl->socket, option, &on, sizeof(on)) ? -errno : 0;
}

/* Return: 0 or -errno; the caller closes what was opened. */
static int socket_open(struct plp_nl *nl)
{
	int ret;

	nl->socket = mnl_socket_open2(NETLINK_GENERIC, SOCK_CLOEXEC | SOCK_NONBLOCK);
	if (!nl->socket)
		return -errno;
	if (mnl_socket_bind(nl->socket, 0, MNL_SOCKET_AUTOPID))
		return -errno;
	ret = option_set(nl, NETLINK_EXT_ACK);
	if (!ret)
		ret = option_set(nl, NETLINK_CAP_ACK);
	if (!ret)
		ret = option_set(nl, NETLINK_GET_STRICT_CHK);
	return ret;
}

int plp_nl_open_family(struct plp_nl **out, const char *family, const char *group,
		       const struct plp_schema *schema)
{
	struct plp_nl *nl;
	int ret;

	nl = calloc(1, sizeof(*nl));
	if (!nl)
		return -ENOMEM;
	ret = buffer_grow(nl, BUFFER_LEN);
	if (!ret)
		ret = socket_open(nl);
	if (!ret)
		ret = family_resolve(nl, family, group);
	if (ret) {
		plp_nl_close(nl);
		return ret;
	}
	nl->frame.schema = schema;
	*out = nl;
	return 0;
}

int plp_nl_open(struct plp_nl **nl)
{
	return plp_nl_open_family(nl, KLPCTL_GENL_NAME, KLPCTL_GENL_GROUP,
				  &plp_schema_klpctl);
}

void plp_nl_close(struct plp_nl *nl)
{
	if (!nl)
		return;
	if (nl->socket)
		mnl_socket_close(nl->socket);
	free(nl->buf);
	free(nl);
}

int plp_nl_fd(const struct plp_nl *nl)
{
	return mnl_socket_get_fd(nl->socket);
}

int plp_nl_subscribe(struct plp_nl *nl)
{
	int group = (int)nl->group;
	int len = QUEUE_LEN;

	/* Past the system's limit for those who may, up to it for the others. */
	if (setsockopt(plp_nl_fd(nl), SOL_SOCKET, SO_RCVBUFFORCE, &len, sizeof(len)))
		setsockopt(plp_nl_fd(nl), SOL_SOCKET, SO_RCVBUF, &len, sizeof(len));
	if (mnl_socket_setsockopt(nl->socket, NETLINK_ADD_MEMBERSHIP, &group, sizeof(group)))
		return -errno;
	return 0;
}

int plp_nl_send(struct plp_nl *nl, uint8_t cmd, int dump, const char *name, uint32_t options)
{
	const struct request request = {
		.cmd = cmd,
		.version = KLPCTL_GENL_VERSION,
		.flags = dump ? NLM_F_DUMP : 0,
		.text_type = KLPCTL_A_NAME,
		.text = name,
		.number_type = KLPCTL_A_OPTIONS,
		.number = options,
	};

	if (name && strlen(name) > KLPCTL_NAME_LEN)
		return -ENAMETOOLONG;
	return request_send(nl, &request);
}
