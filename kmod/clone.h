/* SPDX-License-Identifier: GPL-2.0-only */
#ifndef _KLPCTL_CLONE_H
#define _KLPCTL_CLONE_H

#include <linux/livepatch.h>

int klpctl_clone_check(const struct klp_patch *decl);
struct klp_patch *klpctl_clone_alloc(const struct klp_patch *decl);
void klpctl_clone_free(struct klp_patch *clone);
bool klpctl_clone_has_applied_relocs(const struct klp_patch *clone);

#endif /* _KLPCTL_CLONE_H */
