/* SPDX-License-Identifier: MIT */
/* Messages to feed: built by libmnl, handed over in memory of their exact size. */
#ifndef BUILD_H
#define BUILD_H

#include <libmnl/libmnl.h>
#include <linux/genetlink.h>

#include "check.h"
#include "klpctl.h"
#include "plp_msg.h"

#define BUILD_LEN 1024

/* A message under construction; nlh is its header. */
struct build {
	char buf[BUILD_LEN] __attribute__((aligned(NLMSG_ALIGNTO)));
	struct nlmsghdr *nlh;
};

static inline void build_start(struct build *b)
{
	memset(b->buf, 0, sizeof(b->buf));
	b->nlh = mnl_nlmsg_put_header(b->buf);
	mnl_nlmsg_put_extra_header(b->nlh, sizeof(struct genlmsghdr));
}

static inline char *build_attrs(struct build *b)
{
	return mnl_nlmsg_get_payload_offset(b->nlh, sizeof(struct genlmsghdr));
}

static inline size_t build_attrs_len(const struct build *b)
{
	return mnl_nlmsg_get_payload_len(b->nlh) - sizeof(struct genlmsghdr);
}

/* An answer to KLPCTL_CMD_PATCH_GET with everything in it. */
static inline void build_patch(struct build *b)
{
	struct nlattr *object, *func, *transition;

	build_start(b);
	mnl_attr_put_strz(b->nlh, KLPCTL_A_NAME, "patch");
	mnl_attr_put_u32(b->nlh, KLPCTL_A_STATE, KLPCTL_STATE_ENABLING);
	mnl_attr_put_u64(b->nlh, KLPCTL_A_SEQ, 0x123456789abcdef0);
	transition = mnl_attr_nest_start(b->nlh, KLPCTL_A_TRANSITION);
	mnl_attr_put_u32(b->nlh, KLPCTL_A_TRANSITION_TOTAL, 7);
	mnl_attr_nest_end(b->nlh, transition);
	object = mnl_attr_nest_start(b->nlh, KLPCTL_A_OBJECT);
	mnl_attr_put_strz(b->nlh, KLPCTL_A_OBJECT_NAME, "vmlinux");
	func = mnl_attr_nest_start(b->nlh, KLPCTL_A_OBJECT_FUNC);
	mnl_attr_put_strz(b->nlh, KLPCTL_A_FUNC_NAME, "f");
	mnl_attr_put_u32(b->nlh, KLPCTL_A_FUNC_SYMPOS, 2);
	mnl_attr_nest_end(b->nlh, func);
	func = mnl_attr_nest_start(b->nlh, KLPCTL_A_OBJECT_FUNC);
	mnl_attr_put_strz(b->nlh, KLPCTL_A_FUNC_NAME, "g");
	mnl_attr_nest_end(b->nlh, func);
	mnl_attr_nest_end(b->nlh, object);
	mnl_attr_put_u32(b->nlh, KLPCTL_A_FLAGS, KLPCTL_PATCH_REPLACE);
}

/* The same bytes where the first one past their end is not ours to read. */
static inline char *exact(const void *bytes, size_t len)
{
	char *copy = malloc(len);

	CHECK(copy != NULL);
	memcpy(copy, bytes, len);
	return copy;
}

/* Walk to the end of len bytes of attributes; *seen counts them. */
static inline int walk(const struct plp_schema *schema, const void *bytes, size_t len,
		       unsigned int *seen)
{
	char *copy = exact(bytes, len);
	struct plp_attr attr;
	struct plp_msg msg;
	int ret;

	*seen = 0;
	plp_msg_start(&msg, schema, copy, len);
	while ((ret = plp_msg_next(&msg, &attr)) > 0) {
		/* Each attribute takes a header at the least. */
		CHECK(++*seen <= len / 4);
		CHECK(attr.depth < PLP_MSG_DEPTH);
		if (attr.text)
			CHECK(attr.text + strlen(attr.text) < copy + len);
	}
	CHECK_EQ(plp_msg_next(&msg, &attr), ret);
	free(copy);
	return ret;
}

/* The same numbers on every run. */
static inline uint32_t next_random(uint32_t *state)
{
	*state ^= *state << 13;
	*state ^= *state >> 17;
	*state ^= *state << 5;
	return *state;
}

#endif /* BUILD_H */
