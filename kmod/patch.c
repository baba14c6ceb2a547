// SPDX-License-Identifier: GPL-2.0-only
/*
 * The list of all patches that klpctl knows, kept up with what happens.
 *
 * Mutexes, in the order in which they are taken:
 *
 *   operation (operation.c)  one enable, revert, force, registration or
 *              unregistration at a time; held while the livepatch core works,
 *              which may take long
 *   lock       the list and the patches in it; never held across a call that
 *              runs a patch's callbacks, so that queries and events go on
 *   klp_mutex  the core's
 *
 * Payloads' callbacks run under operation and klp_mutex.
 */
#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include <linux/ktime.h>
#include <linux/livepatch.h>
#include <linux/module.h>
#include <linux/mutex.h>
#include <linux/slab.h>
#include <linux/wait.h>
#include <linux/workqueue.h>

#include <klpctl/klpctl.h>

#include "confirm.h"
#include "core.h"
#include "device.h"
#include "event.h"
#include "patch.h"
#include "symbol.h"
#include "transition.h"

static DEFINE_MUTEX(lock);
static LIST_HEAD(patches);
static unsigned int generation;		/* rises when the list changes */
static DECLARE_WAIT_QUEUE_HEAD(events);
static atomic_t events_seen = ATOMIC_INIT(0);

static void update(struct work_struct *work);
static DECLARE_WORK(update_work, update);

/**
 * klpctl_patch_find() - find a patch
 * @name: module name
 *
 * Context: Process context, under klpctl_patch_lock().
 * Return: The patch, or NULL; valid until klpctl_patch_unlock().
 */
struct klpctl_patch *klpctl_patch_find(const char *name)
{
	struct klpctl_patch *patch;

	list_for_each_entry(patch, &patches, node)
		if (!strcmp(patch->name, name))
			return patch;
	return NULL;
}

/**
 * klpctl_patch_add() - a patch has come
 * @name: module name
 * @decl: what its payload declares; NULL: foreign
 * @state: where it stands
 * @replace: it is an atomic replace
 * @time: when it came, CLOCK_MONOTONIC in ns
 *
 * Context: Process context, under klpctl_patch_lock(). May sleep.
 * Return: The patch, or NULL.
 */
struct klpctl_patch *klpctl_patch_add(const char *name, const struct klp_patch *decl,
				      enum klpctl_state state, bool replace, u64 time)
{
	struct klpctl_patch *patch = kzalloc(sizeof(*patch), GFP_KERNEL);

	if (!patch)
		return NULL;
	strscpy(patch->name, name, sizeof(patch->name));
	patch->decl = decl;
	patch->state = state;
	patch->flags = (decl ? KLPCTL_PATCH_REGISTERED : 0) |
		       (replace ? KLPCTL_PATCH_REPLACE : 0);
	patch->device = klpctl_device_add(name);
	list_add_tail(&patch->node, &patches);
	generation++;
	klpctl_event_send(patch, KLPCTL_ACTION_REGISTERED, time, 0);
	return patch;
}

/**
 * klpctl_patch_del() - a patch is gone
 * @patch: freed
 *
 * Context: Process context, under klpctl_patch_lock(). May sleep.
 */
void klpctl_patch_del(struct klpctl_patch *patch)
{
	klpctl_event_send(patch, KLPCTL_ACTION_UNREGISTERED, ktime_get_ns(), 0);
	list_del(&patch->node);
	generation++;
	klpctl_device_del(patch->device);
	kfree(patch);
}

static void mark_replaced(const struct klpctl_patch *by, u64 time)
{
	struct klpctl_patch *patch;

	list_for_each_entry(patch, &patches, node) {
		if (patch == by || patch->state != KLPCTL_STATE_ENABLED)
			continue;
		patch->state = KLPCTL_STATE_REPLACED;
		klpctl_confirm_forget(patch);
		klpctl_event_send(patch, KLPCTL_ACTION_REPLACED, time, 0);
	}
}

/* As klp_force_transition(): code that is being left may still run for ever. */
static void mark_forced(struct klpctl_patch *patch, const struct klpctl_transition *done)
{
	struct klpctl_patch *other;

	if (done->target == KLPCTL_TARGET_UNPATCHED) {
		patch->flags |= KLPCTL_PATCH_FORCED;
	} else if (done->replace) {
		list_for_each_entry(other, &patches, node)
			if (other != patch && other->state == KLPCTL_STATE_ENABLED)
				other->flags |= KLPCTL_PATCH_FORCED;
	}
}

static void apply(const struct klpctl_transition *done)
{
	bool patched = done->target == KLPCTL_TARGET_PATCHED;
	struct klpctl_patch *patch = klpctl_patch_find(done->name);

	if (!patch)
		patch = klpctl_patch_add(done->name, NULL, KLPCTL_STATE_REGISTERED,
					 done->replace, done->time);
	if (!patch) {
		klpctl_event_skip();
		return;
	}

	if (done->action == KLPCTL_ACTION_COMPLETED)
		patch->state = patched ? KLPCTL_STATE_ENABLED : KLPCTL_STATE_DISABLED;
	else
		patch->state = patched ? KLPCTL_STATE_ENABLING : KLPCTL_STATE_DISABLING;
	if (done->action == KLPCTL_ACTION_FORCED)
		mark_forced(patch, done);
	if (patch->state == KLPCTL_STATE_DISABLED)
		klpctl_confirm_forget(patch);
	klpctl_event_send(patch, done->action, done->time, done->target);

	if (done->action == KLPCTL_ACTION_COMPLETED && done->replace && patched)
		mark_replaced(patch, done->time);
}

/* Take over what the core has and klpctl has not seen come, or go. */
static void adopt(void)
{
	struct klpctl_patch *patch;
	struct klp_patch *core;

	if (!klpctl_core_visible())
		return;
	klpctl_core_lock();
	klpctl_core_for_each(core) {
		bool moving = klpctl_core_in_transition(core);
		enum klpctl_state state = core->enabled ?
			(moving ? KLPCTL_STATE_ENABLING : KLPCTL_STATE_ENABLED) :
			(moving ? KLPCTL_STATE_DISABLING : KLPCTL_STATE_DISABLED);

		patch = klpctl_patch_find(core->mod->name);
		if (moving)
			klpctl_transition_adopt(core);
		if (patch)
			patch->state = state;
		else
			klpctl_patch_add(core->mod->name, NULL, state, core->replace,
					 ktime_get_ns());
	}
	/* The core drops a patch that is disabled or replaced. */
	list_for_each_entry(patch, &patches, node) {
		if (patch->state == KLPCTL_STATE_REGISTERED ||
		    patch->state == KLPCTL_STATE_REPLACED || klpctl_core_find(patch->name))
			continue;
		patch->state = KLPCTL_STATE_DISABLED;
		klpctl_confirm_forget(patch);
	}
	klpctl_core_unlock();
}

/* Bring the list up to what has happened by now. */
static void drain(void)
{
	struct klpctl_transition done;
	bool any = false, any_lost = false, lost;

	while (klpctl_transition_next(&done, &lost)) {
		if (lost)
			klpctl_event_skip();
		any_lost |= lost;
		apply(&done);
		any = true;
	}
	/* What was lost is newer than what the ring had room for. */
	if (any_lost)
		adopt();
	if (any) {
		atomic_inc(&events_seen);
		wake_up_all(&events);
	}
}

static void update(struct work_struct *work)
{
	klpctl_patch_lock();
	klpctl_patch_unlock();
}

/**
 * klpctl_patch_wake() - something is in the ring
 *
 * Context: Any.
 */
void klpctl_patch_wake(void)
{
	queue_work(system_unbound_wq, &update_work);
}

/**
 * klpctl_patch_lock() - keep the list and all patches as they are
 *
 * They are then as the events up to now tell: what is in the ring is applied
 * first, and sent.
 *
 * Context: Process context. May sleep.
 */
void klpctl_patch_lock(void)
{
	mutex_lock(&lock);
	drain();
}

/**
 * klpctl_patch_unlock() - undo klpctl_patch_lock()
 *
 * Context: Process context.
 */
void klpctl_patch_unlock(void)
{
	mutex_unlock(&lock);
}

/**
 * klpctl_patch_list() - all patches, in the order in which they came
 *
 * Context: Process context, under klpctl_patch_lock().
 * Return: The head of the list of struct klpctl_patch.
 */
struct list_head *klpctl_patch_list(void)
{
	return &patches;
}

/**
 * klpctl_patch_generation() - has the list changed since the last call?
 *
 * Context: Process context, under klpctl_patch_lock().
 * Return: A number that differs when it has.
 */
unsigned int klpctl_patch_generation(void)
{
	return generation;
}

/**
 * klpctl_patch_wait() - wait until a patch is not in transition
 * @name: module name
 * @timeout: in jiffies; MAX_SCHEDULE_TIMEOUT
 * @state: set to its state, with -ETIMEDOUT too
 *
 * Context: Process context. May sleep.
 * Return: 0; -ENOENT; -EOPNOTSUPP without events; -ETIMEDOUT; -EINTR.
 */
int klpctl_patch_wait(const char *name, long timeout, enum klpctl_state *state)
{
	struct klpctl_patch *patch;
	bool moving = false;
	int seen;

	if (!klpctl_transition_watched())
		return -EOPNOTSUPP;

	for (;;) {
		/* Read before the patch: what changes it later changes this, too. */
		seen = atomic_read(&events_seen);

		klpctl_patch_lock();
		patch = klpctl_patch_find(name);
		if (patch) {
			moving = klpctl_patch_in_transition(patch);
			*state = patch->state;
		}
		klpctl_patch_unlock();

		if (!patch)
			return -ENOENT;
		if (!moving)
			return 0;
		if (!timeout)
			return -ETIMEDOUT;
		timeout = wait_event_interruptible_timeout(events,
				atomic_read(&events_seen) != seen, timeout);
		if (timeout < 0)
			return -EINTR;
	}
}

/* Foreign patches go with their modules. */
static int module_event(struct notifier_block *block, unsigned long action, void *data)
{
	const struct module *mod = data;
	const struct klp_patch *decl;
	struct klpctl_patch *patch;

	if (action != MODULE_STATE_GOING || !is_livepatch_module((struct module *)mod))
		return NOTIFY_DONE;

	klpctl_patch_lock();
	patch = klpctl_patch_find(mod->name);
	decl = patch ? patch->decl : NULL;
	if (patch && !decl)
		klpctl_patch_del(patch);
	klpctl_patch_unlock();
	if (decl) {
		/* Its init failed after the registration, and did not undo it. */
		pr_err("%s: goes without unregistering its patch\n", mod->name);
		klpctl_unregister_patch(decl);
	}
	return NOTIFY_OK;
}

static struct notifier_block module_block = { .notifier_call = module_event };

/**
 * klpctl_patch_init() - get ready
 *
 * Context: Process context, module_init(). May sleep.
 * Return: 0 or -errno.
 */
int __init klpctl_patch_init(void)
{
	return register_module_notifier(&module_block);
}

/**
 * klpctl_patch_adopt() - take over the patches that were there before klpctl
 *
 * Context: Process context, module_init(), after klpctl_transition_init(), so that
 * none slips through. May sleep.
 */
void __init klpctl_patch_adopt(void)
{
	klpctl_patch_lock();
	adopt();
	klpctl_patch_unlock();
}

/**
 * klpctl_patch_exit() - forget all patches, tell it, and change none
 *
 * Registered ones are gone already: their modules hold this one.
 *
 * Context: Process context, after klpctl_transition_exit(). May sleep.
 */
void klpctl_patch_exit(void)
{
	struct klpctl_patch *patch, *next;

	unregister_module_notifier(&module_block);
	cancel_work_sync(&update_work);
	klpctl_patch_lock();
	list_for_each_entry_safe(patch, next, &patches, node)
		klpctl_patch_del(patch);
	klpctl_patch_unlock();
}
