/* SPDX-License-Identifier: GPL-2.0-only */
#ifndef _KLPCTL_SYMBOL_H
#define _KLPCTL_SYMBOL_H

struct delayed_work;
struct klp_patch;
struct list_head;
struct mutex;

/* What klpctl needs of the kernel and the kernel does not export. */
struct klpctl_symbols {
	/* Without these the state of a patch cannot be told, and klpctl is not loaded. */
	struct mutex *klp_mutex;
	struct list_head *klp_patches;
	struct klp_patch **klp_transition_patch;
	int *klp_target_state;
	/* Each of these may be NULL; who uses it says what is lost without it. */
	struct delayed_work *klp_transition_work;
	const int *ftrace_enabled;
	const void *clear_relocate_add;		/* only whether it is there */
};

extern struct klpctl_symbols klpctl_symbols;

int klpctl_symbol_init(void);
void *klpctl_symbol_find(const char *name);

#endif /* _KLPCTL_SYMBOL_H */
