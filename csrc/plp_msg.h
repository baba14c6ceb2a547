/* SPDX-License-Identifier: MIT */
/*
 * Inside the shim: netlink messages as bytes, apart from the socket they came
 * from, so that a test can feed the parser anything. Everything here reads
 * memory that is checked first and allocates nothing.
 */
#ifndef PLP_MSG_H
#define PLP_MSG_H

#include <linux/netlink.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "plp.h"

/* ---- attributes ---- */

/* No schema is deeper: patch, object, function. */
#define PLP_MSG_DEPTH 4

enum plp_kind {
	PLP_SKIP,		/* not known here: a newer kernel may send more */
	PLP_U16,
	PLP_U32,
	PLP_U64,
	PLP_TEXT,
	PLP_NEST,
};

struct plp_field {
	enum plp_kind kind;
	const struct plp_schema *nest;
};

/* What a level of attributes may hold: a table by type, or one field for all. */
struct plp_schema {
	const struct plp_field *fields;
	size_t count;
	const struct plp_field *any;
};

extern const struct plp_schema plp_schema_klpctl;
extern const struct plp_schema plp_schema_ctrl;

struct plp_level {
	const struct nlattr *at;
	size_t left;
	const struct plp_schema *schema;
	uint16_t parent;
};

/* A walk over the attributes of one message. */
struct plp_msg {
	struct plp_level level[PLP_MSG_DEPTH];
	int depth;		/* -1: at the end */
	bool broken;
};

/**
 * plp_msg_start() - begin a walk
 * @msg: the walk
 * @schema: what the attributes at depth 0 are
 * @attrs: the first attribute, aligned to 4 bytes; must outlive the walk
 * @len: bytes there; 0 for a walk without any attribute
 */
void plp_msg_start(struct plp_msg *msg, const struct plp_schema *schema,
		   const void *attrs, size_t len);

/**
 * plp_msg_next() - the next attribute, depth first, a nest before what is in it
 * @msg: the walk
 * @attr: set when there is one
 *
 * Return: 1 there is one, 0 there is no more, -EBADMSG (and again ever after).
 */
int plp_msg_next(struct plp_msg *msg, struct plp_attr *attr);

/* ---- messages ---- */

/* plp_frame_next(): every message of the datagram has been seen. */
#define PLP_FRAME_EMPTY 2

#define PLP_EXTACK_LEN 512

/* A walk over the messages of a datagram, and the request they answer. */
struct plp_frame {
	const struct nlmsghdr *at;
	size_t left;

	uint16_t family;
	const struct plp_schema *schema;

	uint32_t seq;		/* of the newest request; never 0 */
	bool pending;		/* its answer is not complete */
	bool changed;		/* NLM_F_DUMP_INTR was seen */

	uint8_t cmd;		/* of the message last returned */
	struct plp_msg msg;
	char extack[PLP_EXTACK_LEN];
};

/**
 * plp_frame_start() - take a datagram
 * @frame: the walk; family, schema, seq and pending are kept
 * @buf: the datagram, aligned to 4 bytes; must outlive the walk
 * @len: bytes there
 */
void plp_frame_start(struct plp_frame *frame, const void *buf, size_t len);

/**
 * plp_frame_next() - the next message that matters
 * @frame: the walk
 *
 * Answers to older requests and messages of other families are passed over.
 *
 * Return: 1 there is one (cmd and msg are set), 0 the answer is complete,
 * PLP_FRAME_EMPTY, or -errno: what the kernel refused with (extack is set),
 * -ESTALE when the set changed during a dump, -ENOBUFS, -EBADMSG.
 */
int plp_frame_next(struct plp_frame *frame);

/* ---- sockets ---- */

/**
 * plp_nl_open_family() - plp_nl_open() for any family
 * @nl: set to the connection
 * @family: its name
 * @group: a multicast group of it, or NULL
 * @schema: what its messages hold
 *
 * Return: 0 or -errno; -ENOENT when there is no such family or group.
 */
int plp_nl_open_family(struct plp_nl **nl, const char *family, const char *group,
		       const struct plp_schema *schema);

#endif /* PLP_MSG_H */
