// SPDX-License-Identifier: GPL-2.0-only
/*
 * Commit-confirm: a patch that nobody confirms is taken back.
 *
 * A patch that awaits confirmation expires when its window ends, or when the
 * descriptor that owns it is closed: by a crash, by kill -9, or on purpose. Who
 * enabled the patch need not be there any more. It is then reverted like by
 * anybody else, in mid-transition too, and again and again while another patch
 * is in transition.
 *
 * What is awaited ends with the patch's being enabled: reverted or replaced,
 * whoever did that, it is forgotten.
 */
#include <linux/jiffies.h>
#include <linux/ktime.h>
#include <linux/limits.h>
#include <linux/math64.h>
#include <linux/minmax.h>
#include <linux/string.h>
#include <linux/workqueue.h>

#include "confirm.h"
#include "event.h"
#include "klpctl.h"
#include "operation.h"
#include "patch.h"

#define RETRY_MS 100

static void expire(struct work_struct *work);
static DECLARE_DELAYED_WORK(expire_work, expire);

static void again(u64 after_ns)
{
	mod_delayed_work(system_unbound_wq, &expire_work, nsecs_to_jiffies(after_ns) + 1);
}

/*
 * The next patch to be reverted: the patch in transition first, since it keeps all
 * others from being reverted; then the newest, as patches are taken off a stack.
 * Without one, come back when the first one expires.
 */
static bool find_expired(char name[MODULE_NAME_LEN])
{
	struct klpctl_patch *patch, *next = NULL;
	u64 now = ktime_get_ns(), left = U64_MAX;

	klpctl_patch_lock();
	list_for_each_entry_reverse(patch, klpctl_patch_list(), node) {
		if (!patch->confirm)
			continue;
		if (patch->confirm_end > now) {
			left = min(left, patch->confirm_end - now);
			continue;
		}
		if (!patch->expired)
			klpctl_event_send(patch, KLPCTL_ACTION_EXPIRED, now, 0);
		patch->expired = true;
		if (!next || klpctl_patch_in_transition(patch))
			next = patch;
	}
	/* Under the lock: or it would put off what has been made due since. */
	if (next)
		strscpy(name, next->name, MODULE_NAME_LEN);
	else if (left != U64_MAX)
		again(left);
	klpctl_patch_unlock();
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

	ret = klpctl_operation_expire(name, &why);
	if (!ret || ret == -EALREADY) {
		klpctl_patch_lock();
		patch = klpctl_patch_find(name);
		if (patch && patch->expired)
			klpctl_confirm_forget(patch);
		klpctl_patch_unlock();
	}
	again(ret && ret != -EALREADY ? RETRY_MS * (u64)NSEC_PER_MSEC : 0);
}

/**
 * klpctl_confirm_exit() - stop
 *
 * Context: Process context; no patch is registered any more. May sleep.
 */
void klpctl_confirm_exit(void)
{
	cancel_delayed_work_sync(&expire_work);
}

/**
 * klpctl_confirm_await() - revert a patch unless it is confirmed
 * @patch: that was just enabled
 * @from: when the window starts, CLOCK_MONOTONIC in ns
 * @confirm_ms: how long it is; KLPCTL_WAIT_FOREVER
 * @owner: revert when this is closed; NULL: nobody owns it
 *
 * Context: Process context, under klpctl_patch_lock().
 */
void klpctl_confirm_await(struct klpctl_patch *patch, u64 from, u32 confirm_ms,
			  const struct file *owner)
{
	patch->confirm = true;
	patch->expired = false;
	patch->owner = owner;
	patch->confirm_end = confirm_ms == KLPCTL_WAIT_FOREVER ? U64_MAX :
			     from + confirm_ms * (u64)NSEC_PER_MSEC;
	again(0);
}

/**
 * klpctl_confirm_forget() - nothing is awaited any more
 * @patch: of which
 *
 * Context: Process context, under klpctl_patch_lock().
 */
void klpctl_confirm_forget(struct klpctl_patch *patch)
{
	patch->confirm = false;
	patch->expired = false;
	patch->owner = NULL;
}

/**
 * klpctl_confirm() - the patch may stay
 * @name: module name
 *
 * Context: Process context. May sleep.
 * Return: 0; -ENOENT no such patch; -EINVAL no confirmation is awaited, or it has
 * expired; -EBUSY the patch is still in transition.
 */
int klpctl_confirm(const char *name)
{
	struct klpctl_patch *patch;
	int ret = 0;

	klpctl_patch_lock();
	patch = klpctl_patch_find(name);
	if (!patch)
		ret = -ENOENT;
	else if (!patch->confirm || patch->expired)
		ret = -EINVAL;
	else if (klpctl_patch_in_transition(patch))
		ret = -EBUSY;
	if (!ret) {
		klpctl_confirm_forget(patch);
		klpctl_event_send(patch, KLPCTL_ACTION_CONFIRMED, ktime_get_ns(), 0);
	}
	klpctl_patch_unlock();
	return ret;
}

/**
 * klpctl_confirm_abandon() - a descriptor is closed
 * @owner: of the patches to be reverted
 *
 * Context: Process context. May sleep, but not for long: the reverting is left to
 * a work item.
 */
void klpctl_confirm_abandon(const struct file *owner)
{
	struct klpctl_patch *patch;
	bool any = false;

	klpctl_patch_lock();
	list_for_each_entry(patch, klpctl_patch_list(), node) {
		if (!patch->confirm || patch->owner != owner)
			continue;
		patch->confirm_end = 0;
		patch->owner = NULL;
		any = true;
	}
	klpctl_patch_unlock();
	if (any)
		again(0);
}
