// SPDX-License-Identifier: MIT
/* Kernel modules, by libkmod: insert, probe, remove. */
#include <errno.h>
#include <libkmod.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include "klpctl.h"
#include "plp.h"

/* libkmod writes to stderr by default: a library has no business there. */
static void log_drop(void *data, int priority, const char *file, int line,
		     const char *fn, const char *format, va_list args)
{
	(void)data;
	(void)priority;
	(void)file;
	(void)line;
	(void)fn;
	(void)format;
	(void)args;
}

static int ctx_open(struct kmod_ctx **ctx)
{
	*ctx = kmod_new(NULL, NULL);
	if (!*ctx)
		return -ENOMEM;
	kmod_set_log_fn(*ctx, log_drop, NULL);
	return 0;
}

/*
 * No module has a name with a dot or a slash. libkmod cuts a name at the first
 * dot and the kernel cuts a long one: both would then act on another module.
 */
static int name_check(const char *name)
{
	if (strlen(name) > KLPCTL_NAME_LEN)
		return -ENAMETOOLONG;
	return !*name || strpbrk(name, "./") ? -ENOENT : 0;
}

/* Insert by name, after what modules.dep says comes first; 0 if it is there. */
static int name_probe(struct kmod_ctx *ctx, const char *name)
{
	struct kmod_module *mod;
	int ret;

	ret = name_check(name);
	if (ret)
		return ret;
	ret = kmod_module_new_from_name(ctx, name, &mod);
	if (ret < 0)
		return ret;
	/* A module inserted by path is loaded although modules.dep lacks it. */
	switch (kmod_module_get_initstate(mod)) {
	case KMOD_MODULE_LIVE:
	case KMOD_MODULE_COMING:
	case KMOD_MODULE_BUILTIN:
		ret = 0;
		break;
	default:
		ret = kmod_module_probe_insert_module(mod, 0, NULL, NULL, NULL, NULL);
		break;
	}
	kmod_module_unref(mod);
	return ret;
}

/* Each module of @names, which are separated by commas. */
static int names_probe(struct kmod_ctx *ctx, const char *names)
{
	char *copy = strdup(names);
	char *save = NULL;
	char *name;
	int ret = 0;

	if (!copy)
		return -ENOMEM;
	for (name = strtok_r(copy, ",", &save); name && !ret; name = strtok_r(NULL, ",", &save)) {
		ret = name_probe(ctx, name);
		/* Or it would read as if the module itself were missing. */
		if (ret == -ENOENT)
			ret = -ELIBACC;
	}
	free(copy);
	return ret;
}

/* The modules that @mod, a file outside modules.dep, depends on. */
static int depends_probe(struct kmod_ctx *ctx, const struct kmod_module *mod)
{
	struct kmod_list *info = NULL;
	struct kmod_list *entry;
	int ret;

	ret = kmod_module_get_info(mod, &info);
	/* ENOENT, ENODATA in libkmod 34: an ELF file without modinfo; EINVAL: empty, cut or damaged. */
	if (ret == -ENOENT || ret == -ENODATA || ret == -EINVAL)
		return -ENOEXEC;
	if (ret < 0)
		return ret;
	ret = 0;
	kmod_list_foreach(entry, info) {
		if (strcmp(kmod_module_info_get_key(entry), "depends") == 0)
			ret = names_probe(ctx, kmod_module_info_get_value(entry));
		if (ret)
			break;
	}
	kmod_module_info_free_list(info);
	return ret;
}

int plp_module_insert(const char *path, const char *options)
{
	struct kmod_ctx *ctx;
	struct kmod_module *mod;
	int ret;

	ret = ctx_open(&ctx);
	if (ret)
		return ret;
	ret = kmod_module_new_from_path(ctx, path, &mod);
	if (ret < 0)
		goto close_ctx;
	ret = depends_probe(ctx, mod);
	if (!ret)
		ret = kmod_module_insert_module(mod, 0, options);
	kmod_module_unref(mod);
close_ctx:
	kmod_unref(ctx);
	return ret;
}

int plp_module_probe(const char *name)
{
	struct kmod_ctx *ctx;
	int ret;

	ret = ctx_open(&ctx);
	if (ret)
		return ret;
	ret = name_probe(ctx, name);
	kmod_unref(ctx);
	return ret;
}

int plp_module_remove(const char *name)
{
	struct kmod_ctx *ctx;
	struct kmod_module *mod;
	int ret;

	ret = name_check(name);
	if (ret)
		return ret;
	ret = ctx_open(&ctx);
	if (ret)
		return ret;
	ret = kmod_module_new_from_name(ctx, name, &mod);
	if (ret < 0)
		goto close_ctx;
	/* No flag: libkmod adds O_NONBLOCK, never KMOD_REMOVE_FORCE. */
	ret = kmod_module_remove_module(mod, 0);
	kmod_module_unref(mod);
close_ctx:
	kmod_unref(ctx);
	return ret;
}
