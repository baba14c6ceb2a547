/* SPDX-License-Identifier: GPL-2.0-only */
#ifndef _KLPCTL_TRANSITION_H
#define _KLPCTL_TRANSITION_H

#include <linux/module.h>
#include <linux/types.h>

#include "klpctl.h"

struct klp_patch;

/**
 * struct klpctl_transition - the running transition, or one thing that it did
 * @name: of the patch
 * @time: CLOCK_MONOTONIC in ns: of the start, or of what it did
 * @action: what it did
 * @target: where it leads
 * @replace: the patch is an atomic replace
 */
struct klpctl_transition {
	char name[MODULE_NAME_LEN];
	u64 time;
	enum klpctl_action action;
	enum klpctl_target target;
	bool replace;
};

void klpctl_transition_init(void);
void klpctl_transition_exit(void);
void klpctl_transition_adopt(const struct klp_patch *patch);
bool klpctl_transition_watched(void);
u64 klpctl_transition_reversals(void);
bool klpctl_transition_running(struct klpctl_transition *transition);
bool klpctl_transition_next(struct klpctl_transition *done, bool *lost);

#endif /* _KLPCTL_TRANSITION_H */
