// SPDX-License-Identifier: GPL-2.0-only
/*
 * The kernel's livepatch core, as far as klpctl looks into it.
 *
 * The core changes its patches under klp_mutex, and holds that while callbacks run
 * and while it rewrites code, which may take seconds. So nothing here waits for it
 * but what changes a patch. The rest reads three words, which the core writes one after
 * the other:
 *
 *   enable    klp_transition_patch = P, klp_target_state = 1, pre-patch callbacks,
 *             klp_start_transition(), P->enabled = true
 *   disable   klp_transition_patch = P, klp_target_state = 0, pre-unpatch callbacks,
 *             klp_start_transition(), P->enabled = false
 *   reverse   P->enabled = !P->enabled, klp_target_state = !klp_target_state
 *   complete  klp_target_state = KLP_TRANSITION_IDLE, klp_transition_patch = NULL
 *
 * So a transition of P has started exactly when the target is what P->enabled says.
 */
#include <linux/compiler.h>
#include <linux/kobject.h>
#include <linux/module.h>
#include <linux/mutex.h>
#include <linux/string.h>
#include <linux/sysfs.h>
#include <linux/workqueue.h>

#include "compat.h"
#include "core.h"

/* Keep the core's patches as they are, unless that takes time. Innermost of all mutexes. */
bool klpctl_core_trylock(void)
{
	return mutex_trylock(klpctl_symbols.klp_mutex);
}

void klpctl_core_unlock(void)
{
	mutex_unlock(klpctl_symbols.klp_mutex);
}

/* The patch in transition, only to be compared; or NULL. */
const struct klp_patch *klpctl_core_in_transition(void)
{
	return READ_ONCE(*klpctl_symbols.klp_transition_patch);
}

/* Where the transition leads: 1, 0, or KLP_TRANSITION_IDLE. */
int klpctl_core_target(void)
{
	return READ_ONCE(*klpctl_symbols.klp_target_state);
}

/**
 * klpctl_core_state() - what the core says of a patch
 * @patch: stays valid meanwhile: by its owner, or by klpctl_core_trylock()
 * @state: in: what was said last; out: what is said now
 *
 * Context: Any.
 * Return: Whether it can be told. Not in the moment between the words above:
 * @state is then as it was, and the transition is about to start, or to be reversed.
 */
bool klpctl_core_state(const struct klp_patch *patch, enum klpctl_state *state)
{
	const struct klp_patch *moving;
	bool enabled;
	int target;

	do {
		moving = klpctl_core_in_transition();
		target = klpctl_core_target();
		smp_rmb();	/* these words are read before ... */
		enabled = READ_ONCE(patch->enabled);
		smp_rmb();	/* ... and after it: nothing came between */
	} while (moving != klpctl_core_in_transition() || target != klpctl_core_target());

	if (moving == patch && target != KLP_TRANSITION_IDLE) {
		if (target != enabled)
			return false;
		*state = enabled ? KLPCTL_STATE_ENABLING : KLPCTL_STATE_DISABLING;
	} else if (enabled) {
		*state = KLPCTL_STATE_ENABLED;
	} else if (*state == KLPCTL_STATE_ENABLING || *state == KLPCTL_STATE_ENABLED ||
		   *state == KLPCTL_STATE_DISABLING) {
		*state = KLPCTL_STATE_DISABLED;
	}
	return true;
}

/**
 * klpctl_core_get() - find a patch that the core holds, and keep it
 * @name: module name
 *
 * The reference is on the patch's kobject. klp_free_patch_finish() waits for its
 * release before it lets the module go, so the patch stays valid, though
 * it may be disabled in the meantime.
 *
 * Context: Process context. May sleep, for as long as a callback of a patch takes.
 * Return: The patch, for kobject_put(), or NULL.
 */
struct klp_patch *klpctl_core_get(const char *name)
{
	struct klp_patch *patch, *found = NULL;

	mutex_lock(klpctl_symbols.klp_mutex);
	klpctl_core_for_each(patch) {
		if (strcmp(patch->mod->name, name))
			continue;
		/* On the list, the core still has its own reference: klp_free_patch_start(). */
		kobject_get(&patch->kobj);
		found = patch;
		break;
	}
	klpctl_core_unlock();
	return found;
}

/**
 * klpctl_core_store() - write to a sysfs attribute of a patch
 * @name: module name
 * @attr: "enabled" or "force"
 * @value: what to write
 *
 * What "echo 0 > /sys/kernel/livepatch/<patch>/enabled" does, without the file.
 * The core decides under its own lock, so a patch that has changed since the
 * caller looked gives -EINVAL.
 *
 * Context: Process context. May sleep, for as long as a callback of a patch takes.
 * Return: 0; -EBUSY another patch is in transition; -EINVAL the patch is in that
 * state already; -ENOENT the core does not hold the patch; -EOPNOTSUPP it has no such
 * attribute.
 */
int klpctl_core_store(const char *name, const char *attr, bool value)
{
	struct klp_patch *patch = klpctl_core_get(name);
	const struct attribute_group **group;
	const struct kobj_type *ktype;
	ssize_t ret = -EOPNOTSUPP;
	struct attribute **at;

	if (!patch)
		return -ENOENT;
	ktype = patch->kobj.ktype;
	for (group = ktype->default_groups; group && *group; group++)
		for (at = (*group)->attrs; at && *at; at++)
			if (!strcmp((*at)->name, attr))
				ret = ktype->sysfs_ops->store(&patch->kobj, *at,
							      value ? "1" : "0", 1);
	kobject_put(&patch->kobj);
	return ret < 0 ? ret : 0;
}

/**
 * klpctl_core_retry() - let the core try now what it would try within a second
 *
 * Moving the core's own work item forward changes nothing but the time: it takes
 * the same lock and does the same checks.
 *
 * Context: Any.
 * Return: Whether there is such a work item; it is queued where the core queues it.
 */
bool klpctl_core_retry(void)
{
	struct delayed_work *work = klpctl_symbols.klp_transition_work;
	struct workqueue_struct *queue = work ? READ_ONCE(work->wq) : NULL;

	if (queue)
		mod_delayed_work(queue, work, 0);
	return queue;
}

/*
 * Are relocations for a module undone when it goes? 0c05e7bd2d01 ("livepatch,x86: Clear
 * relocation targets on a module removal"), 6.3. On x86-64 the function is more than
 * the weak stub.
 */
bool klpctl_core_clears_relocs(void)
{
	return klpctl_symbols.clear_relocate_add;
}

/* Does ftrace let functions be patched? Otherwise the core says -EBUSY (7162431dcf72, 5.6). */
bool klpctl_core_can_patch(void)
{
	return !klpctl_symbols.ftrace_enabled || READ_ONCE(*klpctl_symbols.ftrace_enabled);
}
