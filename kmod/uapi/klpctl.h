/* SPDX-License-Identifier: (GPL-2.0 WITH Linux-syscall-note) OR MIT */
/*
 * klpctl: enable, revert and follow kernel live patches.
 *
 * This header and nothing else is needed to write a client. There are two ways in:
 * what changes something, or waits, goes through the device; questions and events go
 * through generic netlink. "root" below means CAP_SYS_MODULE in the initial user
 * namespace.
 *
 * /dev/klpctl (0600)
 * ==================
 *
 * Each ioctl takes a struct klpctl_request; all but KLPCTL_IOC_WAIT are for root.
 *
 *   KLPCTL_IOC_ENABLE   Starts enabling a registered patch, or reverses the disabling of
 *                       any patch. Returns when the transition has started. It can be
 *                       given a window, timeout_ms: the kernel then reverts the patch by
 *                       itself, in mid-transition, too, unless KLPCTL_IOC_CONFIRM comes in
 *                       time, or, with KLPCTL_ENABLE_DEADLINE, the transition ends in time.
 *                       The window begins when the enable begins, not while it waits for
 *                       another.
 *       errors: ENOENT no such patch; EALREADY it is enabled or being enabled;
 *         EBUSY another patch is in transition, or the kernel still holds the
 *         module; EOPNOTSUPP the module must be loaded anew for that; ENXIO ftrace is
 *         switched off; EINTR a signal came before anything was done; others: what
 *         klp_enable_patch() or a pre-patch callback returned, as ECANCELED if the number
 *         is one of those that say something else here: EBUSY of ftrace, say, when a kprobe
 *         redirects a function of the patch. The patch is then as it was before.
 *
 *   KLPCTL_IOC_REVERT   Starts disabling a patch, registered or standalone, or reverses
 *                       its enabling. Returns when the transition has started.
 *       errors: ENOENT; EALREADY it is not enabled, or is being disabled; EBUSY another
 *         patch is in transition; EINVAL it has changed in the meantime; EINTR.
 *
 *   KLPCTL_IOC_FORCE    Ends the transition of the patch without waiting for its tasks;
 *                       needs KLPCTL_FORCE_ACCEPT_RISK. Breaks the consistency model; a
 *                       module whose code is left by that can never be unloaded
 *                       (KLPCTL_PATCH_FORCED).
 *       errors: ENOENT; EINVAL the flag is missing, or the patch is not in transition;
 *         EINTR.
 *
 *   KLPCTL_IOC_CONFIRM  The patch may stay; by any descriptor.
 *       errors: ENOENT; EINVAL no confirmation is awaited, or its time is over; EBUSY the
 *         patch is still in transition.
 *
 *   KLPCTL_IOC_WAIT     Waits until the patch is not in transition; state is set, with
 *                       ETIMEDOUT, too.
 *       errors: ENOENT; ETIMEDOUT timeout_ms is over; EINTR a signal came.
 *
 * Whatever is refused leaves everything as it was. EINVAL, too: a flag that is not known,
 * a name without an end, a member that the ioctl does not use and that is not zero. E2BIG:
 * the caller's structure is longer than this kernel's, and what is beyond is not zero;
 * ENOTTY: the ioctl is not known.
 *
 * Generic netlink
 * ===============
 *
 * Family "klpctl", version 1, initial network namespace only. Multicast group "events".
 * Attributes that a command does not list are refused, and so are unknown
 * bits in KLPCTL_A_OPTIONS. Every refusal by klpctl carries an extack message. No request
 * waits for what the livepatch core is doing.
 *
 *   KLPCTL_CMD_FEATURES_GET (do, anybody)
 *       request: nothing
 *       reply:
 *         KLPCTL_A_VERSION        u32     KLPCTL_VERSION
 *         KLPCTL_A_FEATURES       u64     enum klpctl_feature, as bits
 *         KLPCTL_A_SEQ            u64     number of the newest event
 *         KLPCTL_A_KICKS          u64     early retries since klpctl was loaded
 *         KLPCTL_A_REVERSALS      u64     reversals of transitions since then
 *
 *   KLPCTL_CMD_PATCH_GET (do and dump, anybody)
 *       request: KLPCTL_A_NAME for do; nothing for dump
 *       reply, one message for each patch:
 *         KLPCTL_A_NAME           string  module name of the patch
 *         KLPCTL_A_STATE          u32     enum klpctl_state
 *         KLPCTL_A_FLAGS          u32     enum klpctl_patch_flag, as bits
 *         KLPCTL_A_SEQ            u64     number of the newest event, of any patch
 *         KLPCTL_A_CONFIRM        u64     only while a confirmation is awaited: ns,
 *                                         CLOCK_MONOTONIC, when the window ends
 *         KLPCTL_A_TRANSITION     nest    only in transition
 *           KLPCTL_A_TRANSITION_TARGET    u32  enum klpctl_target
 *           KLPCTL_A_TRANSITION_TOTAL     u32  tasks, idle tasks included
 *           KLPCTL_A_TRANSITION_DONE      u32  of these, switched to the target
 *           KLPCTL_A_TRANSITION_START     u64  ns, CLOCK_MONOTONIC
 *           KLPCTL_A_TRANSITION_DEADLINE  u64  only with KLPCTL_ENABLE_DEADLINE: ns,
 *                                              CLOCK_MONOTONIC, when the kernel reverses it
 *         KLPCTL_A_OBJECT         nest    registered patches only: for each object, and
 *                                         again with the same name for one with very many
 *                                         functions
 *           KLPCTL_A_OBJECT_NAME          string  "vmlinux" or a module name
 *           KLPCTL_A_OBJECT_FUNC          nest    once for each function
 *             KLPCTL_A_FUNC_NAME            string  the replaced function
 *             KLPCTL_A_FUNC_SYMPOS          u32     0: the name is unique
 *       errors: ENOENT no such patch. Of standalone patches /sys/kernel/livepatch has the
 *         objects. While the livepatch core is busy, a callback runs for instance, a
 *         standalone patch is as it was before that, but for being in transition.
 *
 *   KLPCTL_CMD_TASK_GET (dump, root)
 *       request: KLPCTL_A_OPTIONS, optional: enum klpctl_task_flag, as bits
 *       reply, one message for each task that has not switched yet; none when
 *       there is no transition:
 *         KLPCTL_A_NAME           string  the patch
 *         KLPCTL_A_TASK           nest
 *           KLPCTL_A_TASK_PID       u32     process (thread group)
 *           KLPCTL_A_TASK_TID       u32     thread
 *           KLPCTL_A_TASK_COMM      string
 *           KLPCTL_A_TASK_CPU       u32     idle tasks only: their CPU
 *           KLPCTL_A_TASK_REASON    u32     enum klpctl_reason
 *           KLPCTL_A_TASK_FUNC      string  KLPCTL_REASON_SLEEPING only: the
 *                                           function, by its name in the object
 *           KLPCTL_A_TASK_STACK     string  KLPCTL_TASK_STACK only: where it
 *                                           sleeps, innermost first, a line for
 *                                           each function
 *
 *   KLPCTL_CMD_EVENT (multicast)
 *         KLPCTL_A_SEQ            u64     rises by one with every event: after a
 *                                         gap, dump the patches anew
 *         KLPCTL_A_TIME           u64     ns, CLOCK_MONOTONIC
 *         KLPCTL_A_ACTION         u32     enum klpctl_action
 *         KLPCTL_A_NAME           string  the patch
 *         KLPCTL_A_FLAGS          u32     enum klpctl_patch_flag, as bits
 *         KLPCTL_A_STATE          u32     enum klpctl_state, after the event
 *         KLPCTL_A_TRANSITION     nest    started, reversed, progress, forced,
 *                                         completed
 *           KLPCTL_A_TRANSITION_TARGET  u32
 *           KLPCTL_A_TRANSITION_TOTAL   u32  progress only
 *           KLPCTL_A_TRANSITION_DONE    u32  progress only
 *
 * uevents
 * =======
 *
 * Each patch is a device /sys/class/livepatch/<name>. Every event but progress
 * is also a uevent of that device: "add" for registered (or first seen), "remove" for
 * unregistered, "change" for the others, with SUBSYSTEM=livepatch and
 *
 *   LIVEPATCH_NAME=<name>       LIVEPATCH_ACTION=started
 *   LIVEPATCH_SEQ=<number>      LIVEPATCH_STATE=enabling
 *   LIVEPATCH_TIME=<ns>         LIVEPATCH_TARGET=patched      (as above)
 *   LIVEPATCH_FLAGS=<number>
 *
 * where names are those of the enums below, lower case, without the prefix.
 */
#ifndef _UAPI_KLPCTL_H
#define _UAPI_KLPCTL_H

#include <linux/ioctl.h>
#include <linux/types.h>

#define KLPCTL_GENL_NAME	"klpctl"
#define KLPCTL_GENL_VERSION	1
#define KLPCTL_GENL_GROUP	"events"
#define KLPCTL_DEVICE		"/dev/klpctl"

/* Rises when something that a client relies on changes its meaning. */
#define KLPCTL_VERSION		2

/* Longest patch name, without the final NUL: the kernel's MODULE_NAME_LEN - 1. */
#define KLPCTL_NAME_LEN		55

enum klpctl_cmd {
	KLPCTL_CMD_UNSPEC,
	KLPCTL_CMD_FEATURES_GET,
	KLPCTL_CMD_PATCH_GET,
	KLPCTL_CMD_TASK_GET,
	KLPCTL_CMD_EVENT,
	__KLPCTL_CMD_MAX
};
#define KLPCTL_CMD_MAX (__KLPCTL_CMD_MAX - 1)

enum klpctl_attr {
	KLPCTL_A_UNSPEC,
	KLPCTL_A_PAD,
	KLPCTL_A_VERSION,
	KLPCTL_A_FEATURES,
	KLPCTL_A_KICKS,
	KLPCTL_A_SEQ,
	KLPCTL_A_TIME,
	KLPCTL_A_ACTION,
	KLPCTL_A_NAME,
	KLPCTL_A_STATE,
	KLPCTL_A_FLAGS,
	KLPCTL_A_TRANSITION,
	KLPCTL_A_OBJECT,
	KLPCTL_A_TASK,
	KLPCTL_A_CONFIRM,
	KLPCTL_A_REVERSALS,
	KLPCTL_A_OPTIONS,
	__KLPCTL_A_MAX
};
#define KLPCTL_A_MAX (__KLPCTL_A_MAX - 1)

enum klpctl_attr_transition {
	KLPCTL_A_TRANSITION_UNSPEC,
	KLPCTL_A_TRANSITION_PAD,
	KLPCTL_A_TRANSITION_TARGET,
	KLPCTL_A_TRANSITION_TOTAL,
	KLPCTL_A_TRANSITION_DONE,
	KLPCTL_A_TRANSITION_START,
	KLPCTL_A_TRANSITION_DEADLINE,
	__KLPCTL_A_TRANSITION_MAX
};
#define KLPCTL_A_TRANSITION_MAX (__KLPCTL_A_TRANSITION_MAX - 1)

enum klpctl_attr_object {
	KLPCTL_A_OBJECT_UNSPEC,
	KLPCTL_A_OBJECT_NAME,
	KLPCTL_A_OBJECT_FUNC,
	__KLPCTL_A_OBJECT_MAX
};
#define KLPCTL_A_OBJECT_MAX (__KLPCTL_A_OBJECT_MAX - 1)

enum klpctl_attr_func {
	KLPCTL_A_FUNC_UNSPEC,
	KLPCTL_A_FUNC_NAME,
	KLPCTL_A_FUNC_SYMPOS,
	__KLPCTL_A_FUNC_MAX
};
#define KLPCTL_A_FUNC_MAX (__KLPCTL_A_FUNC_MAX - 1)

enum klpctl_attr_task {
	KLPCTL_A_TASK_UNSPEC,
	KLPCTL_A_TASK_PID,
	KLPCTL_A_TASK_TID,
	KLPCTL_A_TASK_COMM,
	KLPCTL_A_TASK_CPU,
	KLPCTL_A_TASK_REASON,
	KLPCTL_A_TASK_FUNC,
	KLPCTL_A_TASK_STACK,
	__KLPCTL_A_TASK_MAX
};
#define KLPCTL_A_TASK_MAX (__KLPCTL_A_TASK_MAX - 1)

/**
 * enum klpctl_feature - what this kernel lets klpctl do; bit numbers
 * @KLPCTL_FEATURE_EVENTS: transitions of all patches are seen as they happen (kprobes);
 *	otherwise when klpctl is asked, or has started them
 * @KLPCTL_FEATURE_FAST: transitions are retried early
 * @KLPCTL_FEATURE_RELOC_CLEAR: the kernel clears relocations for a module
 *	(.klp.rela sections) when the module goes while the patch is enabled, so that it
 *	can come again (since 6.3)
 * @KLPCTL_FEATURE_REASONS: why a task has not switched is known, and idle tasks are seen
 * @KLPCTL_FEATURE_STACKS: where a task sleeps can be told
 */
enum klpctl_feature {
	KLPCTL_FEATURE_EVENTS,
	KLPCTL_FEATURE_FAST,
	KLPCTL_FEATURE_RELOC_CLEAR,
	KLPCTL_FEATURE_REASONS,
	KLPCTL_FEATURE_STACKS,
};

/**
 * enum klpctl_state - what state a patch is in
 * @KLPCTL_STATE_REGISTERED: never enabled since it was registered
 * @KLPCTL_STATE_ENABLING: in transition to patched
 * @KLPCTL_STATE_ENABLED: all tasks run the new code
 * @KLPCTL_STATE_DISABLING: in transition to unpatched
 * @KLPCTL_STATE_DISABLED: was enabled once; all tasks run the old code
 * @KLPCTL_STATE_REPLACED: another patch took its place by atomic replace
 */
enum klpctl_state {
	KLPCTL_STATE_REGISTERED,
	KLPCTL_STATE_ENABLING,
	KLPCTL_STATE_ENABLED,
	KLPCTL_STATE_DISABLING,
	KLPCTL_STATE_DISABLED,
	KLPCTL_STATE_REPLACED,
};

/**
 * enum klpctl_target - where a transition leads
 * @KLPCTL_TARGET_UNPATCHED: to the old code
 * @KLPCTL_TARGET_PATCHED: to the new code
 */
enum klpctl_target {
	KLPCTL_TARGET_UNPATCHED,
	KLPCTL_TARGET_PATCHED,
};

/**
 * enum klpctl_action - what happened to a patch
 * @KLPCTL_ACTION_REGISTERED: registered, or a standalone patch seen first
 * @KLPCTL_ACTION_STARTED: a transition started
 * @KLPCTL_ACTION_REVERSED: the transition was reversed; target is the new one
 * @KLPCTL_ACTION_FORCED: the transition is being forced
 * @KLPCTL_ACTION_COMPLETED: the transition ended
 * @KLPCTL_ACTION_REPLACED: another patch took its place
 * @KLPCTL_ACTION_UNREGISTERED: the patch was removed
 * @KLPCTL_ACTION_PROGRESS: more tasks have switched, or fewer; ten times a second
 *	at the most. It has the number of the event before it
 * @KLPCTL_ACTION_CONFIRMED: somebody confirmed the patch
 * @KLPCTL_ACTION_EXPIRED: its window ended, or its owner did: it is being reverted
 */
enum klpctl_action {
	KLPCTL_ACTION_REGISTERED,
	KLPCTL_ACTION_STARTED,
	KLPCTL_ACTION_REVERSED,
	KLPCTL_ACTION_FORCED,
	KLPCTL_ACTION_COMPLETED,
	KLPCTL_ACTION_REPLACED,
	KLPCTL_ACTION_UNREGISTERED,
	KLPCTL_ACTION_PROGRESS,
	KLPCTL_ACTION_CONFIRMED,
	KLPCTL_ACTION_EXPIRED,
};

/**
 * enum klpctl_patch_flag - KLPCTL_A_FLAGS of a patch; values
 * @KLPCTL_PATCH_REGISTERED: registered with klpctl; otherwise standalone: the module
 *	enables its patch itself, when it is loaded
 * @KLPCTL_PATCH_REPLACE: atomic replace
 * @KLPCTL_PATCH_FORCED: tasks were forced to leave its code, by a revert or by a
 *	replacement: its module can never be unloaded
 */
enum klpctl_patch_flag {
	KLPCTL_PATCH_REGISTERED	= 1,
	KLPCTL_PATCH_REPLACE	= 2,
	KLPCTL_PATCH_FORCED	= 4,
};

/**
 * enum klpctl_task_flag - KLPCTL_A_OPTIONS of KLPCTL_CMD_TASK_GET; values
 * @KLPCTL_TASK_STACK: with the stacks
 */
enum klpctl_task_flag {
	KLPCTL_TASK_STACK	= 1,
};

/**
 * enum klpctl_reason - why a task has not switched, at its last try
 * @KLPCTL_REASON_UNKNOWN: not tried yet, or not seen
 * @KLPCTL_REASON_RUNNING: it was running on a CPU; idle tasks of idle CPUs, too
 * @KLPCTL_REASON_UNRELIABLE: its stack could not be walked reliably
 * @KLPCTL_REASON_SLEEPING: it sleeps in a function that changes, or in one that
 *	such a function has called
 */
enum klpctl_reason {
	KLPCTL_REASON_UNKNOWN,
	KLPCTL_REASON_RUNNING,
	KLPCTL_REASON_UNRELIABLE,
	KLPCTL_REASON_SLEEPING,
};

/**
 * enum klpctl_enable_flag - flags of KLPCTL_IOC_ENABLE, which need a window; values
 * @KLPCTL_ENABLE_OWNED: revert it when the descriptor is closed within the window, too
 * @KLPCTL_ENABLE_DEADLINE: the window is for the transition: the end of that closes it,
 *	and no confirmation is awaited
 */
enum klpctl_enable_flag {
	KLPCTL_ENABLE_OWNED	= 1,
	KLPCTL_ENABLE_DEADLINE	= 2,
};

/**
 * enum klpctl_force_flag - flags of KLPCTL_IOC_FORCE; values
 * @KLPCTL_FORCE_ACCEPT_RISK: the caller knows that this may crash the kernel
 */
enum klpctl_force_flag {
	KLPCTL_FORCE_ACCEPT_RISK = 1,
};

/**
 * struct klpctl_request - argument of every ioctl
 * @name: in: the patch, NUL-terminated
 * @flags: in: enum klpctl_enable_flag or enum klpctl_force_flag, as bits
 * @timeout_ms: in: the window of KLPCTL_IOC_ENABLE, 0 for none; how long KLPCTL_IOC_WAIT
 *	waits; KLPCTL_WAIT_FOREVER
 * @words: in: address of a buffer for the words of a refusal, or 0
 * @words_len: in: its length; longer words are cut, and always end in a NUL
 * @state: in: zero; out, KLPCTL_IOC_WAIT: enum klpctl_state
 *
 * May grow at its end. Its length is in the number of the ioctl, so that old and new
 * clients and kernels understand each other: what is missing is zero.
 */
struct klpctl_request {
	char name[KLPCTL_NAME_LEN + 1];
	__u32 flags;
	__u32 timeout_ms;
	__u64 words;
	__u32 words_len;
	__u32 state;
};

#define KLPCTL_REQUEST_SIZE_VER0	80	/* the first published length */
#define KLPCTL_WAIT_FOREVER	0xffffffffU

#define KLPCTL_IOC_MAGIC	0xBC
#define KLPCTL_IOC_ENABLE	_IOWR(KLPCTL_IOC_MAGIC, 1, struct klpctl_request)
#define KLPCTL_IOC_REVERT	_IOWR(KLPCTL_IOC_MAGIC, 2, struct klpctl_request)
#define KLPCTL_IOC_FORCE	_IOWR(KLPCTL_IOC_MAGIC, 3, struct klpctl_request)
#define KLPCTL_IOC_CONFIRM	_IOWR(KLPCTL_IOC_MAGIC, 4, struct klpctl_request)
#define KLPCTL_IOC_WAIT		_IOWR(KLPCTL_IOC_MAGIC, 5, struct klpctl_request)

#endif /* _UAPI_KLPCTL_H */
