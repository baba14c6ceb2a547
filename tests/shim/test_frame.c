// SPDX-License-Identifier: MIT
/* msg.c, messages: what answers a request, what does not, and what is no message. */
#include <errno.h>
#include <limits.h>

#include "build.h"

#define FAMILY	33
#define SEQ	5

static const struct plp_frame waiting = {
	.family = FAMILY,
	.schema = &plp_schema_klpctl,
	.seq = SEQ,
	.pending = true,
};

/* A datagram under construction. */
struct datagram {
	char buf[BUILD_LEN] __attribute__((aligned(NLMSG_ALIGNTO)));
	size_t len;
};

/* Append a message. Return: its header, to be made wrong. */
static struct nlmsghdr *add(struct datagram *d, uint16_t type, uint32_t seq, uint16_t flags,
			    const void *payload, size_t len)
{
	struct nlmsghdr *nlh = (void *)(d->buf + d->len);

	*nlh = (struct nlmsghdr){
		.nlmsg_len = (uint32_t)(sizeof(*nlh) + len),
		.nlmsg_type = type,
		.nlmsg_flags = flags,
		.nlmsg_seq = seq,
	};
	if (len)
		memcpy(nlh + 1, payload, len);
	d->len += NLMSG_ALIGN(nlh->nlmsg_len);
	return nlh;
}

static void add_genl(struct datagram *d, uint32_t seq, uint8_t cmd)
{
	struct genlmsghdr genl = { .cmd = cmd };

	add(d, FAMILY, seq, 0, &genl, sizeof(genl));
}

/* An error, with the request repeated as its header alone, and then bytes of TLVs. */
static struct nlmsghdr *add_error(struct datagram *d, uint32_t seq, uint16_t flags, int error,
				  const void *tlvs, size_t len)
{
	char payload[BUILD_LEN];
	struct nlmsgerr err = { .error = error, .msg.nlmsg_len = sizeof(err.msg) };

	memcpy(payload, &err, sizeof(err));
	if (len)
		memcpy(payload + sizeof(err), tlvs, len);
	return add(d, NLMSG_ERROR, seq, flags, payload, sizeof(err) + len);
}

/* An extack with this text. Return: its length. */
static size_t extack(char *tlvs, const char *text)
{
	struct nlattr nla = {
		.nla_len = (uint16_t)(sizeof(nla) + strlen(text) + 1),
		.nla_type = NLMSGERR_ATTR_MSG,
	};

	memcpy(tlvs, &nla, sizeof(nla));
	memcpy(tlvs + sizeof(nla), text, strlen(text) + 1);
	return NLA_ALIGN(nla.nla_len);
}

/* The one outcome of a datagram of its own; *frame stays for a look at it. */
static int feed(struct plp_frame *frame, const struct datagram *d)
{
	char *copy = exact(d->buf, d->len);
	int ret;

	*frame = waiting;
	plp_frame_start(frame, copy, d->len);
	ret = plp_frame_next(frame);
	if (ret == 1) {
		struct plp_attr attr;

		while (plp_msg_next(&frame->msg, &attr) > 0)
			;
	}
	free(copy);
	return ret;
}

/* An acknowledgement completes the answer. */
CASE(ack)
{
	struct datagram d = { .len = 0 };
	struct plp_frame frame;

	add_error(&d, SEQ, NLM_F_CAPPED, 0, NULL, 0);
	CHECK_EQ(feed(&frame, &d), 0);
	CHECK(!frame.pending);
	CHECK_TEXT(frame.extack, "");
}

/* A refusal gives its number and the kernel's words, whether the request is cut or not. */
CASE(refusal)
{
	struct datagram d = { .len = 0 };
	struct datagram full = { .len = 0 };
	char payload[256] = { 0 };
	struct nlmsgerr err = { .error = -EBUSY, .msg.nlmsg_len = sizeof(err.msg) + 20 };
	struct plp_frame frame;
	char tlvs[64];
	size_t len = extack(tlvs, "it is busy");

	add_error(&d, SEQ, NLM_F_CAPPED | NLM_F_ACK_TLVS, -EBUSY, tlvs, len);
	CHECK_EQ(feed(&frame, &d), -EBUSY);
	CHECK_TEXT(frame.extack, "it is busy");
	CHECK(!frame.pending);

	memcpy(payload, &err, sizeof(err));
	memcpy(payload + sizeof(err) + 20, tlvs, len);
	add(&full, NLMSG_ERROR, SEQ, NLM_F_ACK_TLVS, payload, sizeof(err) + 20 + len);
	CHECK_EQ(feed(&frame, &full), -EBUSY);
	CHECK_TEXT(frame.extack, "it is busy");
}

/* Words that are too long are cut; words that are malformed are left out. */
CASE(refusal_odd_words)
{
	struct datagram d = { .len = 0 };
	struct plp_frame frame;
	char text[PLP_EXTACK_LEN + 50];
	char tlvs[PLP_EXTACK_LEN + 64];
	size_t len;

	memset(text, 'x', sizeof(text) - 1);
	text[sizeof(text) - 1] = '\0';
	len = extack(tlvs, text);
	add_error(&d, SEQ, NLM_F_CAPPED | NLM_F_ACK_TLVS, -EPERM, tlvs, len);
	CHECK_EQ(feed(&frame, &d), -EPERM);
	CHECK_EQ(strlen(frame.extack), PLP_EXTACK_LEN - 1);

	d.len = 0;
	add_error(&d, SEQ, NLM_F_CAPPED | NLM_F_ACK_TLVS, -EPERM, "\x08\0\1\0xxxx", 8);
	CHECK_EQ(feed(&frame, &d), -EPERM);
	CHECK_TEXT(frame.extack, "");

	d.len = 0;
	add_error(&d, SEQ, NLM_F_CAPPED | NLM_F_ACK_TLVS, -EPERM, "\xff\xff\1\0", 4);
	CHECK_EQ(feed(&frame, &d), -EPERM);
	CHECK_TEXT(frame.extack, "");
}

/* An error without room for itself, or with a request that is not there, is no error. */
CASE(refusal_malformed)
{
	struct datagram d = { .len = 0 };
	struct plp_frame frame;
	struct nlmsgerr err = { .error = -EPERM };

	add(&d, NLMSG_ERROR, SEQ, 0, &err, sizeof(err) - 1);
	CHECK_EQ(feed(&frame, &d), -EBADMSG);
	d.len = 0;
	err.msg.nlmsg_len = 0xfffffff0;
	add(&d, NLMSG_ERROR, SEQ, NLM_F_ACK_TLVS, &err, sizeof(err));
	CHECK_EQ(feed(&frame, &d), -EBADMSG);
	d.len = 0;
	err.msg.nlmsg_len = 0;
	add(&d, NLMSG_ERROR, SEQ, 0, &err, sizeof(err));
	CHECK_EQ(feed(&frame, &d), -EBADMSG);
}

/* Only what an error number can be is taken for one. */
CASE(refusal_absurd_number)
{
	static const int absurd[] = { 1, INT_MAX, INT_MIN, -4096 };
	struct plp_frame frame;
	size_t i;

	for (i = 0; i < sizeof(absurd) / sizeof(absurd[0]); i++) {
		struct datagram d = { .len = 0 };

		add_error(&d, SEQ, NLM_F_CAPPED, absurd[i], NULL, 0);
		CHECK_EQ(feed(&frame, &d), -EBADMSG);
		d.len = 0;
		add(&d, NLMSG_DONE, SEQ, NLM_F_MULTI, &absurd[i], sizeof(absurd[i]));
		CHECK_EQ(feed(&frame, &d), -EBADMSG);
	}
}

/* A dump ends with NLMSG_DONE, which may carry an error and words. */
CASE(done)
{
	struct datagram d = { .len = 0 };
	struct plp_frame frame;
	char payload[64];
	int error = 0;
	size_t len;

	add(&d, NLMSG_DONE, SEQ, NLM_F_MULTI, &error, sizeof(error));
	CHECK_EQ(feed(&frame, &d), 0);
	CHECK(!frame.pending);

	d.len = 0;
	error = -EPERM;
	memcpy(payload, &error, sizeof(error));
	len = extack(payload + sizeof(error), "root only");
	add(&d, NLMSG_DONE, SEQ, NLM_F_MULTI | NLM_F_ACK_TLVS, payload, sizeof(error) + len);
	CHECK_EQ(feed(&frame, &d), -EPERM);
	CHECK_TEXT(frame.extack, "root only");

	d.len = 0;
	add(&d, NLMSG_DONE, SEQ, NLM_F_MULTI, &error, 3);
	CHECK_EQ(feed(&frame, &d), -EBADMSG);
}

/* A dump during which the set changed says so at its end, and not the next one. */
CASE(done_changed)
{
	struct datagram d = { .len = 0 };
	struct genlmsghdr genl = { .cmd = 2 };
	struct plp_frame frame = waiting;
	int error = 0;

	add(&d, FAMILY, SEQ, NLM_F_MULTI | NLM_F_DUMP_INTR, &genl, sizeof(genl));
	add(&d, NLMSG_DONE, SEQ, NLM_F_MULTI, &error, sizeof(error));
	plp_frame_start(&frame, d.buf, d.len);
	CHECK_EQ(plp_frame_next(&frame), 1);
	CHECK_EQ(plp_frame_next(&frame), -ESTALE);
	CHECK_EQ(plp_frame_next(&frame), PLP_FRAME_EMPTY);
}

/* An event may come between the parts of an answer. */
CASE(event_between)
{
	struct datagram d = { .len = 0 };
	struct plp_frame frame = waiting;

	add_genl(&d, SEQ, KLPCTL_CMD_PATCH_GET);
	add_genl(&d, 0, KLPCTL_CMD_EVENT);
	add_error(&d, SEQ, NLM_F_CAPPED, 0, NULL, 0);
	add_genl(&d, 0, KLPCTL_CMD_EVENT);
	plp_frame_start(&frame, d.buf, d.len);
	CHECK_EQ(plp_frame_next(&frame), 1);
	CHECK_EQ(frame.cmd, KLPCTL_CMD_PATCH_GET);
	CHECK_EQ(plp_frame_next(&frame), 1);
	CHECK_EQ(frame.cmd, KLPCTL_CMD_EVENT);
	CHECK(frame.pending);
	CHECK_EQ(plp_frame_next(&frame), 0);
	CHECK_EQ(frame.cmd, 0);
	CHECK_EQ(plp_frame_next(&frame), 1);
	CHECK_EQ(frame.cmd, KLPCTL_CMD_EVENT);
	CHECK_EQ(plp_frame_next(&frame), PLP_FRAME_EMPTY);
}

/* Answers to others, answers to nothing, other families and padding are passed over. */
CASE(passed_over)
{
	struct datagram d = { .len = 0 };
	struct plp_frame frame;
	struct genlmsghdr genl = { .cmd = 2 };
	int error = 0;

	add_error(&d, SEQ - 1, NLM_F_CAPPED, -EPERM, NULL, 0);
	add_error(&d, 0, NLM_F_CAPPED, -EPERM, NULL, 0);
	add(&d, NLMSG_DONE, SEQ - 1, NLM_F_MULTI, &error, sizeof(error));
	add(&d, NLMSG_NOOP, SEQ, 0, NULL, 0);
	add(&d, FAMILY + 1, SEQ, 0, &genl, sizeof(genl));
	add(&d, FAMILY + 1, 0, 0, &genl, sizeof(genl));
	add_genl(&d, SEQ + 1, 2);
	CHECK_EQ(feed(&frame, &d), PLP_FRAME_EMPTY);
	CHECK(frame.pending);

	frame = waiting;
	frame.pending = false;
	d.len = 0;
	add_genl(&d, SEQ, 2);
	add_error(&d, SEQ, NLM_F_CAPPED, -EPERM, NULL, 0);
	plp_frame_start(&frame, d.buf, d.len);
	CHECK_EQ(plp_frame_next(&frame), PLP_FRAME_EMPTY);
}

/* NLMSG_OVERRUN means that something was lost. */
CASE(overrun)
{
	struct datagram d = { .len = 0 };
	struct plp_frame frame;

	add(&d, NLMSG_OVERRUN, 0, 0, NULL, 0);
	CHECK_EQ(feed(&frame, &d), -ENOBUFS);
	CHECK(!frame.pending);
}

/* A length that cannot be ends the datagram, also one that an int takes for negative. */
CASE(length_wrong)
{
	static const uint32_t wrong[] = { 0, 1, 15, 21, 4096, 0x7fffffff, 0x80000000, 0xfffffff0 };
	struct plp_frame frame;
	size_t i;

	for (i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
		struct datagram d = { .len = 0 };
		struct genlmsghdr genl = { .cmd = 2 };

		add(&d, FAMILY, SEQ, 0, &genl, sizeof(genl))->nlmsg_len = wrong[i];
		d.len = 20;
		CHECK_EQ(feed(&frame, &d), -EBADMSG);
		CHECK(!frame.pending);
		CHECK_EQ(plp_frame_next(&frame), PLP_FRAME_EMPTY);
	}
}

/* A message of the family without its second header is malformed. */
CASE(header_missing)
{
	struct datagram d = { .len = 0 };
	struct plp_frame frame;

	add(&d, FAMILY, SEQ, 0, NULL, 0);
	CHECK_EQ(feed(&frame, &d), -EBADMSG);
	d.len = 0;
	add(&d, FAMILY, 0, 0, "\2\0\0", 3);
	CHECK_EQ(feed(&frame, &d), -EBADMSG);
}

/* Whatever the bytes: the walk ends, inside its memory, with an outcome it may have. */
CASE(mutated)
{
	unsigned int outcomes[4] = { 0 };
	uint32_t state = 20260923;
	int round;

	for (round = 0; round < 100000; round++) {
		uint32_t flips = next_random(&state) % 6;
		struct plp_frame frame = waiting;
		struct datagram d = { .len = 0 };
		char tlvs[64];
		size_t steps = 0;
		char *copy;
		int ret;

		add_genl(&d, SEQ, KLPCTL_CMD_PATCH_GET);
		add(&d, FAMILY, 0, 0, "\7\0\0\0\10\0\11\0\1\0\0\0", 12);
		add_error(&d, SEQ, NLM_F_CAPPED | NLM_F_ACK_TLVS, -EBUSY, tlvs,
			  extack(tlvs, "busy"));
		while (flips--)
			d.buf[next_random(&state) % d.len] ^= (char)(1 << next_random(&state) % 8);
		if (next_random(&state) % 4 == 0)
			d.len = next_random(&state) % (d.len + 1);
		copy = exact(d.buf, d.len);
		plp_frame_start(&frame, copy, d.len);
		while ((ret = plp_frame_next(&frame)) != PLP_FRAME_EMPTY) {
			struct plp_attr attr;

			CHECK(ret == 0 || ret == 1 || (ret < 0 && ret >= -4095));
			CHECK(++steps <= d.len / 16 + 1);
			outcomes[ret < 0 ? 2 + (ret == -EBADMSG) : ret]++;
			while (ret == 1 && plp_msg_next(&frame.msg, &attr) > 0)
				;
		}
		free(copy);
	}
	CHECK(outcomes[1] > 1000);
	CHECK(outcomes[2] > 1000);
	CHECK(outcomes[3] > 1000);
}
