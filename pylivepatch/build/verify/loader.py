# SPDX-License-Identifier: MIT
"""What the module loader makes of the sections of a module: it knows them by their names, and finds the first of each.

`find_module_sections()` in kernel/module/main.c, and `module_finalize()` in arch/x86/kernel/module.c. Of what a patch
takes from vmlinux, much has a section that only vmlinux's linker script knows.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator

from pylivepatch.build.verify import objectfile as elf
from pylivepatch.build.verify.module import Module
from pylivepatch.build.verify.objtool import ADDED

_ORDINARY = re.compile(
    r"\.(?:text|data|bss|rodata)(?:\.|\Z)|\.(?:noinstr|kprobes|sched|spinlock|irqentry|softirqentry|cpuidle|ref"
    r"|static_call|init|exit|entry)\.text(?:\.|\Z)|\.(?:init|exit)\.(?:data|rodata)\Z|\.ref\.(?:data|rodata)\Z"
    r"|\.note(?:\.|\Z)")
"""Sections that are code and data to the loader, whatever follows in their names."""

TABLES = frozenset({
    ".altinstructions", ".altinstr_replacement", ".altinstr_aux", ".parainstructions", ".smp_locks", "__bug_table",
    "__ex_table", "__jump_table", "__mcount_loc", "__dyndbg", "__dyndbg_classes", "__patchable_function_entries",
    ".printk_index", ".static_call_tramp_key", "___srcu_struct_ptrs", "__tracepoints", "__tracepoints_ptrs",
    "__tracepoints_strings", "_ftrace_events", "_ftrace_eval_map", "__bpf_raw_tp_map", "__trace_printk_fmt", "__param",
    "_kprobe_blacklist", "_error_injection_whitelist", *ADDED,
})
"""Tables that the loader, or somebody whom it tells, looks for by their names."""

_OWN = frozenset({".modinfo", "__versions", ".gnu.linkonce.this_module", ".data..percpu", ".codetag.alloc_tags"})

_SPECIAL = re.compile(r"\.data\.\.percpu.|\.data\.\.ro_after_init|\.(?:data|bss)\.\..*decrypted|\.data\.\.init_task")
"""Data that vmlinux keeps apart for a reason, and no module has."""


_KERNEL = "vmlinux"


def complaints(module: Module) -> Iterator[str]:
    """Say which sections the loader would not take for what they are."""
    file = module.file
    names = Counter(section.name for section in file.sections if section.flags & elf.ALLOC and section.type != elf.RELA)
    for section in file.sections:
        name, flags = section.name, section.flags
        if section.type == elf.RELA:
            yield from _livepatch(module, section) if flags & elf.LIVEPATCH else ()
            continue
        if (name in TABLES or name == ".rodata.klp_entries") and not flags & elf.ALLOC:
            yield f"{name} is not loaded"
        if not flags & elf.ALLOC:
            continue
        if flags & elf.WRITE and flags & elf.EXEC:
            yield f"{name} can be written to and executed"
        if flags & elf.EXEC and name in TABLES and name not in (".altinstr_replacement", ".altinstr_aux"):
            yield f"{name} can be executed"
        if name in ADDED and bool(flags & elf.WRITE) != (name == ".static_call_sites"):
            yield f"{name} can{'' if flags & elf.WRITE else 'not'} be written to"
        if section.align & (section.align - 1):
            yield f"{name} is aligned to {section.align} bytes"
        if (name in TABLES or name in _OWN) and names[name] > 1:
            yield f"there are {names[name]} sections {name}, and the loader sees the first"
            names[name] = 1
        if _SPECIAL.match(name) or not (_ORDINARY.match(name) or name in TABLES or name in _OWN):
            yield f"the module loader does not know what {name} is"
        if name in TABLES and section.type != elf.PROGBITS:
            yield f"{name} has no content"
        for rel in section.relocs:
            width = elf.WIDTHS.get(rel.type, 0)
            if rel.type != elf.NONE and (not width or rel.offset + width > section.size):
                yield f"{name} has a reference of a kind that the loader does not know, or beside it"
            elif any(section.data[rel.offset:rel.offset + width]):
                yield f"{name} has something at {rel.offset:#x} already, where the loader writes"
    for symbol in file.symbols:
        if symbol.shndx == elf.UNDEF and symbol.name and symbol.bind != 1:
            yield f"{symbol.name} is looked for in vain without an error: it is no global symbol"
        if symbol.shndx == elf.COMMON or (symbol.shndx >= 0xFF00 and symbol.shndx not in (elf.ABS, elf.KLP)):
            yield f"{symbol.name} is in no section"


def _livepatch(module: Module, section: elf.Sec) -> Iterator[str]:
    """Say what is wrong with a section of livepatch relocations."""
    target = module.file.sections[section.info].name
    match = re.fullmatch(r"\.klp\.rela\.([^.]+)\.(.+)", section.name)
    if match is None or match[2] != target:
        yield f"{section.name} is about {target}"
    if not section.flags & elf.ALLOC:
        yield f"{section.name} is not loaded"
    if match is not None and match[1] != "vmlinux" and target in TABLES:
        yield f"{section.name} is written when {match[1]} is loaded, and the kernel reads {target} before"
    for rel in module.file.sections[section.info].relocs:
        if rel.object and module.file.symbols[rel.symbol].shndx != elf.KLP:
            yield f"{section.name} refers to {module.file.symbols[rel.symbol].name or 'a section'}, which livepatch " \
                  "does not look for"
        elif rel.object and (rel.object == _KERNEL) != (module.found(rel).owner == _KERNEL):
            yield f"{section.name} refers to {module.file.symbols[rel.symbol].name}: what the kernel has and what a " \
                  "module has are not written at the same time"
