/* SPDX-License-Identifier: GPL-2.0-only */
#ifndef _KLPCTL_REGISTRY_H
#define _KLPCTL_REGISTRY_H

#include <linux/list.h>
#include <linux/module.h>

#include "klpctl.h"

struct device;
struct file;
struct klp_patch;
struct klp_state;

/**
 * struct klpctl_window - how long a patch may stay enabled, or take to be enabled, unasked
 * @awaited: it is reverted at the end; of what follows nothing counts otherwise
 * @deadline: the end of its transition closes the window, not a confirmation
 * @expired: the end has come
 * @owner: file whose release is the end, too; compared, never dereferenced; or NULL
 * @end: CLOCK_MONOTONIC in ns; U64_MAX: never
 */
struct klpctl_window {
	bool awaited;
	bool deadline;
	bool expired;
	const struct file *owner;
	u64 end;
};

/**
 * struct klpctl_patch - a patch that klpctl knows
 * @node: in the list of all, in the order in which they came
 * @name: module name
 * @decl: what the payload registered; NULL: a standalone patch, which enables itself
 * @states: how the payload declared its states; NULL without any
 * @core: of a registered patch the structure that the core was given last: klpctl's own.
 *	Of a standalone patch the core's, while that holds it: only compared, but under
 *	klpctl_core_trylock()
 * @has_relocs: the core has relocated the module in a way that it does not undo
 * @device: /sys/class/livepatch/<name>, kept by device.c
 * @announced: listeners know it
 * @state: as the core said last
 * @next: as it says now; while the two are being compared
 * @order: of what is enabled, in the order in which that began
 * @forced: the transition that runs was forced, and listeners know that
 * @pinned: tasks were forced to leave its code
 * @replace: it is an atomic replace
 * @started: when its transition started, CLOCK_MONOTONIC in ns
 * @window: see there
 *
 * A registered patch lives until its payload unregisters it, a standalone one until its
 * module goes. All but the content of @decl is protected by klpctl_registry_lock().
 */
struct klpctl_patch {
	struct list_head node;
	char name[MODULE_NAME_LEN];
	const struct klp_patch *decl;
	struct klp_state *states;
	struct klp_patch *core;
	bool has_relocs;
	struct device *device;
	bool announced;
	enum klpctl_state state;
	enum klpctl_state next;
	unsigned int order;
	bool forced;
	bool pinned;
	bool replace;
	u64 started;
	struct klpctl_window window;
};

static inline bool klpctl_in_transition(enum klpctl_state state)
{
	return state == KLPCTL_STATE_ENABLING || state == KLPCTL_STATE_DISABLING;
}

/* It is enabled, or about to be. */
static inline bool klpctl_is_enabled(enum klpctl_state state)
{
	return state == KLPCTL_STATE_ENABLING || state == KLPCTL_STATE_ENABLED;
}

int klpctl_registry_init(void);
void klpctl_registry_start(void);
void klpctl_registry_exit(void);

void klpctl_registry_lock(void);
void klpctl_registry_unlock(void);
struct klpctl_patch *klpctl_registry_find(const char *name);
struct klpctl_patch *klpctl_registry_add(const char *name, const struct klp_patch *decl);
void klpctl_registry_del(struct klpctl_patch *patch);
struct list_head *klpctl_registry_list(void);
void klpctl_registry_refresh(void);
void klpctl_registry_tell(struct klpctl_patch *patch, enum klpctl_action action, u64 time);
u32 klpctl_registry_flags(const struct klpctl_patch *patch);
int klpctl_registry_wait(const char *name, long timeout, enum klpctl_state *state);

bool klpctl_registry_is_fast(void);
u64 klpctl_registry_kicks(void);
u64 klpctl_registry_reversals(void);

#endif /* _KLPCTL_REGISTRY_H */
