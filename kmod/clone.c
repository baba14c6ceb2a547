// SPDX-License-Identifier: GPL-2.0-only
/*
 * Copies of a payload's declaration.
 *
 * The livepatch core wants zeroed structures and keeps its own state in them,
 * so each enable gets a copy of its own and the declaration stays as written.
 */
#include <linux/kallsyms.h>
#include <linux/mm.h>
#include <linux/module.h>
#include <linux/overflow.h>
#include <linux/slab.h>

#include "clone.h"
#include "core.h"

/* sysfs would refuse a name twice, with a stack trace in the kernel log. */
static bool func_is_duplicate(const struct klp_object *obj, const struct klp_func *func)
{
	const struct klp_func *other;

	/* The core shows 0 (unique) and 1 under the same name. */
	for (other = obj->funcs; other != func; other++)
		if (!strcmp(other->old_name, func->old_name) &&
		    (other->old_sympos ?: 1) == (func->old_sympos ?: 1))
			return true;
	return false;
}

static bool object_is_duplicate(const struct klp_patch *decl, const struct klp_object *obj)
{
	const struct klp_object *other;

	for (other = decl->objs; other != obj; other++)
		if (!strcmp(other->name ?: "vmlinux", obj->name ?: "vmlinux"))
			return true;
	return false;
}

static int check_func(const struct klp_patch *decl, const struct klp_object *obj,
		      const struct klp_func *func)
{
	if (!func->old_name || !*func->old_name || strchr(func->old_name, '/') ||
	    strlen(func->old_name) >= KSYM_NAME_LEN || func->old_sympos > U32_MAX)
		return -EINVAL;
	/* Only the payload's own code: what was signed is what runs. */
	if (!within_module_core((unsigned long)func->new_func, decl->mod))
		return -EINVAL;
	return func_is_duplicate(obj, func) ? -EINVAL : 0;
}

/**
 * klpctl_clone_check() - is a declaration one that the core can take?
 * @decl: of a payload
 *
 * Refuses what klp_enable_patch() would refuse on every kernel, or would refuse
 * with a splat.
 *
 * Context: Process context.
 * Return: 0 or -EINVAL.
 */
int klpctl_clone_check(const struct klp_patch *decl)
{
	const struct klp_object *obj;
	const struct klp_func *func;
	int ret;

	if (!decl || !decl->mod || !decl->objs || !is_livepatch_module(decl->mod))
		return -EINVAL;
	if (!decl->objs->funcs && !decl->objs->name)
		return -EINVAL;

	klp_for_each_object_static(decl, obj) {
		if (!obj->funcs || object_is_duplicate(decl, obj))
			return -EINVAL;
		if (obj->name && (!*obj->name || strchr(obj->name, '/') ||
				  !strcmp(obj->name, "vmlinux") ||
				  strlen(obj->name) >= MODULE_NAME_LEN))
			return -EINVAL;
		klp_for_each_func_static(obj, func) {
			ret = check_func(decl, obj, func);
			if (ret)
				return ret;
		}
	}
	return 0;
}

/**
 * klpctl_clone_alloc() - a fresh struct klp_patch for klp_enable_patch()
 * @decl: what to copy; has passed klpctl_clone_check()
 *
 * One allocation holds the patch, its objects and its functions; what they point to
 * stays in the payload's module. The copies are of whole structures, so that a member
 * which a later kernel adds is not lost.
 *
 * Context: Process context. May sleep.
 * Return: The copy, for klpctl_clone_free(), or NULL.
 */
struct klp_patch *klpctl_clone_alloc(const struct klp_patch *decl)
{
	const struct klp_object *obj;
	const struct klp_func *func;
	struct klp_object *obj_copy;
	struct klp_func *func_copy;
	struct klp_patch *clone;
	size_t objs = 1, funcs = 0, size;

	klp_for_each_object_static(decl, obj) {
		objs++;
		klp_for_each_func_static(obj, func)
			funcs++;
		funcs++;
	}
	size = size_add(sizeof(*clone), size_add(size_mul(objs, sizeof(*obj)),
						 size_mul(funcs, sizeof(*func))));
	clone = kvzalloc(size, GFP_KERNEL);
	if (!clone)
		return NULL;

	obj_copy = (struct klp_object *)(clone + 1);
	func_copy = (struct klp_func *)(obj_copy + objs);
	*clone = *decl;
	clone->objs = obj_copy;
	klp_for_each_object_static(decl, obj) {
		*obj_copy = *obj;
		obj_copy++->funcs = func_copy;
		klp_for_each_func_static(obj, func)
			*func_copy++ = *func;
		func_copy++;	/* zeroed: the end */
	}
	return clone;
}

/**
 * klpctl_clone_free() - free a copy that the core has let go
 * @clone: from klpctl_clone_alloc(), or NULL
 *
 * Context: Process context. May sleep.
 */
void klpctl_clone_free(struct klp_patch *clone)
{
	kvfree(clone);
}

/* Sections .klp.rela.<module>.*; those for vmlinux are applied once, at load. */
static bool has_module_relocs(const struct klp_modinfo *info)
{
	unsigned int i;

	for (i = 1; i < info->hdr.e_shnum; i++) {
		const Elf_Shdr *section = info->sechdrs + i;

		if ((section->sh_flags & SHF_RELA_LIVEPATCH) &&
		    !strstarts(info->secstrings + section->sh_name, ".klp.rela.vmlinux."))
			return true;
	}
	return false;
}

/**
 * klpctl_clone_has_applied_relocs() - has the core applied relocations and left them so?
 * @clone: that the core has let go
 *
 * It applies those of a module when it initialises the object or the module comes,
 * and clears them (since 6.3) when the module goes while the patch is enabled. What
 * it does not undo is what an enable of the copy has left behind.
 *
 * Context: Process context.
 * Return: Whether the patch cannot be enabled again without being loaded again.
 */
bool klpctl_clone_has_applied_relocs(const struct klp_patch *clone)
{
	const struct klp_object *obj;

	if (!has_module_relocs(clone->mod->klp_info))
		return false;
	if (!klpctl_core_clears_relocs())
		return true;
	klp_for_each_object_static(clone, obj)
		if (obj->mod)
			return true;
	return false;
}
