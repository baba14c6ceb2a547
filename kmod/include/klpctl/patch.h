/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * For authors of diffs that "pylivepatch build" makes patches of.
 *
 *	#include <klpctl/patch.h>
 *
 *	static int repair(struct klp_object *obj)
 *	{
 *		...				// before the new code runs
 *		return 0;			// anything else: the patch is not enabled
 *	}
 *	KLPCTL_PRE_PATCH(repair);
 *
 * The functions are called for the object that the source file is part of: for
 * vmlinux when the patch is enabled or reverted, for a module also when it comes
 * or goes while the patch is enabled. An object has one function for each
 * occasion, from whichever of its source files. They must not load modules or
 * call klpctl. See Documentation/livepatch/callbacks.rst.
 *
 * Data that belong to an object of the kernel, and have no place in it, go into
 * shadow variables: klp_shadow_get_or_alloc() and its friends of
 * <linux/livepatch.h> are there for every patch. KLPCTL_STATE() says that the
 * patch has changed the state of the system in a way that a later patch must
 * know: see Documentation/livepatch/system-state.rst.
 */
#ifndef _KLPCTL_PATCH_H
#define _KLPCTL_PATCH_H

#include <linux/livepatch.h>

#define __KLPCTL_CALLBACK(when, type, fn)				\
	static type (*__klpctl_##when)(struct klp_object *)		\
	__used __section(".klpctl." #when) = fn

/**
 * KLPCTL_PRE_PATCH() - call a function before an object is patched
 * @fn: int (*)(struct klp_object *); an error keeps the patch from being enabled
 */
#define KLPCTL_PRE_PATCH(fn)						\
	__KLPCTL_CALLBACK(pre_patch, int, fn)

/**
 * KLPCTL_POST_PATCH() - call a function when all tasks run the new code
 * @fn: void (*)(struct klp_object *)
 */
#define KLPCTL_POST_PATCH(fn)						\
	__KLPCTL_CALLBACK(post_patch, void, fn)

/**
 * KLPCTL_PRE_UNPATCH() - call a function before an object is reverted
 * @fn: void (*)(struct klp_object *)
 */
#define KLPCTL_PRE_UNPATCH(fn)						\
	__KLPCTL_CALLBACK(pre_unpatch, void, fn)

/**
 * KLPCTL_POST_UNPATCH() - call a function when all tasks run the old code
 * @fn: void (*)(struct klp_object *)
 */
#define KLPCTL_POST_UNPATCH(fn)						\
	__KLPCTL_CALLBACK(post_unpatch, void, fn)

/**
 * KLPCTL_STATE() - declare a state that the patch brings the system into
 * @number: identifies the state for all patches, above 0
 * @edition: a patch that knows an older one only cannot replace this patch
 */
#define KLPCTL_STATE(number, edition)					\
	static const unsigned long __used __section(".klpctl.state")	\
	__klpctl_state_##number[2] = { number, edition }

#endif /* _KLPCTL_PATCH_H */
