/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * For diffs that were written for kpatch-build: what its kpatch-macros.h and
 * kpatch-syscall.h offer, in the words of klpctl/patch.h. "pylivepatch build"
 * puts it where #include "kpatch-macros.h" finds it.
 */
#ifndef _KLPCTL_KPATCH_MACROS_H
#define _KLPCTL_KPATCH_MACROS_H

#include <linux/build_bug.h>
#include <linux/printk.h>
#include <klpctl/patch.h>

#define patch_object struct klp_object

#define KPATCH_PRE_PATCH_CALLBACK(fn)		KLPCTL_PRE_PATCH(fn)
#define KPATCH_POST_PATCH_CALLBACK(fn)		KLPCTL_POST_PATCH(fn)
#define KPATCH_PRE_UNPATCH_CALLBACK(fn)		KLPCTL_PRE_UNPATCH(fn)
#define KPATCH_POST_UNPATCH_CALLBACK(fn)	KLPCTL_POST_UNPATCH(fn)

/* The body of a system call need not be renamed here: it goes along with its callers. */
#define KPATCH_SYSCALL_DEFINE1(...) SYSCALL_DEFINE1(__VA_ARGS__)
#define KPATCH_SYSCALL_DEFINE2(...) SYSCALL_DEFINE2(__VA_ARGS__)
#define KPATCH_SYSCALL_DEFINE3(...) SYSCALL_DEFINE3(__VA_ARGS__)
#define KPATCH_SYSCALL_DEFINE4(...) SYSCALL_DEFINE4(__VA_ARGS__)
#define KPATCH_SYSCALL_DEFINE5(...) SYSCALL_DEFINE5(__VA_ARGS__)
#define KPATCH_SYSCALL_DEFINE6(...) SYSCALL_DEFINE6(__VA_ARGS__)

#define KPATCH_PRINTK(fmt, ...) pr_info(fmt, ##__VA_ARGS__)

/*
 * What these ask for is not done, and what they are about is judged as always:
 * a section that may not change is refused, a transition waits for every task.
 */
#define KPATCH_IGNORE_SECTION(section)
#define KPATCH_FORCE_UNSAFE(fn)

/* A function would be replaced that the author wants left out. */
#define KPATCH_IGNORE_FUNCTION(fn)					\
	static_assert(0, "nothing ignores " #fn "(): leave its change out of the diff")

#endif /* _KLPCTL_KPATCH_MACROS_H */
