/* SPDX-License-Identifier: GPL-2.0-only */
#ifndef _KLPCTL_CORE_H
#define _KLPCTL_CORE_H

#include <linux/livepatch.h>

#include "klpctl.h"
#include "symbol.h"

bool klpctl_core_trylock(void);
void klpctl_core_unlock(void);
const struct klp_patch *klpctl_core_in_transition(void);
int klpctl_core_target(void);
bool klpctl_core_state(const struct klp_patch *patch, enum klpctl_state *state);
struct klp_patch *klpctl_core_get(const char *name);
int klpctl_core_store(const char *name, const char *attr, bool value);
bool klpctl_core_retry(void);
bool klpctl_core_clears_relocs(void);
bool klpctl_core_can_patch(void);

/* All patches that the core holds; between klpctl_core_trylock() and _unlock(). */
#define klpctl_core_for_each(patch) \
	list_for_each_entry(patch, klpctl_symbols.klp_patches, list)

#endif /* _KLPCTL_CORE_H */
