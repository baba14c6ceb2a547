// SPDX-License-Identifier: GPL-2.0-only
/* What can be done to patches, one thing at a time. */
#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include <linux/delay.h>
#include <linux/jiffies.h>
#include <linux/ktime.h>
#include <linux/module.h>
#include <linux/mutex.h>
#include <linux/sched/signal.h>

#include <klpctl/klpctl.h>

#include "clone.h"
#include "confirm.h"
#include "core.h"
#include "operation.h"
#include "patch.h"
#include "transition.h"

#define RELEASE_MS 1000	/* how long the core may take to let go of a module */

static DEFINE_MUTEX(operation);		/* see patch.c for the order */

int klpctl_register_patch(const struct klp_patch *decl)
{
	struct klpctl_patch *patch;
	int ret;

	ret = klpctl_clone_check(decl);
	if (ret) {
		pr_err("%s: the patch declares nothing, something twice, or something the livepatch core cannot take\n",
		       decl && decl->mod ? decl->mod->name : "?");
		return ret;
	}

	mutex_lock(&operation);
	klpctl_patch_lock();
	if (klpctl_patch_find(decl->mod->name)) {
		pr_err("%s: registered already; a module has one patch\n",
		       decl->mod->name);
		ret = -EEXIST;
		goto unlock;
	}
	patch = klpctl_patch_add(decl->mod->name, decl, KLPCTL_STATE_REGISTERED,
				 decl->replace, ktime_get_ns());
	if (!patch)
		ret = -ENOMEM;
unlock:
	klpctl_patch_unlock();
	mutex_unlock(&operation);
	return ret;
}
EXPORT_SYMBOL_GPL(klpctl_register_patch);

void klpctl_unregister_patch(const struct klp_patch *decl)
{
	struct klpctl_patch *patch;

	mutex_lock(&operation);
	klpctl_patch_lock();
	patch = klpctl_patch_find(decl->mod->name);
	if (patch && patch->decl == decl) {
		/* Freed memory in the core's hands would be worse than a leak. */
		if (!WARN_ON(patch->live && module_refcount(decl->mod) > 0))
			klpctl_clone_free(patch->live);
		klpctl_patch_del(patch);
	}
	klpctl_patch_unlock();
	mutex_unlock(&operation);
}
EXPORT_SYMBOL_GPL(klpctl_unregister_patch);

/*
 * The core holds a reference to the module until its last access to the
 * structures (klp_free_patch_finish()), and for ever after a forced transition.
 */
static int wait_released(struct module *mod, const char **why)
{
	unsigned long end = jiffies + msecs_to_jiffies(RELEASE_MS);

	while (module_refcount(mod) > 0) {
		if (time_after(jiffies, end)) {
			*why = "the kernel still holds the patch module: it is in use, or a transition was forced";
			return -EBUSY;
		}
		if (msleep_interruptible(1))
			return -EINTR;
	}
	return 0;
}

/* The core would find out, too, but only after it has applied the relocations. */
static bool another_in_transition(void)
{
	bool ret;

	if (!klpctl_core_visible())
		return false;
	klpctl_core_lock();
	ret = klpctl_core_in_transition(NULL);
	klpctl_core_unlock();
	return ret;
}

static int enable_registered(struct klpctl_patch *patch, const char **why)
{
	struct module *mod = patch->decl->mod;
	struct klp_patch *clone;
	int ret;

	if (READ_ONCE(mod->state) != MODULE_STATE_LIVE) {
		*why = "the patch module is being loaded or unloaded";
		return -EBUSY;
	}
	if (patch->live) {
		ret = wait_released(mod, why);
		if (ret)
			return ret;
		if (klpctl_clone_has_module_relocs(mod) &&
		    (!klpctl_core_clears_relocs() || klpctl_clone_met_module(patch->live))) {
			*why = "the patch relocates against a module, and that cannot be applied twice: load the patch module anew";
			return -EOPNOTSUPP;
		}
	}
	if (another_in_transition()) {
		*why = "another patch is in transition";
		return -EBUSY;
	}
	clone = klpctl_clone_alloc(patch->decl);
	if (!clone)
		return -ENOMEM;

	ret = klp_enable_patch(clone);
	if (ret) {
		*why = ret == -EBUSY ? "another patch is in transition" :
		       ret == -ENODEV ? "the patch module is being unloaded" :
		       "the livepatch core or a callback of the patch refused it: see the kernel log";
		/* What a callback returns is up to its author. */
		if (ret > 0)
			ret = -EINVAL;
	}

	/* Kept after a failure, too: it tells which relocations have been applied. */
	klpctl_patch_lock();
	swap(patch->live, clone);
	if (!ret && !klpctl_transition_watched())
		patch->state = KLPCTL_STATE_ENABLED;
	klpctl_patch_unlock();
	klpctl_clone_free(clone);
	return ret;
}

static int store(struct klpctl_patch *patch, const char *attr, bool value,
		 const char **why)
{
	struct klp_patch *core = patch->live;
	int ret;

	if (!patch->decl) {
		if (!klpctl_core_visible()) {
			*why = "foreign patches cannot be reached on this kernel: use its sysfs files";
			return -EOPNOTSUPP;
		}
		core = klpctl_core_get(patch->name);
		if (!core) {
			*why = "the livepatch core does not hold the patch any more";
			return -EALREADY;
		}
	}
	if (!core) {
		*why = "the patch has never been enabled";
		return -EINVAL;
	}
	ret = klpctl_core_store(core, attr, value);
	if (ret == -EBUSY)
		*why = "another patch is in transition";
	else if (ret == -EINVAL)
		*why = "the patch has changed its state in the meantime";
	if (!patch->decl)
		kobject_put(&core->kobj);
	return ret;
}

/*
 * Of a registered patch the core tells, which knows it even when events were not seen
 * (kprobes can be disarmed): what nobody confirms must not stay because of that.
 */
static bool is_enabled(const struct klpctl_patch *patch)
{
	if (patch->decl)
		return patch->live && READ_ONCE(patch->live->enabled);
	return patch->state == KLPCTL_STATE_ENABLED || patch->state == KLPCTL_STATE_ENABLING;
}

/* Find a patch for an operation: under operation, so that it stays, unless foreign. */
static struct klpctl_patch *get(const char *name, struct klpctl_patch *copy,
				const char **why)
{
	struct klpctl_patch *patch;

	klpctl_patch_lock();
	patch = klpctl_patch_find(name);
	if (patch)
		*copy = *patch;
	klpctl_patch_unlock();
	if (!patch)
		*why = "no such patch";
	return patch;
}

/**
 * klpctl_operation_enable() - start enabling a patch, or turn its disabling round
 * @name: module name
 * @confirm_ms: revert it unless it is confirmed within that time from now;
 *	KLPCTL_WAIT_FOREVER; 0: no confirmation is awaited
 * @owner: revert it when that is closed before the confirmation, too; or NULL
 * @why: set when it is refused: a constant string, for extack
 *
 * Context: Process context. May sleep.
 * Return: 0, the transition has started; -EINTR; others as KLPCTL_CMD_PATCH_ENABLE
 * says, and nothing has changed.
 */
int klpctl_operation_enable(const char *name, u32 confirm_ms, const struct file *owner,
			    const char **why)
{
	struct klpctl_patch *patch, seen;
	u64 start = ktime_get_ns();
	int ret;

	if (mutex_lock_interruptible(&operation))
		return -EINTR;
	patch = get(name, &seen, why);
	if (!patch) {
		ret = -ENOENT;
	} else if (seen.state == KLPCTL_STATE_ENABLED ||
		   seen.state == KLPCTL_STATE_ENABLING) {
		*why = "the patch is enabled already, or being enabled";
		ret = -EALREADY;
	} else if (confirm_ms && (!seen.decl || !klpctl_transition_watched())) {
		*why = "a confirmation can be awaited for registered patches only, and with KLPCTL_FEATURE_EVENTS";
		ret = -EOPNOTSUPP;
	} else if (seen.state == KLPCTL_STATE_DISABLING) {
		ret = store(&seen, "enabled", true, why);
	} else if (!seen.decl) {
		*why = "a foreign patch is enabled by loading its module";
		ret = -EOPNOTSUPP;
	} else {
		ret = enable_registered(patch, why);
	}
	/* A foreign patch may have gone; it cannot be enabled again anyway. */
	if (!ret && seen.decl) {
		klpctl_patch_lock();
		klpctl_confirm_forget(patch);
		/* Unless somebody was quick to revert it. */
		if (confirm_ms && is_enabled(patch))
			klpctl_confirm_await(patch, start, confirm_ms, owner);
		klpctl_patch_unlock();
	}
	mutex_unlock(&operation);
	return ret;
}

static int revert(const char *name, bool only_expired, const char **why)
{
	struct klpctl_patch *patch, seen;
	int ret;

	if (mutex_lock_interruptible(&operation))
		return -EINTR;
	patch = get(name, &seen, why);
	if (!patch) {
		ret = -ENOENT;
	} else if (!is_enabled(&seen) || (only_expired && !seen.expired)) {
		*why = "the patch is not enabled, or is being disabled already";
		ret = -EALREADY;
	} else {
		ret = store(&seen, "enabled", false, why);
		if (!ret && seen.decl && !klpctl_transition_watched()) {
			klpctl_patch_lock();
			patch->state = KLPCTL_STATE_DISABLED;
			klpctl_patch_unlock();
		}
	}
	mutex_unlock(&operation);
	return ret;
}

/**
 * klpctl_operation_revert() - start disabling a patch, or turn its enabling round
 * @name: module name
 * @why: set when it is refused: a constant string, for extack
 *
 * Context: Process context. May sleep.
 * Return: 0, the transition has started; -EINTR; others as KLPCTL_CMD_PATCH_REVERT
 * says, and nothing has changed.
 */
int klpctl_operation_revert(const char *name, const char **why)
{
	return revert(name, false, why);
}

/**
 * klpctl_operation_expire() - revert a patch that nobody confirmed
 * @name: module name
 * @why: as klpctl_operation_revert()
 *
 * Whoever had the operation before may have reverted it and enabled it anew: that
 * is another enable, and stays.
 *
 * Context: Process context. May sleep.
 * Return: As klpctl_operation_revert(); -EALREADY if it has not expired, too.
 */
int klpctl_operation_expire(const char *name, const char **why)
{
	return revert(name, true, why);
}

/**
 * klpctl_operation_force() - end the transition of a patch, whatever its tasks do
 * @name: module name
 * @why: set when it is refused: a constant string, for extack
 *
 * Breaks the consistency model: see klp_force_transition().
 *
 * Context: Process context. May sleep.
 * Return: 0; -ENOENT; -EINVAL when the patch is not in transition; -EINTR.
 */
int klpctl_operation_force(const char *name, const char **why)
{
	struct klpctl_patch *patch, seen;
	int ret;

	if (mutex_lock_interruptible(&operation))
		return -EINTR;
	patch = get(name, &seen, why);
	if (!patch) {
		ret = -ENOENT;
	} else if (klpctl_transition_watched() && !klpctl_patch_in_transition(&seen)) {
		*why = "the patch is not in transition";
		ret = -EINVAL;
	} else {
		ret = store(&seen, "force", true, why);
	}
	mutex_unlock(&operation);
	return ret;
}
