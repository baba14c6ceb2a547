/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * For authors of patch modules that register with klpctl.
 *
 * A payload is an ordinary livepatch module: the same struct klp_patch,
 * klp_object, klp_func, klp_callbacks and klp_state, the same
 * MODULE_INFO(livepatch, "Y"). It differs in one call: it registers its patch
 * instead of enabling it.
 *
 *	static struct klp_func funcs[] = {
 *		{ .old_name = "cmdline_proc_show", .new_func = new_show },
 *		{ }
 *	};
 *	static struct klp_object objs[] = {
 *		{ .funcs = funcs },		// .name = NULL: vmlinux
 *		{ }
 *	};
 *	static const struct klp_patch patch = { .mod = THIS_MODULE, .objs = objs };
 *
 *	module_klpctl_patch(patch);
 *	MODULE_LICENSE("GPL");
 *
 * Loading the module changes nothing. "pylivepatch enable", or /dev/klpctl, then
 * enables and reverts it, any number of times.
 *
 * klpctl gives the livepatch core a fresh copy of the structures for each
 * enable, and never writes to the payload's own, but for its states: those are put back
 * to what they were when the patch was registered, so that the data of one enable is
 * not met by the next. Static variables keep their values. Callbacks get a
 * klp_object that is not the payload's: they find it by its name. They run
 * under the locks of the livepatch core and of klpctl: they must not load
 * modules or call klpctl.
 */
#ifndef _KLPCTL_KLPCTL_H
#define _KLPCTL_KLPCTL_H

#include <linux/livepatch.h>
#include <linux/module.h>

/**
 * klpctl_register_patch() - make a patch known, and change nothing
 * @patch: what the patch replaces; must stay as it is until it is unregistered
 *
 * The patch's name is the name of its module; a module has one patch.
 *
 * Context: Process context, module_init() of the module that owns @patch.
 * May sleep.
 * Return: 0; -EINVAL if @patch declares nothing, or something that the livepatch
 * core would refuse whatever the kernel, or its module is not marked as a livepatch
 * module; -EALREADY if the module has registered a patch already; -ENOMEM.
 */
int klpctl_register_patch(const struct klp_patch *patch);

/**
 * klpctl_unregister_patch() - forget a patch
 * @patch: what was given to klpctl_register_patch()
 *
 * The patch is not enabled then: the livepatch core holds the module while it is.
 *
 * Context: Process context, module_exit() of the module that owns @patch, or
 * its module_init() that fails after the registration. May sleep.
 */
void klpctl_unregister_patch(const struct klp_patch *patch);

/**
 * module_klpctl_patch() - the whole init and exit of a payload
 * @__patch: a struct klp_patch of the module
 */
#define module_klpctl_patch(__patch)					\
static int __init __patch##_register(void)				\
{									\
	return klpctl_register_patch(&(__patch));			\
}									\
static void __exit __patch##_unregister(void)				\
{									\
	klpctl_unregister_patch(&(__patch));				\
}									\
module_init(__patch##_register);					\
module_exit(__patch##_unregister);					\
MODULE_INFO(livepatch, "Y")

#endif /* _KLPCTL_KLPCTL_H */
