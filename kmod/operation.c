// SPDX-License-Identifier: GPL-2.0-only
/*
 * What can be done to patches, one thing at a time.
 *
 * A patch that was enabled with a window expires when the window ends, or when the
 * file that owns it is closed: by a crash, by kill -9, or on purpose. Who enabled the
 * patch need not be there any more. It is then reverted like by anybody else, in
 * mid-transition too, and again and again while another patch is in transition.
 */
#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include <linux/delay.h>
#include <linux/jiffies.h>
#include <linux/ktime.h>
#include <linux/math64.h>
#include <linux/module.h>
#include <linux/mutex.h>
#include <linux/sched/signal.h>
#include <linux/slab.h>
#include <linux/string.h>
#include <linux/workqueue.h>

#include <klpctl/klpctl.h>

#include "clone.h"
#include "compat.h"
#include "core.h"
#include "operation.h"
#include "registry.h"
#include "watch.h"

#define RELEASE_MS	1000	/* how long the core may take to let go of a module */
#define RETRY_MS	100	/* until an expired patch is tried again */

static DEFINE_MUTEX(operation);		/* see registry.c for the order */

static struct workqueue_struct *queue;
static void expire(struct work_struct *work);
static DECLARE_DELAYED_WORK(expire_work, expire);

/* ---- what payloads call ---- */

/* A fresh load would find the states as they are declared: so does each enable. */
static int keep_states(struct klpctl_patch *patch)
{
	const struct klp_state *states = patch->decl->states, *state;

	if (!states)
		return 0;
	for (state = states; state->id; state++)
		;
	patch->states = kmemdup(states, (state - states) * sizeof(*states), GFP_KERNEL);
	return patch->states || state == states ? 0 : -ENOMEM;
}

static void restore_states(struct klpctl_patch *patch)
{
	struct klp_state *state = patch->decl->states, *kept = patch->states;

	for (; state && state->id; state++)
		*state = *kept++;
}

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

	klpctl_registry_lock();
	if (klpctl_registry_find(decl->mod->name)) {
		pr_err("%s: registered already; a module has one patch\n", decl->mod->name);
		ret = -EALREADY;	/* -EEXIST is the module loader's own */
		goto unlock;
	}
	patch = klpctl_registry_add(decl->mod->name, decl);
	ret = patch ? keep_states(patch) : -ENOMEM;
	if (!ret)
		klpctl_registry_refresh();
	else if (patch)
		klpctl_registry_del(patch);
unlock:
	klpctl_registry_unlock();
	return ret;
}
EXPORT_SYMBOL_GPL(klpctl_register_patch);

void klpctl_unregister_patch(const struct klp_patch *decl)
{
	struct klpctl_patch *patch;

	mutex_lock(&operation);
	klpctl_registry_lock();
	patch = klpctl_registry_find(decl->mod->name);
	if (patch && patch->decl == decl) {
		/* Leak rather than free memory that the core may still use. */
		if (WARN_ON(patch->core && module_refcount(decl->mod) > 0))
			patch->core = NULL;
		klpctl_registry_del(patch);
	}
	klpctl_registry_unlock();
	mutex_unlock(&operation);
}
EXPORT_SYMBOL_GPL(klpctl_unregister_patch);

/* Standalone patches go with their modules. */
static int module_event(struct notifier_block *block, unsigned long action, void *data)
{
	const struct klp_patch *decl;
	struct klpctl_patch *patch;
	struct module *mod = data;

	if (action != MODULE_STATE_GOING || !is_livepatch_module(mod))
		return NOTIFY_DONE;
	klpctl_registry_lock();
	patch = klpctl_registry_find(mod->name);
	decl = patch ? patch->decl : NULL;
	if (patch && !decl)
		klpctl_registry_del(patch);
	klpctl_registry_unlock();
	if (decl) {
		/* Its init failed after the registration, and did not undo it. */
		pr_err("%s: goes without unregistering its patch\n", mod->name);
		klpctl_unregister_patch(decl);
	}
	return NOTIFY_OK;
}

static struct notifier_block module_block = { .notifier_call = module_event };

/* ---- enabling and reverting ---- */

/*
 * The core holds a reference to the module until its last access to the
 * structures (klp_free_patch_finish()), and for ever after a forced transition.
 */
static int wait_released(struct module *mod, const char **why)
{
	unsigned long end = jiffies + msecs_to_jiffies(RELEASE_MS);

	while (module_refcount(mod) > 0) {
		if (time_after(jiffies, end)) {
			*why = "the kernel still holds the module: it is in use, or was forced";
			return -EBUSY;
		}
		if (msleep_interruptible(1))
			return -EINTR;
	}
	return 0;
}

/* What the core would find out, too, but with marks left behind: relocations, callbacks. */
static int check_before(const struct klpctl_patch *patch, const char **why)
{
	struct module *mod = patch->decl->mod;
	int ret;

	if (READ_ONCE(mod->state) != MODULE_STATE_LIVE) {
		*why = "the patch module is being loaded or unloaded";
		return -EBUSY;
	}
	ret = patch->core ? wait_released(mod, why) : 0;
	if (ret)
		return ret;
	if (patch->has_relocs || (patch->core && klpctl_clone_has_applied_relocs(patch->core))) {
		*why = "it relocates against a module, which cannot be done twice: load it anew";
		return -EOPNOTSUPP;
	}
	/* One that is just being put down has ended: the core then lets others in. */
	if (klpctl_core_in_transition() && klpctl_core_target() != KLP_TRANSITION_IDLE) {
		*why = "another patch is in transition";
		return -EBUSY;
	}
	if (!klpctl_core_can_patch()) {
		*why = "ftrace is switched off: sysctl kernel.ftrace_enabled=1";
		return -ENXIO;
	}
	return 0;
}

/* A callback returns what its author likes: it may say something else here. */
static int refusal(int ret)
{
	switch (ret) {
	case -EPERM:
	case -ENOENT:
	case -EINTR:
	case -ENXIO:
	case -E2BIG:
	case -EFAULT:
	case -EBUSY:
	case -ENOTTY:
	case -EOPNOTSUPP:
	case -EALREADY:
		return -ECANCELED;
	}
	/* Above are the kernel's own, such as -ERESTARTSYS. */
	return ret > 0 ? -EINVAL : ret <= -ERESTARTSYS ? -ECANCELED : ret;
}

/* Under operation, which keeps the patch. */
static int enable_registered(struct klpctl_patch *patch, const char **why)
{
	struct klp_patch *clone;
	unsigned int starts = klpctl_watch_starts();
	int ret;

	ret = check_before(patch, why);
	if (ret)
		return ret;
	clone = klpctl_clone_alloc(patch->decl);
	if (!clone)
		return -ENOMEM;
	restore_states(patch);

	klpctl_registry_lock();
	klpctl_clone_free(patch->core);
	patch->core = clone;
	klpctl_registry_unlock();

	ret = klp_enable_patch(clone);
	if (!ret)
		return 0;
	*why = ret == -ENODEV ? "the patch module is being unloaded" :
	       "the livepatch core or a callback of the patch refused it: see the kernel log";
	/* ftrace says the same of a function that something else redirects. */
	if (ret == -EBUSY && (klpctl_core_in_transition() || klpctl_watch_starts() != starts))
		*why = "another patch is in transition";
	else
		ret = refusal(ret);

	klpctl_registry_lock();
	patch->has_relocs = klpctl_clone_has_applied_relocs(clone);
	patch->core = NULL;
	klpctl_clone_free(clone);
	klpctl_registry_unlock();
	return ret;
}

static int store(const char *name, const char *attr, bool value, const char **why)
{
	int ret = klpctl_core_store(name, attr, value);

	if (ret == -EBUSY)
		*why = "another patch is in transition";
	else if (ret)
		*why = "the patch has changed its state in the meantime";
	return ret == -ENOENT ? -EINVAL : ret;
}

/*
 * Find a patch for an operation: a registered one stays, under operation; a standalone
 * one may go at any time.
 */
static struct klpctl_patch *get_patch(const char *name, struct klpctl_patch *snapshot,
				      const char **why)
{
	struct klpctl_patch *patch;

	klpctl_registry_lock();
	patch = klpctl_registry_find(name);
	if (patch)
		*snapshot = *patch;
	else
		*why = "no such patch";
	klpctl_registry_unlock();
	return patch;
}

/* Had the transition ended that was to be reversed? Then look again, unless a signal came. */
static bool has_ended(int *ret, const struct klpctl_patch *snapshot)
{
	if (*ret != -EINVAL || !klpctl_in_transition(snapshot->state))
		return false;
	if (signal_pending(current))
		*ret = -EINTR;
	return *ret != -EINTR;
}

static void schedule_expiry(u64 delay_ns)
{
	mod_delayed_work(queue, &expire_work, nsecs_to_jiffies(delay_ns) + 1);
}

/**
 * klpctl_operation_enable() - start enabling a patch, or reverse its disabling
 * @name: module name
 * @window_ms: revert it unless it is confirmed within that time from now on, when nothing
 *	else is being done; KLPCTL_WAIT_FOREVER; 0: no window
 * @deadline: the end of the transition closes the window
 * @owner: revert it when that is closed before the window is, too; or NULL
 * @why: set when it is refused: a constant string
 *
 * Context: Process context. May sleep.
 * Return: 0, the transition has started; -EINTR; others as KLPCTL_IOC_ENABLE says, and
 * nothing has changed.
 */
int klpctl_operation_enable(const char *name, u32 window_ms, bool deadline,
			    const struct file *owner, const char **why)
{
	struct klpctl_patch *patch, snapshot;
	u64 start;
	int ret;

	if (mutex_lock_interruptible(&operation))
		return -EINTR;
	start = ktime_get_ns();
again:
	patch = get_patch(name, &snapshot, why);
	if (!patch) {
		ret = -ENOENT;
	} else if (klpctl_is_enabled(snapshot.state)) {
		*why = "the patch is enabled already, or being enabled";
		ret = -EALREADY;
	} else if (snapshot.state == KLPCTL_STATE_DISABLING) {
		ret = store(name, "enabled", true, why);
	} else if (!snapshot.decl) {
		*why = "a standalone patch is enabled by loading its module";
		ret = -EOPNOTSUPP;
	} else {
		ret = enable_registered(patch, why);
	}
	if (has_ended(&ret, &snapshot))
		goto again;
	klpctl_registry_lock();
	patch = ret ? NULL : klpctl_registry_find(name);
	if (patch) {
		patch->window = (struct klpctl_window){
			/* Unless somebody was quick to revert it, or it has ended. */
			.awaited = window_ms && (deadline ?
						 patch->state == KLPCTL_STATE_ENABLING :
						 klpctl_is_enabled(patch->state)),
			.deadline = deadline,
			.owner = owner,
			.end = window_ms == KLPCTL_WAIT_FOREVER ? U64_MAX :
			       start + window_ms * (u64)NSEC_PER_MSEC,
		};
		if (patch->window.awaited)
			schedule_expiry(0);
	}
	klpctl_registry_unlock();
	mutex_unlock(&operation);
	return ret;
}

static int revert(const char *name, bool only_expired, const char **why)
{
	struct klpctl_patch snapshot;
	int ret;

	if (mutex_lock_interruptible(&operation))
		return -EINTR;
again:
	if (!get_patch(name, &snapshot, why)) {
		ret = -ENOENT;
	} else if (!klpctl_is_enabled(snapshot.state) ||
		   (only_expired && !(snapshot.window.awaited && snapshot.window.expired))) {
		*why = "the patch is not enabled, or is being disabled already";
		ret = -EALREADY;
	} else {
		ret = store(name, "enabled", false, why);
	}
	if (has_ended(&ret, &snapshot))
		goto again;
	/* What has begun is told before anything else can be done. */
	klpctl_registry_lock();
	klpctl_registry_unlock();
	mutex_unlock(&operation);
	return ret;
}

/**
 * klpctl_operation_revert() - start disabling a patch, or reverse its enabling
 * @name: module name
 * @why: set when it is refused: a constant string
 *
 * Context: Process context. May sleep.
 * Return: 0, the transition has started; -EINTR; others as KLPCTL_IOC_REVERT says, and
 * nothing has changed.
 */
int klpctl_operation_revert(const char *name, const char **why)
{
	return revert(name, false, why);
}

/**
 * klpctl_operation_force() - end the transition of a patch, whatever its tasks do
 * @name: module name
 * @why: set when it is refused: a constant string
 *
 * Breaks the consistency model: see klp_force_transition().
 *
 * Context: Process context. May sleep.
 * Return: 0; -ENOENT; -EINVAL when the patch is not in transition; -EINTR.
 */
int klpctl_operation_force(const char *name, const char **why)
{
	struct klpctl_patch snapshot;
	int ret;

	if (mutex_lock_interruptible(&operation))
		return -EINTR;
	if (!get_patch(name, &snapshot, why)) {
		ret = -ENOENT;
	} else if (!klpctl_in_transition(snapshot.state)) {
		*why = "the patch is not in transition";
		ret = -EINVAL;
	} else {
		ret = store(name, "force", true, why);
	}
	klpctl_registry_lock();
	klpctl_registry_unlock();
	mutex_unlock(&operation);
	return ret;
}

/* ---- windows ---- */

/**
 * klpctl_operation_confirm() - the patch may stay
 * @name: module name
 * @why: set when it is refused: a constant string
 *
 * Context: Process context. May sleep, but never long.
 * Return: 0; -ENOENT no such patch; -EINVAL no confirmation is awaited, or it has
 * expired; -EBUSY the patch is still in transition.
 */
int klpctl_operation_confirm(const char *name, const char **why)
{
	struct klpctl_patch *patch;
	int ret = 0;

	klpctl_registry_lock();
	patch = klpctl_registry_find(name);
	if (!patch) {
		*why = "no such patch";
		ret = -ENOENT;
	} else if (!patch->window.awaited || patch->window.deadline || patch->window.expired) {
		*why = "no confirmation is awaited, or its time is over";
		ret = -EINVAL;
	} else if (klpctl_in_transition(patch->state)) {
		*why = "the patch is still in transition";
		ret = -EBUSY;
	} else {
		patch->window = (struct klpctl_window){ };
		klpctl_registry_tell(patch, KLPCTL_ACTION_CONFIRMED, ktime_get_ns());
	}
	klpctl_registry_unlock();
	return ret;
}

/**
 * klpctl_operation_abandon() - a file is closed
 * @owner: of the patches to be reverted
 *
 * Context: Process context. May sleep, but never long: the reverting is left to a work item.
 */
void klpctl_operation_abandon(const struct file *owner)
{
	struct klpctl_patch *patch;

	klpctl_registry_lock();
	list_for_each_entry(patch, klpctl_registry_list(), node) {
		if (!patch->window.awaited || patch->window.owner != owner)
			continue;
		patch->window.end = 0;
		patch->window.owner = NULL;
		schedule_expiry(0);
	}
	klpctl_registry_unlock();
}

/*
 * The next patch to be reverted: the patch in transition first, since it keeps all
 * others from being reverted; then the newest, as patches are taken off a stack.
 * Without one, come back when the first one expires.
 */
static bool find_expired(char name[MODULE_NAME_LEN])
{
	struct klpctl_patch *patch, *next = NULL;
	u64 now, left = U64_MAX;

	klpctl_registry_lock();
	now = ktime_get_ns();
	list_for_each_entry_reverse(patch, klpctl_registry_list(), node) {
		if (!patch->window.awaited)
			continue;
		if (patch->window.end > now) {
			left = min(left, patch->window.end - now);
			continue;
		}
		if (!patch->window.expired)
			klpctl_registry_tell(patch, KLPCTL_ACTION_EXPIRED, now);
		patch->window.expired = true;
		if (!next || klpctl_in_transition(patch->state))
			next = patch;
	}
	/* Under the lock: or it would put off what has been made due since. */
	if (next)
		strscpy(name, next->name, MODULE_NAME_LEN);
	else if (left != U64_MAX)
		schedule_expiry(left);
	klpctl_registry_unlock();
	return next;
}

static void expire(struct work_struct *work)
{
	char name[MODULE_NAME_LEN];
	struct klpctl_patch *patch;
	const char *why;
	int ret;

	if (!find_expired(name))
		return;

	/* An enable that came later is another one, and stays. */
	ret = revert(name, true, &why);
	if (!ret || ret == -EALREADY) {
		klpctl_registry_lock();
		patch = klpctl_registry_find(name);
		if (patch && patch->window.expired)
			patch->window = (struct klpctl_window){ };
		klpctl_registry_unlock();
	}
	schedule_expiry(ret && ret != -EALREADY ? RETRY_MS * (u64)NSEC_PER_MSEC : 0);
}

/**
 * klpctl_operation_init() - get ready
 *
 * Context: Process context, module_init(). May sleep.
 * Return: 0 or -errno.
 */
int __init klpctl_operation_init(void)
{
	int ret;

	queue = alloc_workqueue("klpctl_expire", WQ_UNBOUND, 1);
	if (!queue)
		return -ENOMEM;
	ret = register_module_notifier(&module_block);
	if (ret)
		destroy_workqueue(queue);
	return ret;
}

/* No patch is registered any more: their modules hold this one. */
void klpctl_operation_exit(void)
{
	unregister_module_notifier(&module_block);
	cancel_delayed_work_sync(&expire_work);
	destroy_workqueue(queue);
}
