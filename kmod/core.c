// SPDX-License-Identifier: GPL-2.0-only
/* The kernel's livepatch core, as far as klpctl looks into it. */
#include <linux/mutex.h>
#include <linux/sysfs.h>

#include "core.h"
#include "symbol.h"

/**
 * klpctl_core_visible() - can the core's own list of patches be read?
 *
 * Without it foreign patches are known by their events alone.
 *
 * Context: Any.
 * Return: Whether klpctl_core_lock() and what needs it may be used.
 */
bool klpctl_core_visible(void)
{
	return klpctl_symbols.klp_mutex && klpctl_symbols.klp_patches &&
	       klpctl_symbols.klp_transition_patch;
}

/**
 * klpctl_core_lock() - keep the core's patches and its transition as they are
 *
 * Context: Process context, klpctl_core_visible(). May sleep, for as long as a
 * callback of a patch takes. Innermost of klpctl's mutexes.
 */
void klpctl_core_lock(void)
{
	mutex_lock(klpctl_symbols.klp_mutex);
}

/**
 * klpctl_core_unlock() - undo klpctl_core_lock()
 *
 * Context: Process context.
 */
void klpctl_core_unlock(void)
{
	mutex_unlock(klpctl_symbols.klp_mutex);
}

/**
 * klpctl_core_find() - find a patch that the core holds
 * @name: module name
 *
 * Context: Process context, under klpctl_core_lock().
 * Return: The patch, or NULL; valid until klpctl_core_unlock().
 */
struct klp_patch *klpctl_core_find(const char *name)
{
	struct klp_patch *patch;

	klpctl_core_for_each(patch)
		if (!strcmp(patch->mod->name, name))
			return patch;
	return NULL;
}

/**
 * klpctl_core_get() - find a patch that the core holds, and keep it
 * @name: module name
 *
 * The reference is on the patch's kobject. klp_free_patch_finish() waits for its
 * release before it lets the module go, so the patch stays valid, though
 * it may be disabled in the meantime.
 *
 * Context: Process context, klpctl_core_visible(). May sleep.
 * Return: The patch, for kobject_put(), or NULL.
 */
struct klp_patch *klpctl_core_get(const char *name)
{
	struct klp_patch *patch;

	klpctl_core_lock();
	/* On the list, the core still has its own reference: klp_free_patch_start(). */
	patch = klpctl_core_find(name);
	if (patch)
		kobject_get(&patch->kobj);
	klpctl_core_unlock();
	return patch;
}

/**
 * klpctl_core_in_transition() - is this the patch in transition?
 * @patch: only compared; NULL for any
 *
 * Context: Process context, under klpctl_core_lock().
 * Return: Whether it is.
 */
bool klpctl_core_in_transition(const struct klp_patch *patch)
{
	const struct klp_patch *now = *klpctl_symbols.klp_transition_patch;

	return patch ? now == patch : now != NULL;
}

/**
 * klpctl_core_clears_relocs() - are relocations for modules undone?
 *
 * 0c05e7bd2d01 ("livepatch,x86: Clear relocation targets on a module removal"), 6.3.
 *
 * Context: Any.
 * Return: Whether the module that they are for can come again.
 */
bool klpctl_core_clears_relocs(void)
{
	return klpctl_symbols.clear_relocate_add;
}

/**
 * klpctl_core_store() - write to a sysfs attribute of a patch
 * @patch: its kobject has been initialised by the core and is kept by the caller
 * @attr: "enabled" or "force"
 * @value: what to write
 *
 * What "echo 0 > /sys/kernel/livepatch/<patch>/enabled" does, without the file.
 * The core decides under its own lock, so a patch that has changed since the
 * caller looked gives -EINVAL.
 *
 * Context: Process context. May sleep.
 * Return: 0; -EBUSY another patch is in transition; -EINVAL the patch is in that
 * state already; -EOPNOTSUPP the attribute is not there.
 */
int klpctl_core_store(struct klp_patch *patch, const char *attr, bool value)
{
	const struct kobj_type *ktype = patch->kobj.ktype;
	const struct attribute_group **group;
	struct attribute **at;
	ssize_t ret;

	for (group = ktype->default_groups; group && *group; group++) {
		for (at = (*group)->attrs; at && *at; at++) {
			if (strcmp((*at)->name, attr))
				continue;
			ret = ktype->sysfs_ops->store(&patch->kobj, *at,
						      value ? "1" : "0", 1);
			return ret < 0 ? ret : 0;
		}
	}
	return -EOPNOTSUPP;
}
