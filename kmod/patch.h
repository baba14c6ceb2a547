/* SPDX-License-Identifier: GPL-2.0-only */
#ifndef _KLPCTL_PATCH_H
#define _KLPCTL_PATCH_H

#include <linux/list.h>
#include <linux/livepatch.h>

#include "klpctl.h"

struct device;
struct file;

/**
 * struct klpctl_patch - a patch that klpctl knows
 * @node: in the list of all, in the order in which they came
 * @name: module name
 * @decl: what the payload registered; NULL: a foreign patch
 * @live: the core's structure of a registered patch, from its first enable on, also
 *	from one that failed: replaced at the next enable, when the core has let go of it
 * @device: /sys/class/livepatch/<name>; NULL when it could not be made
 * @state: as the events up to now tell
 * @flags: enum klpctl_patch_flag
 * @confirm: a confirmation is awaited; see confirm.c for this and what follows
 * @expired: nobody gave it
 * @owner: whose closing ends the wait; only compared; NULL: nobody's
 * @confirm_end: when the wait ends, CLOCK_MONOTONIC in ns
 *
 * States and what leads from one to the next:
 *
 *   registered --enable--> enabling --completed--> enabled
 *   enabled --revert--> disabling --completed--> disabled --enable--> enabling
 *   enabling <--reversed--> disabling
 *   enabled --another patch, atomic replace, completed--> replaced --enable-->
 *
 * A registered patch lives until its payload unregisters it, a foreign patch
 * until its module goes. All but @decl's content is protected by
 * klpctl_patch_lock(); @live and @decl change only under the operation mutex,
 * too.
 */
struct klpctl_patch {
	struct list_head node;
	char name[MODULE_NAME_LEN];
	const struct klp_patch *decl;
	struct klp_patch *live;
	struct device *device;
	enum klpctl_state state;
	u32 flags;
	bool confirm;
	bool expired;
	const struct file *owner;
	u64 confirm_end;
};

int klpctl_patch_init(void);
void klpctl_patch_adopt(void);
void klpctl_patch_exit(void);
void klpctl_patch_wake(void);

void klpctl_patch_lock(void);
void klpctl_patch_unlock(void);
struct klpctl_patch *klpctl_patch_find(const char *name);
struct klpctl_patch *klpctl_patch_add(const char *name, const struct klp_patch *decl,
				      enum klpctl_state state, bool replace, u64 time);
void klpctl_patch_del(struct klpctl_patch *patch);
unsigned int klpctl_patch_generation(void);
struct list_head *klpctl_patch_list(void);
static inline bool klpctl_patch_in_transition(const struct klpctl_patch *patch)
{
	return patch->state == KLPCTL_STATE_ENABLING ||
	       patch->state == KLPCTL_STATE_DISABLING;
}

int klpctl_patch_wait(const char *name, long timeout, enum klpctl_state *state);

#endif /* _KLPCTL_PATCH_H */
