// SPDX-License-Identifier: MIT
/*
 * libFuzzer's entry to the parser of netlink messages: scripts/fuzz-shim builds and runs it.
 *
 * The input is a datagram. It is read as an answer of the family, of the controller, and as
 * one of nobody's; each attribute of each message is looked at.
 */
#include <stdlib.h>
#include <string.h>

#include "klpctl.h"
#include "plp_msg.h"

#define FAMILY 0x1b

static void look(const void *data, size_t len, const struct plp_schema *schema, bool pending)
{
	struct plp_frame frame = { .family = FAMILY, .schema = schema, .seq = 1, .pending = pending };
	struct plp_attr attr;
	size_t seen = 0;
	int ret;

	plp_frame_start(&frame, data, len);
	while ((ret = plp_frame_next(&frame)) != PLP_FRAME_EMPTY) {
		if (ret == 1) {
			while (plp_msg_next(&frame.msg, &attr) == 1) {
				if (attr.depth >= PLP_MSG_DEPTH)
					abort();
				/* What is called a string ends inside the datagram. */
				if (attr.text && (attr.text < (const char *)data ||
						  attr.text + strlen(attr.text) >= (const char *)data + len))
					abort();
				/* Each takes a header at the least. */
				if (++seen > len)
					abort();
			}
			if (plp_msg_next(&frame.msg, &attr) == 1)
				abort();
		}
		if (ret > 1 || ret < -4095)
			abort();
		if (strnlen(frame.extack, sizeof(frame.extack)) == sizeof(frame.extack))
			abort();
	}
	if (frame.left)
		abort();
}

int LLVMFuzzerTestOneInput(const unsigned char *bytes, size_t len);

int LLVMFuzzerTestOneInput(const unsigned char *bytes, size_t len)
{
	/* Aligned as a socket's buffer is, and not a byte longer. */
	void *data = malloc(len ? len : 1);

	if (!data)
		return 0;
	memcpy(data, bytes, len);
	look(data, len, &plp_schema_klpctl, true);
	look(data, len, &plp_schema_klpctl, false);
	look(data, len, &plp_schema_ctrl, true);
	free(data);
	return 0;
}
