// SPDX-License-Identifier: GPL-2.0-only
/*
 * Addresses of what the kernel does not export.
 *
 * register_kprobe() resolves a name before it looks what lies there, and leaves the
 * address in the probe when it then refuses to put a probe on data. So an address
 * can be had without calling kallsyms_lookup_name(), which is not exported since 5.7
 * (0bd476e6c671) and whose ENDBR is sealed on IBT kernels since 5.18 (89bc853eae4a):
 * an indirect call to it would end in a fault there.
 */
#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include <linux/cache.h>
#include <linux/errno.h>
#include <linux/kprobes.h>
#include <linux/printk.h>

#include "symbol.h"

struct klpctl_symbols klpctl_symbols __ro_after_init;

/**
 * klpctl_symbol_find() - the address of a symbol of the kernel
 * @name: of the symbol
 *
 * Context: Process context, module_init(). May sleep.
 * Return: The address, behind the ENDBR of a function that has one; or NULL.
 */
void *__init klpctl_symbol_find(const char *name)
{
	struct kprobe probe = {
		.symbol_name = name,
		.flags = KPROBE_FLAG_DISABLED,	/* text is not changed */
	};
	int ret = register_kprobe(&probe);
	void *addr = probe.addr;

	if (!ret)
		unregister_kprobe(&probe);
	return addr;
}

static int __init find_needed(void *at, const char *name)
{
	void *addr = klpctl_symbol_find(name);

	if (!addr) {
		pr_err("this kernel has no symbol %s (CONFIG_KPROBES, CONFIG_KALLSYMS_ALL): the state of patches cannot be read\n",
		       name);
		return -EOPNOTSUPP;
	}
	*(void **)at = addr;
	return 0;
}

/**
 * klpctl_symbol_init() - look up what the kernel does not export
 *
 * Context: Process context, module_init(). May sleep.
 * Return: 0; -EOPNOTSUPP when something is not there that klpctl cannot do without.
 */
int __init klpctl_symbol_init(void)
{
	struct klpctl_symbols *s = &klpctl_symbols;

	s->klp_transition_work = klpctl_symbol_find("klp_transition_work");
	s->ftrace_enabled = klpctl_symbol_find("ftrace_enabled");
	s->clear_relocate_add = klpctl_symbol_find("clear_relocate_add");
	return find_needed(&s->klp_mutex, "klp_mutex") ?:
	       find_needed(&s->klp_patches, "klp_patches") ?:
	       find_needed(&s->klp_transition_patch, "klp_transition_patch") ?:
	       find_needed(&s->klp_target_state, "klp_target_state");
}
