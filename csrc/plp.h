/* SPDX-License-Identifier: MIT */
/*
 * The C side of pylivepatch: netlink, /dev/klpctl and module loading.
 *
 * Every function returns 0 (or what its comment says) or -errno. None keeps
 * global state; a handle belongs to one thread at a time. Functions that block
 * return -EINTR when a signal comes.
 */
#ifndef PLP_H
#define PLP_H

#include <stddef.h>
#include <stdint.h>

/* ---- netlink (nl.c) ---- */

/* A connection to the klpctl family. */
struct plp_nl;

/*
 * One attribute, as plp_nl_next() walks a message: depth first, a nest before
 * what is in it. type, depth and, by type, number (u32 and u64) or text.
 */
struct plp_attr {
	uint16_t type;		/* KLPCTL_A_* at depth 0, KLPCTL_A_<NEST>_* below */
	uint16_t depth;
	uint16_t parent;	/* type of the nest around it; 0 at depth 0 */
	uint16_t nested;	/* 1: a nest, number and text mean nothing */
	uint64_t number;
	const char *text;	/* NULL when it is not a string; valid until the next receive */
};

/* Connect, and resolve the family; -ENOENT when klpctl is not loaded. */
int plp_nl_open(struct plp_nl **nl);
void plp_nl_close(struct plp_nl *nl);

/* The descriptor, to poll; owned by nl. */
int plp_nl_fd(const struct plp_nl *nl);

/* Join the multicast group with the events. 0 or -errno. */
int plp_nl_subscribe(struct plp_nl *nl);

/*
 * Send KLPCTL_CMD_* with an ack asked for (dump: NLM_F_DUMP); name may be NULL,
 * options are sent when they are not 0. Replies are read with plp_nl_receive();
 * what is left of the answer to an earlier request is passed over.
 * -ENAMETOOLONG when name has more than KLPCTL_NAME_LEN bytes.
 */
int plp_nl_send(struct plp_nl *nl, uint8_t cmd, int dump, const char *name,
		uint32_t options);

/*
 * Read the next message: 1 there is one (plp_nl_cmd, plp_nl_next), 0 the answer
 * to what was sent is complete, or -errno: the kernel's own refusal, with
 * plp_nl_extack(), -ENOBUFS when messages were lost, -EAGAIN when timeout_ms is
 * over (-1: wait for ever), -EINTR, -ESTALE when the patches changed during a
 * dump (send it anew). After -EAGAIN and -EINTR the answer is still to come;
 * after any other error it is not. On a connection that is subscribed, events
 * come between: plp_nl_cmd() says KLPCTL_CMD_EVENT.
 */
int plp_nl_receive(struct plp_nl *nl, int timeout_ms);

/* KLPCTL_CMD_* of the message last received; 0 when that was none. */
uint8_t plp_nl_cmd(const struct plp_nl *nl);

/* The next attribute of that message: 1 there is one, 0 no more, -EBADMSG. */
int plp_nl_next(struct plp_nl *nl, struct plp_attr *attr);

/* The kernel's words for the last refusal, or "". Valid until the next call. */
const char *plp_nl_extack(const struct plp_nl *nl);

/* ---- /dev/klpctl (dev.c) ---- */

/*
 * Open the device; path is KLPCTL_DEVICE when it is NULL. A descriptor, or
 * -errno (-ENOENT: klpctl is not loaded).
 */
int plp_dev_open(const char *path);
int plp_dev_close(int fd);

/* What comes back from the device. */
struct plp_answer {
	uint32_t state;		/* KLPCTL_IOC_WAIT: KLPCTL_STATE_*, with -ETIMEDOUT too */
	char words[160];	/* the kernel's words for a refusal, or "" */
};

/*
 * Send KLPCTL_IOC_*; flags and timeout_ms as it takes them, otherwise 0. -ENAMETOOLONG
 * when name has more than KLPCTL_NAME_LEN bytes, -EINTR when a signal came before
 * anything was done, or the kernel's own refusal.
 */
int plp_dev_request(int fd, uint32_t request, const char *name, uint32_t flags,
		    uint32_t timeout_ms, struct plp_answer *answer);

/* ---- modules (module.c, libkmod) ---- */

/*
 * Insert the module file at path (plain or compressed, as far as libkmod was
 * built for it: Debian's reads .xz and .zst, not .gz), after the modules that it
 * depends on: those are loaded already, or modules.dep of the running kernel
 * names them. options is "a=1 b=2", "" or NULL. -EEXIST when it is loaded
 * already, -ELIBACC when a module that it depends on is not to be found,
 * -ENOENT when path itself is not, -ENOEXEC when the file is not a module or is
 * damaged. The file is read before the kernel is asked: what is wrong with it is
 * reported to an ordinary user as to root.
 */
int plp_module_insert(const char *path, const char *options);

/* Insert a module by its name (modprobe); 0 too when it is loaded already. */
int plp_module_probe(const char *name);

/*
 * Remove a module: never forced, never waiting. -EWOULDBLOCK when it is in use,
 * -EBUSY when it is being loaded or removed, -ENOENT.
 */
int plp_module_remove(const char *name);

#endif /* PLP_H */
