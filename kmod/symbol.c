// SPDX-License-Identifier: GPL-2.0-only
#include <linux/cache.h>
#include <linux/kprobes.h>

#include "symbol.h"

struct klpctl_symbols klpctl_symbols __ro_after_init;

/*
 * How: register_kprobe() resolves a name before it looks what lies there, and leaves
 * the address in the probe when it then refuses to put a probe on data. So an
 * address can be had without calling kallsyms_lookup_name(), which is not
 * exported since 5.7 (0bd476e6c671) and whose ENDBR is sealed on IBT kernels
 * since 5.18 (89bc853eae4a): an indirect call to it would end in a fault there.
 */
/**
 * klpctl_symbol_find() - the address of a symbol of the kernel
 * @name: of it
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

/**
 * klpctl_symbol_init() - look up what the kernel does not export
 *
 * Cannot fail: what is not found stays NULL.
 *
 * Context: Process context, module_init(). May sleep.
 */
void __init klpctl_symbol_init(void)
{
	klpctl_symbols.klp_mutex = klpctl_symbol_find("klp_mutex");
	klpctl_symbols.klp_patches = klpctl_symbol_find("klp_patches");
	klpctl_symbols.klp_transition_patch = klpctl_symbol_find("klp_transition_patch");
	klpctl_symbols.klp_transition_work = klpctl_symbol_find("klp_transition_work");
	klpctl_symbols.clear_relocate_add = klpctl_symbol_find("clear_relocate_add");
}
