// SPDX-License-Identifier: GPL-2.0-only
/* A device for each patch, /sys/class/livepatch/<name>, for udev. */
#include <linux/device.h>
#include <linux/err.h>
#include <linux/slab.h>

#include "compat.h"
#include "device.h"
#include "event.h"
#include "patch.h"

static struct class *class;

static const char *const action_names[] = {
	[KLPCTL_ACTION_REGISTERED]	= "registered",
	[KLPCTL_ACTION_STARTED]		= "started",
	[KLPCTL_ACTION_REVERSED]	= "reversed",
	[KLPCTL_ACTION_FORCED]		= "forced",
	[KLPCTL_ACTION_COMPLETED]	= "completed",
	[KLPCTL_ACTION_REPLACED]	= "replaced",
	[KLPCTL_ACTION_UNREGISTERED]	= "unregistered",
	[KLPCTL_ACTION_CONFIRMED]	= "confirmed",
	[KLPCTL_ACTION_EXPIRED]		= "expired",
};

static const char *const state_names[] = {
	[KLPCTL_STATE_REGISTERED]	= "registered",
	[KLPCTL_STATE_ENABLING]		= "enabling",
	[KLPCTL_STATE_ENABLED]		= "enabled",
	[KLPCTL_STATE_DISABLING]	= "disabling",
	[KLPCTL_STATE_DISABLED]		= "disabled",
	[KLPCTL_STATE_REPLACED]		= "replaced",
};

static const char *const target_names[] = {
	[KLPCTL_TARGET_UNPATCHED]	= "unpatched",
	[KLPCTL_TARGET_PATCHED]		= "patched",
};

/**
 * klpctl_device_init() - make the class
 *
 * Context: Process context, module_init(). May sleep.
 * Return: 0 or -errno.
 */
int __init klpctl_device_init(void)
{
	class = klpctl_class_create("livepatch");
	return PTR_ERR_OR_ZERO(class);
}

/**
 * klpctl_device_exit() - undo klpctl_device_init()
 *
 * Context: Process context, when all devices are gone. May sleep.
 */
void klpctl_device_exit(void)
{
	class_destroy(class);
}

static void release(struct device *device)
{
	kfree(device);
}

/**
 * klpctl_device_add() - make the device of a patch, without a uevent
 * @name: of the patch
 *
 * Context: Process context. May sleep.
 * Return: The device, for klpctl_device_del(), or NULL: a patch can do without.
 */
struct device *klpctl_device_add(const char *name)
{
	struct device *device = kzalloc(sizeof(*device), GFP_KERNEL);

	if (!device)
		return NULL;
	device_initialize(device);
	device->class = class;
	device->release = release;
	/* The uevents of device_add() and device_del() would lack the event. */
	dev_set_uevent_suppress(device, true);
	if (dev_set_name(device, "%s", name) || device_add(device)) {
		put_device(device);
		return NULL;
	}
	dev_set_uevent_suppress(device, false);
	return device;
}

/**
 * klpctl_device_del() - undo klpctl_device_add(), without a uevent
 * @device: or NULL
 *
 * Context: Process context. May sleep.
 */
void klpctl_device_del(struct device *device)
{
	if (!device)
		return;
	dev_set_uevent_suppress(device, true);
	device_unregister(device);
}

/**
 * klpctl_device_event() - send an event as a uevent of its patch's device
 * @event: what happened
 *
 * Context: Process context, under klpctl_patch_lock(). May sleep.
 */
void klpctl_device_event(const struct klpctl_event *event)
{
	const struct klpctl_patch *patch = event->patch;
	char name[sizeof("LIVEPATCH_NAME=") + MODULE_NAME_LEN];
	char seq[40], time[40], flags[32], action[40], state[40], target[40];
	char *env[] = { name, seq, time, flags, action, state, NULL, NULL };
	enum kobject_action kind = KOBJ_CHANGE;

	if (!patch->device)
		return;

	snprintf(name, sizeof(name), "LIVEPATCH_NAME=%s", patch->name);
	snprintf(seq, sizeof(seq), "LIVEPATCH_SEQ=%llu", event->seq);
	snprintf(time, sizeof(time), "LIVEPATCH_TIME=%llu", event->time);
	snprintf(flags, sizeof(flags), "LIVEPATCH_FLAGS=%u", patch->flags);
	snprintf(action, sizeof(action), "LIVEPATCH_ACTION=%s",
		 action_names[event->action]);
	snprintf(state, sizeof(state), "LIVEPATCH_STATE=%s",
		 state_names[patch->state]);
	if (klpctl_event_has_target(event)) {
		snprintf(target, sizeof(target), "LIVEPATCH_TARGET=%s",
			 target_names[event->target]);
		env[ARRAY_SIZE(env) - 2] = target;
	}

	if (event->action == KLPCTL_ACTION_REGISTERED)
		kind = KOBJ_ADD;
	else if (event->action == KLPCTL_ACTION_UNREGISTERED)
		kind = KOBJ_REMOVE;
	kobject_uevent_env(&patch->device->kobj, kind, env);
}
