// SPDX-License-Identifier: GPL-2.0-only
/* A device for each patch, /sys/class/livepatch/<name>, for udev: events as uevents. */
#include <linux/device.h>
#include <linux/err.h>
#include <linux/sched.h>

#include "compat.h"
#include "device.h"
#include "event.h"
#include "registry.h"

static struct class *class;

/* What is being sent, and by whom: uevents that others make carry nothing of this. */
static const struct klpctl_event *sending;
static const struct task_struct *sender;

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

static int add_variables(klpctl_uevent_device *device, struct kobj_uevent_env *env)
{
	const struct klpctl_event *event = sending;

	if (READ_ONCE(sender) != current)
		return 0;
	return add_uevent_var(env, "LIVEPATCH_NAME=%s", event->patch->name) ?:
	       add_uevent_var(env, "LIVEPATCH_SEQ=%llu", event->seq) ?:
	       add_uevent_var(env, "LIVEPATCH_TIME=%llu", event->time) ?:
	       add_uevent_var(env, "LIVEPATCH_FLAGS=%u", klpctl_registry_flags(event->patch)) ?:
	       add_uevent_var(env, "LIVEPATCH_ACTION=%s", action_names[event->action]) ?:
	       add_uevent_var(env, "LIVEPATCH_STATE=%s", state_names[event->patch->state]) ?:
	       (klpctl_event_has_target(event) ?
		add_uevent_var(env, "LIVEPATCH_TARGET=%s", target_names[event->target]) : 0);
}

/* A patch can do without its device. */
static void send_uevent(const struct klpctl_event *event)
{
	struct klpctl_patch *patch = event->patch;
	struct device *device = patch->device;

	sending = event;
	WRITE_ONCE(sender, current);
	if (event->action == KLPCTL_ACTION_REGISTERED) {
		device = device_create(class, NULL, MKDEV(0, 0), NULL, "%s", patch->name);
		patch->device = IS_ERR(device) ? NULL : device;
	} else if (event->action == KLPCTL_ACTION_UNREGISTERED) {
		if (device)
			device_unregister(device);
		patch->device = NULL;
	} else if (device) {
		kobject_uevent(&device->kobj, KOBJ_CHANGE);
	}
	WRITE_ONCE(sender, NULL);
}

static struct klpctl_event_sink sink = { .send = send_uevent };

/**
 * klpctl_device_init() - make the class
 *
 * Context: Process context, module_init(). May sleep.
 * Return: 0 or -errno.
 */
int __init klpctl_device_init(void)
{
	class = klpctl_class_create("livepatch");
	if (IS_ERR(class))
		return PTR_ERR(class);
	class->dev_uevent = add_variables;
	klpctl_event_add_sink(&sink);
	return 0;
}

/* When all devices are gone. */
void klpctl_device_exit(void)
{
	class_destroy(class);
}
