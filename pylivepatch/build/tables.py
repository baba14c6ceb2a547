# SPDX-License-Identifier: MIT
"""The tables that the compiler and the kernel's macros fill beside the code, and what becomes of each.

Entries of the tables in `SIZES` go where their function goes. objtool makes its own anew when the patch module is
linked. Everything else that is neither code nor data of the C language registers something when the kernel boots
or a module loads: a patch cannot do that afterwards.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from pylivepatch.build.elf import SHT_NOBITS, Object, Section, Symbol

TRAMPOLINES = ".static_call.text"
"""Code that static calls go through: objtool knows it by the section."""
TRAMPOLINE, KEY = "__SCT__", "__SCK__"
"""What the names of a static call begin with: that of its code, and that of the variable with what it calls."""

JUMP_TABLES = frozenset({".rodata..c_jump_table", ".data.rel.ro.c_jump_table"})
"""Where objtool looks for the places that a jump through a table leads to."""

DYNAMIC_DEBUG = "__dyndbg"
TRACED = "__mcount_loc"
JUMPS = "__jump_table"
BUGS = "__bug_table"
PADDING = "__patchable_function_entries"
ALTERNATIVES = ".altinstructions"
REPLACEMENTS = ".altinstr_replacement"
DETOURS = ".altinstr_aux"

UNNAMED_CODE = frozenset({REPLACEMENTS, DETOURS})
"""Code that no symbol names."""

KEPT = UNNAMED_CODE | JUMP_TABLES | {DYNAMIC_DEBUG, TRAMPOLINES}
"""Sections that mean something by their name in a module, too."""

SIZES = {
    "__ex_table": 12,
    JUMPS: 16,
    ".smp_locks": 4,
    ".parainstructions": 16,
    TRACED: 8,
}
"""Bytes of an entry, where they do not depend on the kernel."""

BTF_IDS = ".BTF_ids"
"""Sets of types and functions, for BPF: their numbers are written when vmlinux or a module has been linked."""
_BTF_ID = re.compile(r"(__BTF_ID__\w+?__)\d+")

INFO = ".modinfo"

BUG_LINE = slice(-4, -2)
"""Where an entry of the bug table has its line number: behind four bytes for each reference, and before its flags."""

_DROPPED = re.compile(
    r"__patchable_function_entries|\.printk_index|\.discard\.addressable|\.orc_|\.return_sites|\.retpoline_sites"
    r"|\.call_sites|\.ibt_endbr_seal|\.static_call_sites|\.comment|\.note|\.BTF(?:\.|\Z)|\.debug|\.eh_frame|\.llvm"
    r"|\.discard\.ksym|\.gnu\.|\.modinfo|__versions|__tracepoint_check")
_INIT = re.compile(r"\.(?:init|exit|meminit|devinit|cpuinit)(?:\.|\Z)|\.initcall|\.exitcall|\.con_initcall")
_DATA = re.compile(r"\.(?:data|bss|rodata|ref\.data|ref\.rodata|lbss|ldata|tbss|kstrtab)(?:[.\d_]|\Z)"
                   r"|\.text|\.(?:sched|kprobes|softirqentry|irqentry|cpuidle|noinstr|spinlock|entry|ref)\.text"
                   r"|\.(?:meminit|text\.)|__dyndbg|\.altinstr_")
_EXPORT = re.compile(r"_+ksymtab|_*kcrctab|_*kstrtab|__export_symbol|\.export_symbol")


CALLBACKS = ("pre_patch", "post_patch", "pre_unpatch", "post_unpatch")
"""Occasions for which a diff can name a function, through klpctl/patch.h."""

CALLBACK, STATE = ".klpctl.", ".klpctl.state"

RUNTIME = ("runtime_ptr_", "runtime_shift_")
"""Places in the code of vmlinux into which the kernel writes constants when it boots; see `assembly.for_module`."""

ENTRIES = ".rodata.klp_entries"
"""Pointers to what the livepatch core calls, for objtool."""

PERCPU = ".data..percpu"
PERCPU_ALIGN = 1024
"""The widest alignment that per-CPU variables of modules can count on: all of them share 8 KiB."""

_PLAIN = re.compile(r"\.(?:data|bss|rodata)(?:\.[^.]|\Z)"
                    r"|\.data\.\.(?:read_mostly|ro_after_init|cacheline_aligned|page_aligned)|\.bss\.\.page_aligned|\.ref\.(?:ro)?data|\.data\.once|\.data\.\.once")


def is_percpu(name: str) -> bool:
    """Tell whether a section has variables of which each processor has its own."""
    return name.startswith(PERCPU) and "decrypted" not in name


def data_kind(section: Section) -> str | None:
    """Return the kind of section that data of *section* goes to in a module; None when it would not be the same."""
    if not _PLAIN.match(section.name):
        return None
    if section.type == SHT_NOBITS:
        return ".bss"
    return ".data" if section.writable else ".rodata"


def dropped(name: str) -> bool:
    """Tell whether a section is of no use in a patch, or is made anew when the module is linked."""
    return bool(_DROPPED.match(name))


def is_table(name: str) -> bool:
    """Tell whether a section's entries go where the function goes that they are about."""
    return (name in SIZES or name in (ALTERNATIVES, BUGS) or name.startswith(RUNTIME)
            or (name.startswith(".discard") and not dropped(name)))


def is_set(symbol: Symbol) -> bool:
    """Tell whether a symbol is that of a set of BTF ids, which has no type of its own."""
    return bool(symbol.section and symbol.section.name == BTF_IDS and symbol.name
                and not _BTF_ID.fullmatch(symbol.name))


def ids(object_: Object) -> list[tuple[str, bytes]]:
    """Return the sets of BTF ids, by what the elements stand for, each with what follows until the next."""
    section = object_.section(BTF_IDS)
    if section is None:
        return []
    marks = sorted((symbol.value, _BTF_ID.sub(r"\1", symbol.name)) for symbol in object_.symbols
                   if symbol.section is section and symbol.name)
    ends = [*(start for start, _ in marks[1:]), section.size]
    return [(name, bytes(section.data[start:end])) for (start, name), end in zip(marks, ends, strict=True)]


def is_init(name: str) -> bool:
    """Tell whether a section is freed after init, or never there."""
    return bool(_INIT.match(name))


def is_export(name: str) -> bool:
    """Tell whether a section exports symbols to modules."""
    return bool(_EXPORT.match(name))


def registers(name: str) -> bool:
    """Tell whether what stands in a section is found by the kernel through the section itself."""
    other = is_table(name) or dropped(name) or is_init(name) or is_export(name) or name.startswith(CALLBACK)
    return not (other or _DATA.match(name))


def replaces_by_nothing(table: str, entry: bytes) -> bool:
    """Tell whether an entry of a table is of an alternative that takes code away: its last byte is the new length."""
    return table == ALTERNATIVES and not entry[-1]


def entries(section: Section) -> Iterator[tuple[int, int]]:
    """Yield where the entries of a table begin, and their sizes."""
    if section.name == ALTERNATIVES:
        # two references each: 12 bytes up to 6.2, 14 since
        starts = [reloc.offset for reloc in section.relocs[::2]]
        size = starts[1] - starts[0] if len(starts) > 1 else section.size
    elif section.name == BUGS:
        # what is no reference is line and flags; of references there are two, and three where the format is one (7.x)
        count = (section.size - 4 * len(section.relocs)) // 4
        size = section.size // max(count, 1)
        starts = list(range(0, section.size, size or 1))
    elif section.name in SIZES:
        size = SIZES[section.name]
        starts = list(range(0, section.size, size))
    else:
        size = section.size // max(len(section.relocs), 1)
        starts = [reloc.offset for reloc in section.relocs]
    for start in starts:
        yield start, min(size, section.size - start)
