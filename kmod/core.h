/* SPDX-License-Identifier: GPL-2.0-only */
#ifndef _KLPCTL_CORE_H
#define _KLPCTL_CORE_H

#include <linux/livepatch.h>

bool klpctl_core_visible(void);
void klpctl_core_lock(void);
void klpctl_core_unlock(void);
struct klp_patch *klpctl_core_find(const char *name);
struct klp_patch *klpctl_core_get(const char *name);
bool klpctl_core_in_transition(const struct klp_patch *patch);
bool klpctl_core_clears_relocs(void);
int klpctl_core_store(struct klp_patch *patch, const char *attr, bool value);

/* All patches that the core holds; between klpctl_core_lock() and _unlock(). */
#define klpctl_core_for_each(patch) \
	list_for_each_entry(patch, klpctl_symbols.klp_patches, list)

#endif /* _KLPCTL_CORE_H */
