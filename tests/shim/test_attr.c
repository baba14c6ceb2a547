// SPDX-License-Identifier: MIT
/* msg.c, attributes: well formed, malformed, and mutated by the hundred thousand. */
#include <errno.h>

#include "build.h"

/* Depth first, a nest before what is in it, each with its parent and its value. */
CASE(order)
{
	static const struct plp_attr expected[] = {
		{ KLPCTL_A_NAME, 0, 0, 0, 0, "patch" },
		{ KLPCTL_A_STATE, 0, 0, 0, KLPCTL_STATE_ENABLING, NULL },
		{ KLPCTL_A_SEQ, 0, 0, 0, 0x123456789abcdef0, NULL },
		{ KLPCTL_A_TRANSITION, 0, 0, 1, 0, NULL },
		{ KLPCTL_A_TRANSITION_TOTAL, 1, KLPCTL_A_TRANSITION, 0, 7, NULL },
		{ KLPCTL_A_OBJECT, 0, 0, 1, 0, NULL },
		{ KLPCTL_A_OBJECT_NAME, 1, KLPCTL_A_OBJECT, 0, 0, "vmlinux" },
		{ KLPCTL_A_OBJECT_FUNC, 1, KLPCTL_A_OBJECT, 1, 0, NULL },
		{ KLPCTL_A_FUNC_NAME, 2, KLPCTL_A_OBJECT_FUNC, 0, 0, "f" },
		{ KLPCTL_A_FUNC_SYMPOS, 2, KLPCTL_A_OBJECT_FUNC, 0, 2, NULL },
		{ KLPCTL_A_OBJECT_FUNC, 1, KLPCTL_A_OBJECT, 1, 0, NULL },
		{ KLPCTL_A_FUNC_NAME, 2, KLPCTL_A_OBJECT_FUNC, 0, 0, "g" },
		{ KLPCTL_A_FLAGS, 0, 0, 0, KLPCTL_PATCH_REPLACE, NULL },
	};
	struct plp_attr attr;
	struct plp_msg msg;
	struct build b;
	size_t i;

	build_patch(&b);
	plp_msg_start(&msg, &plp_schema_klpctl, build_attrs(&b), build_attrs_len(&b));
	for (i = 0; i < sizeof(expected) / sizeof(expected[0]); i++) {
		CHECK_EQ(plp_msg_next(&msg, &attr), 1);
		CHECK_EQ(attr.type, expected[i].type);
		CHECK_EQ(attr.depth, expected[i].depth);
		CHECK_EQ(attr.parent, expected[i].parent);
		CHECK_EQ(attr.nested, expected[i].nested);
		CHECK_EQ(attr.number, expected[i].number);
		CHECK_EQ(attr.text != NULL, expected[i].text != NULL);
		if (attr.text)
			CHECK_TEXT(attr.text, expected[i].text);
	}
	CHECK_EQ(plp_msg_next(&msg, &attr), 0);
	CHECK_EQ(plp_msg_next(&msg, &attr), 0);
}

/* A message without attributes, and a nest without any, are well formed. */
CASE(nothing)
{
	struct build b;
	unsigned int seen;

	build_start(&b);
	CHECK_EQ(walk(&plp_schema_klpctl, build_attrs(&b), 0, &seen), 0);
	CHECK_EQ(seen, 0);
	mnl_attr_nest_end(b.nlh, mnl_attr_nest_start(b.nlh, KLPCTL_A_OBJECT));
	CHECK_EQ(walk(&plp_schema_klpctl, build_attrs(&b), build_attrs_len(&b), &seen), 0);
	CHECK_EQ(seen, 1);
}

/* What a newer kernel adds is passed over, at any depth, whatever is in it. */
CASE(unknown)
{
	struct nlattr *nest, *inner;
	struct build b;
	unsigned int seen;

	build_start(&b);
	mnl_attr_put_u8(b.nlh, KLPCTL_A_MAX + 1, 1);
	mnl_attr_put(b.nlh, 0x3fff, 5, "xxxxx");
	nest = mnl_attr_nest_start(b.nlh, KLPCTL_A_MAX + 2);
	mnl_attr_put(b.nlh, 1, 3, "abc");
	mnl_attr_nest_end(b.nlh, nest);
	nest = mnl_attr_nest_start(b.nlh, KLPCTL_A_OBJECT);
	inner = mnl_attr_nest_start(b.nlh, KLPCTL_A_OBJECT_FUNC);
	mnl_attr_put_u64(b.nlh, KLPCTL_A_FUNC_MAX + 1, 1);
	mnl_attr_nest_end(b.nlh, inner);
	mnl_attr_put_u64(b.nlh, KLPCTL_A_OBJECT_MAX + 1, 1);
	mnl_attr_nest_end(b.nlh, nest);
	mnl_attr_put_u32(b.nlh, KLPCTL_A_STATE, 1);
	mnl_attr_put(b.nlh, KLPCTL_A_PAD, 0, NULL);
	CHECK_EQ(walk(&plp_schema_klpctl, build_attrs(&b), build_attrs_len(&b), &seen), 0);
	CHECK_EQ(seen, 3);
}

static int walk_one(uint16_t type, const void *value, size_t len)
{
	struct build b;
	unsigned int seen;

	build_start(&b);
	mnl_attr_put(b.nlh, type, len, value);
	return walk(&plp_schema_klpctl, build_attrs(&b), build_attrs_len(&b), &seen);
}

/* A number has exactly its size. */
CASE(number_size)
{
	static const char zeroes[16];
	size_t len;

	for (len = 0; len <= sizeof(zeroes); len++) {
		CHECK_EQ(walk_one(KLPCTL_A_STATE, zeroes, len), len == 4 ? 0 : -EBADMSG);
		CHECK_EQ(walk_one(KLPCTL_A_SEQ, zeroes, len), len == 8 ? 0 : -EBADMSG);
	}
}

/* A string ends with its only NUL. */
CASE(string_end)
{
	CHECK_EQ(walk_one(KLPCTL_A_NAME, "name", 5), 0);
	CHECK_EQ(walk_one(KLPCTL_A_NAME, "", 1), 0);
	CHECK_EQ(walk_one(KLPCTL_A_NAME, "", 0), -EBADMSG);
	CHECK_EQ(walk_one(KLPCTL_A_NAME, "name", 4), -EBADMSG);
	CHECK_EQ(walk_one(KLPCTL_A_NAME, "na\0me", 6), -EBADMSG);
	CHECK_EQ(walk_one(KLPCTL_A_NAME, "name\0", 6), -EBADMSG);
	CHECK_EQ(walk_one(KLPCTL_A_NAME, "na\0me", 5), -EBADMSG);
}

/* A number or a string that says it is a nest is neither. */
CASE(leaf_as_nest)
{
	CHECK_EQ(walk_one(KLPCTL_A_STATE | NLA_F_NESTED, "\1\0\0", 4), -EBADMSG);
	CHECK_EQ(walk_one(KLPCTL_A_NAME | NLA_F_NESTED, "name", 5), -EBADMSG);
}

/* The kernel's older way to nest, without the flag, is a nest too. */
CASE(nest_without_flag)
{
	CHECK_EQ(walk_one(KLPCTL_A_OBJECT, NULL, 0), 0);
	CHECK_EQ(walk_one(KLPCTL_A_OBJECT, "\1", 1), -EBADMSG);
	CHECK_EQ(walk_one(KLPCTL_A_OBJECT, "\5\0\1\0\0\0\0\0", 8), 0);
}

/* A length below the header's ends the walk instead of holding it. */
CASE(length_too_small)
{
	struct nlattr nla = { .nla_type = KLPCTL_A_STATE };
	unsigned int seen;

	for (nla.nla_len = 0; nla.nla_len < sizeof(nla); nla.nla_len++) {
		CHECK_EQ(walk(&plp_schema_klpctl, &nla, sizeof(nla), &seen), -EBADMSG);
		CHECK_EQ(seen, 0);
	}
}

/* A length past the end is refused, in the message and in a nest. */
CASE(length_too_large)
{
	struct nlattr *nest, *inner;
	struct build b;
	unsigned int seen;

	build_start(&b);
	mnl_attr_put_u32(b.nlh, KLPCTL_A_STATE, 1);
	((struct nlattr *)build_attrs(&b))->nla_len = 9;
	CHECK_EQ(walk(&plp_schema_klpctl, build_attrs(&b), 8, &seen), -EBADMSG);
	((struct nlattr *)build_attrs(&b))->nla_len = 0xffff;
	CHECK_EQ(walk(&plp_schema_klpctl, build_attrs(&b), 8, &seen), -EBADMSG);

	build_start(&b);
	nest = mnl_attr_nest_start(b.nlh, KLPCTL_A_TRANSITION);
	inner = mnl_nlmsg_get_payload_tail(b.nlh);
	mnl_attr_put_u32(b.nlh, KLPCTL_A_TRANSITION_DONE, 1);
	mnl_attr_nest_end(b.nlh, nest);
	mnl_attr_put_u32(b.nlh, KLPCTL_A_STATE, 1);
	CHECK_EQ(walk(&plp_schema_klpctl, build_attrs(&b), build_attrs_len(&b), &seen), 0);
	CHECK_EQ(seen, 3);
	/* It would still end inside the message. */
	inner->nla_len = 16;
	CHECK_EQ(walk(&plp_schema_klpctl, build_attrs(&b), build_attrs_len(&b), &seen), -EBADMSG);
	CHECK_EQ(seen, 1);
}

/* Cut anywhere but between two attributes, a message is malformed. */
CASE(truncated)
{
	char whole[BUILD_LEN + 1] = { 0 };
	const struct nlattr *nla;
	unsigned int seen;
	struct build b;
	size_t len, at;

	build_patch(&b);
	whole[0] = 1;
	for (at = 0; at < build_attrs_len(&b); at += MNL_ALIGN(nla->nla_len)) {
		nla = (const void *)(build_attrs(&b) + at);
		/* The padding after the last one may be missing. */
		for (len = at + nla->nla_len; len <= at + MNL_ALIGN(nla->nla_len); len++)
			whole[len] = 1;
	}
	CHECK_EQ(at, build_attrs_len(&b));
	for (len = 0; len <= build_attrs_len(&b); len++)
		CHECK_EQ(walk(&plp_schema_klpctl, build_attrs(&b), len, &seen),
			 whole[len] ? 0 : -EBADMSG);
}

/* A schema that nests for ever is not followed for ever. */
CASE(too_deep)
{
	struct plp_schema endless = { 0 };
	struct plp_field itself = { PLP_NEST, &endless };
	struct nlattr *nest[PLP_MSG_DEPTH + 1];
	unsigned int seen;
	struct build b;
	int i;

	endless.any = &itself;
	build_start(&b);
	for (i = 0; i < PLP_MSG_DEPTH - 1; i++)
		nest[i] = mnl_attr_nest_start(b.nlh, 1);
	while (i--)
		mnl_attr_nest_end(b.nlh, nest[i]);
	CHECK_EQ(walk(&endless, build_attrs(&b), build_attrs_len(&b), &seen), 0);
	CHECK_EQ(seen, PLP_MSG_DEPTH - 1);

	build_start(&b);
	for (i = 0; i < PLP_MSG_DEPTH + 1; i++)
		nest[i] = mnl_attr_nest_start(b.nlh, 1);
	while (i--)
		mnl_attr_nest_end(b.nlh, nest[i]);
	CHECK_EQ(walk(&endless, build_attrs(&b), build_attrs_len(&b), &seen), -EBADMSG);
	CHECK_EQ(seen, PLP_MSG_DEPTH - 1);
}

/* Whatever the bytes: the walk ends, inside its memory, with 0 or -EBADMSG. */
CASE(mutated)
{
	const struct plp_schema *schemas[] = { &plp_schema_klpctl, &plp_schema_ctrl };
	unsigned int good = 0, bad = 0, seen;
	uint32_t state = 20260923;
	int round;

	for (round = 0; round < 200000; round++) {
		uint32_t flips = 1 + next_random(&state) % 4;
		struct build b;
		size_t len;
		int ret;

		build_patch(&b);
		len = build_attrs_len(&b);
		while (flips--)
			build_attrs(&b)[next_random(&state) % len] ^=
				(char)(1 << next_random(&state) % 8);
		if (next_random(&state) % 4 == 0)
			len = next_random(&state) % (len + 1);
		ret = walk(schemas[round % 8 == 0], build_attrs(&b), len, &seen);
		CHECK(ret == 0 || ret == -EBADMSG);
		ret ? bad++ : good++;
	}
	CHECK(good > 1000);
	CHECK(bad > 1000);
}
