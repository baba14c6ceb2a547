// SPDX-License-Identifier: MIT
/* Netlink messages: framing, answers and attributes. */
#include "plp_msg.h"

#include <errno.h>
#include <libmnl/libmnl.h>
#include <linux/genetlink.h>
#include <stdio.h>
#include <string.h>

#include "klpctl.h"

#define FIELDS(table) .fields = (table), .count = sizeof(table) / sizeof((table)[0])

/* The kernel's MAX_ERRNO: nothing below is an error number. */
#define ERRNO_MAX 4095

/* MNL_ALIGN() is made of ints. */
static size_t align(size_t len)
{
	return (len + NLMSG_ALIGNTO - 1) & ~(size_t)(NLMSG_ALIGNTO - 1);
}

/* ---- schemas ---- */

static const struct plp_field transition_fields[] = {
	[KLPCTL_A_TRANSITION_TARGET]	= { .kind = PLP_U32 },
	[KLPCTL_A_TRANSITION_TOTAL]	= { .kind = PLP_U32 },
	[KLPCTL_A_TRANSITION_DONE]	= { .kind = PLP_U32 },
	[KLPCTL_A_TRANSITION_START]	= { .kind = PLP_U64 },
	[KLPCTL_A_TRANSITION_DEADLINE]	= { .kind = PLP_U64 },
};
static const struct plp_schema transition_schema = { FIELDS(transition_fields) };

static const struct plp_field func_fields[] = {
	[KLPCTL_A_FUNC_NAME]		= { .kind = PLP_TEXT },
	[KLPCTL_A_FUNC_SYMPOS]		= { .kind = PLP_U32 },
};
static const struct plp_schema func_schema = { FIELDS(func_fields) };

static const struct plp_field object_fields[] = {
	[KLPCTL_A_OBJECT_NAME]		= { .kind = PLP_TEXT },
	[KLPCTL_A_OBJECT_FUNC]		= { .kind = PLP_NEST, .nest = &func_schema },
};
static const struct plp_schema object_schema = { FIELDS(object_fields) };

static const struct plp_field task_fields[] = {
	[KLPCTL_A_TASK_PID]		= { .kind = PLP_U32 },
	[KLPCTL_A_TASK_TID]		= { .kind = PLP_U32 },
	[KLPCTL_A_TASK_COMM]		= { .kind = PLP_TEXT },
	[KLPCTL_A_TASK_CPU]		= { .kind = PLP_U32 },
	[KLPCTL_A_TASK_REASON]		= { .kind = PLP_U32 },
	[KLPCTL_A_TASK_FUNC]		= { .kind = PLP_TEXT },
	[KLPCTL_A_TASK_STACK]		= { .kind = PLP_TEXT },
};
static const struct plp_schema task_schema = { FIELDS(task_fields) };

static const struct plp_field klpctl_fields[] = {
	[KLPCTL_A_VERSION]		= { .kind = PLP_U32 },
	[KLPCTL_A_FEATURES]		= { .kind = PLP_U64 },
	[KLPCTL_A_KICKS]		= { .kind = PLP_U64 },
	[KLPCTL_A_SEQ]			= { .kind = PLP_U64 },
	[KLPCTL_A_TIME]			= { .kind = PLP_U64 },
	[KLPCTL_A_ACTION]		= { .kind = PLP_U32 },
	[KLPCTL_A_NAME]			= { .kind = PLP_TEXT },
	[KLPCTL_A_STATE]		= { .kind = PLP_U32 },
	[KLPCTL_A_FLAGS]		= { .kind = PLP_U32 },
	[KLPCTL_A_TRANSITION]		= { .kind = PLP_NEST, .nest = &transition_schema },
	[KLPCTL_A_OBJECT]		= { .kind = PLP_NEST, .nest = &object_schema },
	[KLPCTL_A_TASK]			= { .kind = PLP_NEST, .nest = &task_schema },
	[KLPCTL_A_CONFIRM]		= { .kind = PLP_U64 },
	[KLPCTL_A_REVERSALS]		= { .kind = PLP_U64 },
};
const struct plp_schema plp_schema_klpctl = { FIELDS(klpctl_fields) };

static const struct plp_field group_fields[] = {
	[CTRL_ATTR_MCAST_GRP_NAME]	= { .kind = PLP_TEXT },
	[CTRL_ATTR_MCAST_GRP_ID]	= { .kind = PLP_U32 },
};
static const struct plp_schema group_schema = { FIELDS(group_fields) };

/* An array: the type of each group's nest is only its index. */
static const struct plp_field any_group = { .kind = PLP_NEST, .nest = &group_schema };
static const struct plp_schema groups_schema = { .any = &any_group };

static const struct plp_field ctrl_fields[] = {
	[CTRL_ATTR_FAMILY_ID]		= { .kind = PLP_U16 },
	[CTRL_ATTR_FAMILY_NAME]		= { .kind = PLP_TEXT },
	[CTRL_ATTR_VERSION]		= { .kind = PLP_U32 },
	[CTRL_ATTR_MCAST_GROUPS]	= { .kind = PLP_NEST, .nest = &groups_schema },
};
const struct plp_schema plp_schema_ctrl = { FIELDS(ctrl_fields) };

/* ---- attributes ---- */

void plp_msg_start(struct plp_msg *msg, const struct plp_schema *schema,
		   const void *attrs, size_t len)
{
	msg->broken = false;
	msg->depth = 0;
	msg->level[0] = (struct plp_level){ .at = attrs, .left = len, .schema = schema };
}

static const struct plp_field *field_find(const struct plp_schema *schema, uint16_t type)
{
	static const struct plp_field skip = { .kind = PLP_SKIP };

	if (schema->any)
		return schema->any;
	return type < schema->count ? &schema->fields[type] : &skip;
}

/* libmnl's check of a string looks at its last byte only. */
static bool text_valid(const struct nlattr *nla)
{
	size_t len = mnl_attr_get_payload_len(nla);

	return len > 0 && strnlen(mnl_attr_get_payload(nla), len) == len - 1;
}

/* The value of a leaf: false when it is not what its kind says. */
static bool leaf_read(const struct nlattr *nla, enum plp_kind kind, struct plp_attr *attr)
{
	if (nla->nla_type & NLA_F_NESTED)
		return false;

	switch (kind) {
	case PLP_U16:
		if (mnl_attr_validate(nla, MNL_TYPE_U16))
			return false;
		attr->number = mnl_attr_get_u16(nla);
		return true;
	case PLP_U32:
		if (mnl_attr_validate(nla, MNL_TYPE_U32))
			return false;
		attr->number = mnl_attr_get_u32(nla);
		return true;
	case PLP_U64:
		if (mnl_attr_validate(nla, MNL_TYPE_U64))
			return false;
		attr->number = mnl_attr_get_u64(nla);
		return true;
	case PLP_TEXT:
		if (!text_valid(nla))
			return false;
		attr->text = mnl_attr_get_str(nla);
		return true;
	default:
		return false;
	}
}

static int msg_break(struct plp_msg *msg)
{
	msg->broken = true;
	return -EBADMSG;
}

int plp_msg_next(struct plp_msg *msg, struct plp_attr *attr)
{
	if (msg->broken)
		return -EBADMSG;

	while (msg->depth >= 0) {
		struct plp_level *level = &msg->level[msg->depth];
		const struct nlattr *nla = level->at;
		const struct plp_field *field;
		size_t step;
		uint16_t type;

		if (level->left == 0) {
			msg->depth--;
			continue;
		}
		/* The kernel pads, but at the end of a buffer there may be no room. */
		if (!mnl_attr_ok(nla, (int)level->left))
			return msg_break(msg);
		step = align(mnl_attr_get_len(nla));
		if (step > level->left)
			step = level->left;
		level->at = (const void *)((const char *)nla + step);
		level->left -= step;

		type = mnl_attr_get_type(nla);
		field = field_find(level->schema, type);
		if (field->kind == PLP_SKIP)
			continue;

		*attr = (struct plp_attr){
			.type = type,
			.depth = (uint16_t)msg->depth,
			.parent = level->parent,
			.nested = field->kind == PLP_NEST,
		};
		if (field->kind != PLP_NEST)
			return leaf_read(nla, field->kind, attr) ? 1 : msg_break(msg);

		/* The schemas end before the levels do: this is for the next one. */
		if (msg->depth + 1 >= PLP_MSG_DEPTH)
			return msg_break(msg);
		msg->depth++;
		msg->level[msg->depth] = (struct plp_level){
			.at = mnl_attr_get_payload(nla),
			.left = mnl_attr_get_payload_len(nla),
			.schema = field->nest,
			.parent = type,
		};
		return 1;
	}
	return 0;
}

/* ---- messages ---- */

void plp_frame_start(struct plp_frame *frame, const void *buf, size_t len)
{
	frame->at = buf;
	frame->left = len;
}

/* Keep the kernel's words, which stand @offset bytes into the payload. */
static void extack_read(struct plp_frame *frame, const struct nlmsghdr *nlh, size_t offset)
{
	size_t len = mnl_nlmsg_get_payload_len(nlh);
	const char *at = mnl_nlmsg_get_payload(nlh);

	if (!(nlh->nlmsg_flags & NLM_F_ACK_TLVS))
		return;
	while (offset < len) {
		const struct nlattr *nla = (const void *)(at + offset);

		if (!mnl_attr_ok(nla, (int)(len - offset)))
			return;
		if (mnl_attr_get_type(nla) == NLMSGERR_ATTR_MSG && text_valid(nla))
			snprintf(frame->extack, sizeof(frame->extack), "%s",
				 mnl_attr_get_str(nla));
		offset += align(mnl_attr_get_len(nla));
	}
}

static int errno_valid(int error)
{
	return error > 0 || error < -ERRNO_MAX ? -EBADMSG : error;
}

/* NLMSG_ERROR: an acknowledgement or a refusal. */
static int error_read(struct plp_frame *frame, const struct nlmsghdr *nlh)
{
	const struct nlmsgerr *err = mnl_nlmsg_get_payload(nlh);
	size_t len = mnl_nlmsg_get_payload_len(nlh);
	size_t offset = sizeof(*err);

	if (len < sizeof(*err))
		return -EBADMSG;
	/* The request is repeated in full unless NETLINK_CAP_ACK cut it. */
	if (!(nlh->nlmsg_flags & NLM_F_CAPPED)) {
		if (err->msg.nlmsg_len < sizeof(err->msg) ||
		    err->msg.nlmsg_len > len - sizeof(err->error))
			return -EBADMSG;
		offset = sizeof(err->error) + align(err->msg.nlmsg_len);
	}
	extack_read(frame, nlh, offset);
	return errno_valid(err->error);
}

/* NLMSG_DONE: the end of a dump, which may have failed on the way. */
static int done_read(struct plp_frame *frame, const struct nlmsghdr *nlh)
{
	int error;

	if (mnl_nlmsg_get_payload_len(nlh) < sizeof(error))
		return -EBADMSG;
	memcpy(&error, mnl_nlmsg_get_payload(nlh), sizeof(error));
	extack_read(frame, nlh, sizeof(error));
	if (error == 0 && frame->changed)
		return -ESTALE;
	return errno_valid(error);
}

static int frame_end(struct plp_frame *frame, int ret)
{
	frame->pending = false;
	return ret;
}

int plp_frame_next(struct plp_frame *frame)
{
	frame->cmd = 0;
	frame->extack[0] = '\0';
	plp_msg_start(&frame->msg, frame->schema, NULL, 0);

	while (frame->left > 0) {
		const struct nlmsghdr *nlh = frame->at;
		const struct genlmsghdr *genl;
		size_t step;
		bool ours;

		/* Not mnl_nlmsg_ok(): it takes lengths of 2 GiB and more for negative. */
		if (frame->left < sizeof(*nlh) || nlh->nlmsg_len < sizeof(*nlh) ||
		    nlh->nlmsg_len > frame->left) {
			frame->left = 0;
			return frame_end(frame, -EBADMSG);
		}
		step = align(nlh->nlmsg_len);
		if (step > frame->left)
			step = frame->left;
		frame->at = (const void *)((const char *)nlh + step);
		frame->left -= step;

		ours = frame->pending && nlh->nlmsg_seq == frame->seq;
		if (ours && (nlh->nlmsg_flags & NLM_F_DUMP_INTR))
			frame->changed = true;

		if (ours && nlh->nlmsg_type == NLMSG_ERROR)
			return frame_end(frame, error_read(frame, nlh));
		if (ours && nlh->nlmsg_type == NLMSG_DONE)
			return frame_end(frame, done_read(frame, nlh));
		if (nlh->nlmsg_type == NLMSG_OVERRUN)
			return frame_end(frame, -ENOBUFS);
		/* Sequence number 0: an event, nobody asked for it. */
		if (nlh->nlmsg_type != frame->family || !(ours || nlh->nlmsg_seq == 0))
			continue;

		if (mnl_nlmsg_get_payload_len(nlh) < GENL_HDRLEN)
			return frame_end(frame, -EBADMSG);
		genl = mnl_nlmsg_get_payload(nlh);
		frame->cmd = genl->cmd;
		plp_msg_start(&frame->msg, frame->schema,
			      mnl_nlmsg_get_payload_offset(nlh, GENL_HDRLEN),
			      mnl_nlmsg_get_payload_len(nlh) - GENL_HDRLEN);
		return 1;
	}
	return PLP_FRAME_EMPTY;
}
