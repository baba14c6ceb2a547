// SPDX-License-Identifier: GPL-2.0-only
/*
 * The list of all patches that klpctl knows, and what the core says of them.
 *
 * State is derived: whenever somebody asks, and whenever a probe wakes, what the core
 * says is compared with what was told last, and the difference is told. Nothing is
 * carried over from one event to the next.
 *
 * Mutexes, in the order in which they are taken:
 *
 *   operation (operation.c)  one enable, revert or force at a time; held while the
 *              livepatch core works, which may take long
 *   lock       the list and the patches in it; nothing under it waits for the core,
 *              so that queries and events go on whatever that does
 *   klp_mutex  the core's; under lock it is only tried
 *
 * While the core holds klp_mutex a registered patch is read without it, and of a
 * standalone patch is known whether it is in transition, and whether a registered one
 * has replaced it; the rest of it is as it was.
 */
#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include <linux/ktime.h>
#include <linux/livepatch.h>
#include <linux/moduleparam.h>
#include <linux/mutex.h>
#include <linux/slab.h>
#include <linux/string.h>
#include <linux/wait.h>
#include <linux/workqueue.h>

#include "clone.h"
#include "compat.h"
#include "core.h"
#include "event.h"
#include "registry.h"
#include "task.h"
#include "watch.h"

#define FIRST_MS	2	/* the first look at a transition */
#define USUAL_MS	100	/* between two later looks */
#define LONG_MS		1000	/* when it takes longer than PATIENCE_MS and nobody listens */
#define PATIENCE_MS	10000

/*
 * The core sends signals with its 15th retry (SIGNALS_TIMEOUT), and programs can see
 * them. So there are few early retries: when no task is pending, and some before,
 * unless a task was found in a function that changes.
 */
#define MOST_RETRIES	5
#define MOST_AT_END	10

static bool fast_completion = true;
module_param(fast_completion, bool, 0644);
MODULE_PARM_DESC(fast_completion, "retry transitions earlier than once a second (default: on)");

static DEFINE_MUTEX(lock);
static LIST_HEAD(patches);
static bool closed = true;		/* nothing is looked at, before and after */
static bool adopted;			/* what was there before klpctl is in the list */
static unsigned int order;
static u64 newest;			/* time of the newest event */
static u64 progressed;			/* time of the newest progress */
static u32 progress;			/* what it told */
static unsigned int retries;		/* early ones, of this transition */
static u64 kicks, reversals;		/* since klpctl was loaded */
static unsigned int starts, starts_told; /* as the probe counts them, and as they were told */

static DECLARE_WAIT_QUEUE_HEAD(changes);
static atomic_t change = ATOMIC_INIT(0);	/* differs after each */

static struct workqueue_struct *queue;
static void look(struct work_struct *work);
static DECLARE_DELAYED_WORK(look_work, look);

/* ---- telling ---- */

static void send_event(struct klpctl_patch *patch, enum klpctl_action action, u64 time,
		       bool patched)
{
	struct klpctl_event event = {
		.patch = patch,
		.time = time,
		.action = action,
		.target = patched ? KLPCTL_TARGET_PATCHED : KLPCTL_TARGET_UNPATCHED,
	};

	newest = time;
	klpctl_event_send(&event);
	atomic_inc(&change);
	wake_up_all(&changes);
}

/* The date that a probe has noted, if it is of something new. */
static u64 date(u64 noted)
{
	u64 now = ktime_get_ns();

	return noted > newest && noted < now ? noted : now;
}

/**
 * klpctl_registry_tell() - tell what has happened to a patch, but for its transitions
 * @patch: in the state after it
 * @action: what
 * @time: CLOCK_MONOTONIC in ns
 *
 * Context: Process context, under klpctl_registry_lock(). May sleep.
 */
void klpctl_registry_tell(struct klpctl_patch *patch, enum klpctl_action action, u64 time)
{
	send_event(patch, action, time, false);
}

static void tell_start(struct klpctl_patch *patch, bool patched, bool reversed)
{
	u64 time = date(klpctl_watch_started());

	patch->state = patched ? KLPCTL_STATE_ENABLING : KLPCTL_STATE_DISABLING;
	patch->forced = false;
	if (patched && !reversed)
		patch->order = ++order;
	if (reversed)
		reversals++;
	else
		patch->started = progressed = time;
	starts_told++;
	retries = 0;
	progress = 0;
	send_event(patch, reversed ? KLPCTL_ACTION_REVERSED : KLPCTL_ACTION_STARTED, time, patched);
}

static void tell_force(struct klpctl_patch *patch)
{
	if (!patch->core || klpctl_watch_forced() != patch->core || patch->forced)
		return;
	patch->forced = true;
	send_event(patch, KLPCTL_ACTION_FORCED, ktime_get_ns(),
		   patch->state == KLPCTL_STATE_ENABLING);
}

/* To the new code, or to that of another patch. */
static bool leads_to_patched(enum klpctl_state state)
{
	return klpctl_is_enabled(state) || state == KLPCTL_STATE_REPLACED;
}

/* Has a transition started, or been reversed, between @state and @next? */
static bool has_started(const struct klpctl_patch *patch)
{
	if (klpctl_in_transition(patch->state))
		return leads_to_patched(patch->next) != leads_to_patched(patch->state);
	return patch->next != patch->state && patch->next != KLPCTL_STATE_REPLACED;
}

/* Tell of a transition what must have been between @state and @next. */
static void tell_transition(struct klpctl_patch *patch)
{
	enum klpctl_state last = patch->state;
	bool patched = leads_to_patched(patch->next);

	if (klpctl_in_transition(last))
		tell_force(patch);
	if (has_started(patch))
		tell_start(patch, patched, klpctl_in_transition(last));
	if (klpctl_in_transition(patch->next)) {
		tell_force(patch);
	} else if (klpctl_in_transition(patch->state)) {
		patch->state = patched ? KLPCTL_STATE_ENABLED : KLPCTL_STATE_DISABLED;
		if (!patched || patch->window.deadline)
			patch->window = (struct klpctl_window){ };
		send_event(patch, KLPCTL_ACTION_COMPLETED, date(klpctl_watch_ended()), patched);
	}
}

static void tell_replaced(struct klpctl_patch *patch)
{
	patch->state = KLPCTL_STATE_REPLACED;
	patch->window = (struct klpctl_window){ };
	send_event(patch, KLPCTL_ACTION_REPLACED, date(klpctl_watch_ended()), false);
}

/* ---- looking ---- */

/* Take up what the core has and klpctl has not seen. Under klp_mutex. */
static bool adopt(void)
{
	struct klpctl_patch *patch;
	struct klp_patch *core;
	bool all = true;

	list_for_each_entry(patch, &patches, node)
		if (!patch->decl)
			patch->core = NULL;
	klpctl_core_for_each(core) {
		patch = klpctl_registry_find(core->mod->name);
		if (!patch)
			patch = klpctl_registry_add(core->mod->name, NULL);
		if (!patch)
			all = false;
		if (!patch || patch->decl)
			continue;
		patch->core = core;
		patch->replace = klpctl_replaces(core);
		patch->pinned |= core->forced;
	}
	return all;
}

/* Set @next. Whether that can be told: not in the midst of what the core does. */
static bool look_at(struct klpctl_patch *patch, bool whole)
{
	int target;

	patch->next = patch->state;
	if (patch->core && (patch->decl || whole)) {
		if (patch->decl)
			patch->pinned |= READ_ONCE(patch->core->forced);
		return klpctl_core_state(patch->core, &patch->next);
	}
	target = klpctl_core_target();
	if (patch->core && patch->core == klpctl_core_in_transition() &&
	    target != KLP_TRANSITION_IDLE)
		patch->next = target ? KLPCTL_STATE_ENABLING : KLPCTL_STATE_DISABLING;
	else if (whole && (klpctl_in_transition(patch->state) || klpctl_is_enabled(patch->state)))
		patch->next = KLPCTL_STATE_DISABLED;
	return whole || patch->decl;
}

/*
 * A patch that was enabled and is not: reverted, or replaced by one that was enabled
 * after it. That becomes enabled a little later.
 */
static enum klpctl_state look_for_replacement(const struct klpctl_patch *patch)
{
	const struct klpctl_patch *other;

	list_for_each_entry(other, &patches, node) {
		if (other == patch || !other->replace || !klpctl_is_enabled(other->next) ||
		    (klpctl_is_enabled(other->state) && other->order < patch->order))
			continue;
		return other->next == KLPCTL_STATE_ENABLED ? KLPCTL_STATE_REPLACED : patch->state;
	}
	return KLPCTL_STATE_DISABLED;
}

/* What was there before klpctl is known without having been told. */
static void take_over(struct klpctl_patch *patch)
{
	patch->state = patch->next;
	patch->started = ktime_get_ns();
	if (klpctl_is_enabled(patch->state))
		patch->order = ++order;
}

/* Compare what is with what was told, and tell the difference. Whether that is all. */
static bool update(void)
{
	unsigned int counted, started = 0;
	struct klpctl_patch *patch;
	bool whole, sure;

	whole = klpctl_core_trylock();
	sure = whole && adopt();
	list_for_each_entry(patch, &patches, node)
		sure &= look_at(patch, whole);
	counted = klpctl_watch_starts();
	if (whole)
		klpctl_core_unlock();

	list_for_each_entry(patch, &patches, node) {
		if (patch->next == KLPCTL_STATE_DISABLED && klpctl_is_enabled(patch->state))
			patch->next = look_for_replacement(patch);
		else if (!whole && !patch->decl && patch->next == KLPCTL_STATE_ENABLED &&
			 look_for_replacement(patch) == KLPCTL_STATE_REPLACED)
			patch->next = KLPCTL_STATE_REPLACED;
		if (!adopted && !patch->announced && !patch->decl)
			take_over(patch);
		started += has_started(patch);
	}
	/* What nobody has told by now was missed. */
	if (sure && adopted && starts_told + started < counted - starts)
		klpctl_event_skip();
	list_for_each_entry(patch, &patches, node) {
		if (patch->announced)
			continue;
		patch->announced = true;
		klpctl_registry_tell(patch, KLPCTL_ACTION_REGISTERED, ktime_get_ns());
	}
	/*
	 * One transition at a time: what has ended, what has come and gone, whom those have
	 * replaced, what has begun. Who has been told of has nothing left to tell.
	 */
	list_for_each_entry(patch, &patches, node)
		if (klpctl_in_transition(patch->state) && !klpctl_in_transition(patch->next))
			tell_transition(patch);
	list_for_each_entry(patch, &patches, node)
		if (!klpctl_in_transition(patch->next))
			tell_transition(patch);
	list_for_each_entry(patch, &patches, node)
		if (patch->next == KLPCTL_STATE_REPLACED && patch->state != patch->next)
			tell_replaced(patch);
	list_for_each_entry(patch, &patches, node)
		tell_transition(patch);
	if (sure) {
		starts = counted;
		starts_told = 0;
		adopted = true;
	}
	return sure;
}

/* ---- following a transition ---- */

static struct klpctl_patch *find_in_transition(void)
{
	struct klpctl_patch *patch;

	list_for_each_entry(patch, &patches, node)
		if (klpctl_in_transition(patch->state))
			return patch;
	return NULL;
}

static void follow(struct klpctl_patch *patch, u64 now)
{
	struct klpctl_event event = {
		.patch = patch,
		.time = now,
		.action = KLPCTL_ACTION_PROGRESS,
		.target = patch->state == KLPCTL_STATE_ENABLING ? KLPCTL_TARGET_PATCHED :
								  KLPCTL_TARGET_UNPATCHED,
	};
	struct klpctl_tasks tasks;

	klpctl_task_count(&tasks);
	if (READ_ONCE(fast_completion) && !tasks.stuck &&
	    retries < (tasks.pending ? MOST_RETRIES : MOST_AT_END) && klpctl_core_retry()) {
		retries++;
		kicks++;
	}

	event.total = tasks.total;
	event.done = tasks.total - tasks.pending;
	if (event.done == progress || now < progressed + USUAL_MS * NSEC_PER_MSEC ||
	    !klpctl_event_wanted())
		return;
	progress = event.done;
	progressed = now;
	klpctl_event_send(&event);
}

/* Soon when something has just happened, and less often later. */
static unsigned long next_look(u64 now)
{
	u64 last = max3(newest, klpctl_watch_started(), klpctl_watch_ended());
	u64 since = (now - min(now, last)) / NSEC_PER_MSEC;
	u64 most = since < PATIENCE_MS || klpctl_event_wanted() ? USUAL_MS : LONG_MS;

	return msecs_to_jiffies(clamp(since, (u64)FIRST_MS, most));
}

static void look(struct work_struct *work)
{
	struct klpctl_patch *patch;
	bool sure;
	u64 now;

	mutex_lock(&lock);
	if (closed)
		goto unlock;
	sure = update();
	/* Not while the core is busy: it would only be woken to wait. */
	patch = sure ? find_in_transition() : NULL;
	now = ktime_get_ns();
	if (patch)
		follow(patch, now);
	if (!sure || klpctl_core_in_transition())
		queue_delayed_work(queue, &look_work, next_look(now));
unlock:
	mutex_unlock(&lock);
}

static void wake(void)
{
	mod_delayed_work(queue, &look_work, 0);
}

bool klpctl_registry_is_fast(void)
{
	return READ_ONCE(fast_completion) && klpctl_symbols.klp_transition_work;
}

/* Early retries; under klpctl_registry_lock(), and so is the next. */
u64 klpctl_registry_kicks(void)
{
	return kicks;
}

u64 klpctl_registry_reversals(void)
{
	return reversals;
}

/* ---- the list ---- */

/**
 * klpctl_registry_refresh() - see what the core says now
 *
 * Context: Process context, under klpctl_registry_lock(). May sleep.
 */
void klpctl_registry_refresh(void)
{
	if (closed)
		return;
	if (!update() || klpctl_core_in_transition())
		queue_delayed_work(queue, &look_work, msecs_to_jiffies(FIRST_MS));
}

/* Keep the list and all patches; they are then as the core says. May sleep, but never long. */
void klpctl_registry_lock(void)
{
	mutex_lock(&lock);
	klpctl_registry_refresh();
}

void klpctl_registry_unlock(void)
{
	mutex_unlock(&lock);
}

/* All patches, in the order in which they came; under klpctl_registry_lock(). */
struct list_head *klpctl_registry_list(void)
{
	return &patches;
}

/* A patch by its name, valid until klpctl_registry_unlock(); or NULL. */
struct klpctl_patch *klpctl_registry_find(const char *name)
{
	struct klpctl_patch *patch;

	list_for_each_entry(patch, &patches, node)
		if (!strcmp(patch->name, name))
			return patch;
	return NULL;
}

/**
 * klpctl_registry_add() - add a patch, which the next refresh announces
 * @name: module name
 * @decl: what its payload declares; NULL: standalone
 *
 * Context: Process context, under klpctl_registry_lock(). May sleep.
 * Return: The patch, or NULL.
 */
struct klpctl_patch *klpctl_registry_add(const char *name, const struct klp_patch *decl)
{
	struct klpctl_patch *patch = kzalloc(sizeof(*patch), GFP_KERNEL);

	if (!patch)
		return NULL;
	strscpy(patch->name, name, sizeof(patch->name));
	patch->decl = decl;
	patch->replace = decl && klpctl_replaces(decl);
	list_add_tail(&patch->node, &patches);
	return patch;
}

/**
 * klpctl_registry_del() - remove and free a patch, and tell that
 * @patch: the core does not hold it
 *
 * Context: Process context, under klpctl_registry_lock(). May sleep.
 */
void klpctl_registry_del(struct klpctl_patch *patch)
{
	list_del(&patch->node);
	if (patch->announced)
		klpctl_registry_tell(patch, KLPCTL_ACTION_UNREGISTERED, ktime_get_ns());
	if (patch->decl)
		klpctl_clone_free(patch->core);
	kfree(patch->states);
	kfree(patch);
}

/* enum klpctl_patch_flag, as bits */
u32 klpctl_registry_flags(const struct klpctl_patch *patch)
{
	return (patch->decl ? KLPCTL_PATCH_REGISTERED : 0) |
	       (patch->replace ? KLPCTL_PATCH_REPLACE : 0) |
	       (patch->pinned ? KLPCTL_PATCH_FORCED : 0);
}

/**
 * klpctl_registry_wait() - wait until a patch is not in transition
 * @name: module name
 * @timeout: in jiffies; MAX_SCHEDULE_TIMEOUT
 * @state: set to its state, with -ETIMEDOUT too
 *
 * Context: Process context. May sleep.
 * Return: 0; -ENOENT; -ETIMEDOUT; -EINTR.
 */
int klpctl_registry_wait(const char *name, long timeout, enum klpctl_state *state)
{
	struct klpctl_patch *patch;
	int seen;

	for (;;) {
		/* Read before the patch: what changes it later changes this, too. */
		seen = atomic_read(&change);

		klpctl_registry_lock();
		patch = klpctl_registry_find(name);
		if (patch)
			*state = patch->state;
		klpctl_registry_unlock();

		if (!patch)
			return -ENOENT;
		if (!klpctl_in_transition(*state))
			return 0;
		if (!timeout)
			return -ETIMEDOUT;
		timeout = wait_event_interruptible_timeout(changes, atomic_read(&change) != seen,
							   timeout);
		if (timeout < 0)
			return -EINTR;
	}
}

/**
 * klpctl_registry_init() - get ready
 *
 * Context: Process context, module_init(). May sleep.
 * Return: 0 or -ENOMEM.
 */
int __init klpctl_registry_init(void)
{
	queue = alloc_workqueue("klpctl", WQ_UNBOUND, 0);
	return queue ? 0 : -ENOMEM;
}

/* See what is there, and what happens from now on. */
void __init klpctl_registry_start(void)
{
	closed = false;
	klpctl_watch_init(wake);
	klpctl_registry_lock();
	klpctl_registry_unlock();
}

/**
 * klpctl_registry_exit() - forget all patches, tell it, and change none
 *
 * Registered ones are gone already: their modules hold this one. Whoever asks
 * afterwards is told that there is none.
 *
 * Context: Process context. May sleep.
 */
void klpctl_registry_exit(void)
{
	struct klpctl_patch *patch, *next;

	klpctl_watch_exit();
	mutex_lock(&lock);
	closed = true;
	list_for_each_entry_safe(patch, next, &patches, node)
		klpctl_registry_del(patch);
	mutex_unlock(&lock);
	cancel_delayed_work_sync(&look_work);
	destroy_workqueue(queue);
}
