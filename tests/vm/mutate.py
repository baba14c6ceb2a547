# SPDX-License-Identifier: MIT
"""Finished modules, damaged on purpose: each mutation is one that a fault of the builder could have made.

A mutant that the checker lets pass must be the same to the kernel: `same` says why it is, from what the module loader
and the livepatch core read, and with none of the checker's code.
"""

from __future__ import annotations

import random
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TypeVar

from pylivepatch.build.elf import SHN_LIVEPATCH, SHT_NOBITS, STB_WEAK, STT_FUNC, Object, Reloc, Section, Symbol

WRITE, ALLOC, EXEC = 1, 2, 4
PC32, PLT32 = 2, 4
TABLES = {
    "__bug_table": 12, "__ex_table": 12, "__jump_table": 16, ".smp_locks": 4, ".parainstructions": 16,
    "__mcount_loc": 8, ".static_call_sites": 8, ".return_sites": 4, ".retpoline_sites": 4, ".call_sites": 4,
    ".ibt_endbr_seal": 4, ".orc_unwind_ip": 4, ".orc_unwind": 6,
}
"""Bytes of an entry. Their order does not matter to the kernel; it sorts the two of the unwind data together."""

_UNREAD = ("__patchable_function_entries", ".rodata.klp_entries")
"""The kernel reads __mcount_loc instead of the one; the other is there for objtool alone."""

_NAMES = (".data..percpu", ".data..percpu..shared_aligned", ".data..ro_after_init", ".init.data", ".init.text", ".text",
          ".rodata", ".data", "__jump_table", "__ex_table", ".x")
_T = TypeVar("_T")


class ImpossibleError(Exception):
    """This module has nothing to damage in that way."""


def _pick(dice: random.Random, things: Sequence[_T]) -> _T:
    if not things:
        raise ImpossibleError
    return dice.choice(things)


def _loaded(module: Object) -> list[Section]:
    """Return the sections that are there at run time, but for notes."""
    return [section for section in module.sections
            if section.flags & ALLOC and section.size and not section.name.startswith(".note")]


def _rows(module: Object) -> list[tuple[Section, list[Reloc], Reloc]]:
    """Return all relocations, each with its section and the table that it is in."""
    return [(section, table, reloc) for section in _loaded(module)
            for table in (section.relocs, *section.livepatch.values()) for reloc in table]


def _tables(module: Object) -> list[Section]:
    return [section for section in _loaded(module) if section.name in TABLES]


# ---- mutations ----

def drop(module: Object, dice: random.Random) -> str:
    """Leave a relocation out."""
    section, table, reloc = _pick(dice, _rows(module))
    table.remove(reloc)
    return f"{section.name}+{reloc.offset:#x}"


def shift(module: Object, dice: random.Random) -> str:
    """Move the field of a relocation."""
    section, table, reloc = _pick(dice, _rows(module))
    before, reloc.offset = reloc.offset, max(0, reloc.offset + dice.choice((-8, -4, -1, 1, 4, 8)))
    table.sort(key=lambda each: each.offset)
    return f"{section.name}+{before:#x} to {reloc.offset:#x}"


def retype(module: Object, dice: random.Random) -> str:
    """Give a relocation another type."""
    section, _, reloc = _pick(dice, _rows(module))
    before, reloc.type = reloc.type, dice.choice([kind for kind in (0, 1, 2, 4, 10, 11, 24) if kind != reloc.type])
    return f"{section.name}+{reloc.offset:#x} {before} to {reloc.type}"


def swap(module: Object, dice: random.Random) -> str:
    """Let a relocation refer to another symbol."""
    section, _, reloc = _pick(dice, _rows(module))
    before, reloc.symbol = reloc.symbol, dice.choice([each for each in module.symbols if each is not reloc.symbol])
    return f"{section.name}+{reloc.offset:#x} {before.name} to {reloc.symbol.name or reloc.symbol.section}"


def addend(module: Object, dice: random.Random) -> str:
    """Let a relocation lead a little beside."""
    section, _, reloc = _pick(dice, _rows(module))
    change = dice.choice((-16, -8, -4, -1, 1, 2, 4, 8, 16))
    reloc.addend += change
    return f"{section.name}+{reloc.offset:#x} {reloc.symbol.name} {change:+d}"


def code(module: Object, dice: random.Random) -> str:
    """Flip a bit of code."""
    section = _pick(dice, [each for each in _loaded(module) if each.flags & EXEC])
    return _flip(section, dice.randrange(section.size), dice)


def data(module: Object, dice: random.Random) -> str:
    """Flip a bit of data, or of a table."""
    section = _pick(dice, [each for each in _loaded(module) if not each.flags & EXEC and each.type != SHT_NOBITS])
    return _flip(section, dice.randrange(section.size), dice)


def unwind(module: Object, dice: random.Random) -> str:
    """Flip a bit of the unwind data."""
    section = _pick(dice, [each for each in _loaded(module) if each.name == ".orc_unwind"])
    return _flip(section, dice.randrange(section.size), dice)


def _flip(section: Section, at: int, dice: random.Random) -> str:
    bit = 1 << dice.randrange(8)
    section.data[at] ^= bit
    return f"{section.name}+{at:#x} ^ {bit:#x}"


def remove(module: Object, dice: random.Random) -> str:
    """Leave an entry of a table out."""
    section = _pick(dice, _tables(module))
    size = TABLES[section.name]
    start = dice.randrange(section.size // size) * size
    del section.data[start:start + size]
    section.size -= size
    for table in (section.relocs, *section.livepatch.values()):
        table[:] = [each for each in table if not start <= each.offset < start + size]
        for each in table:
            each.offset -= size if each.offset > start else 0
    return f"{section.name}[{start // size}]"


def double(module: Object, dice: random.Random) -> str:
    """Have an entry of a table twice."""
    section = _pick(dice, _tables(module))
    size = TABLES[section.name]
    start, end = dice.randrange(section.size // size) * size, section.size
    section.data += section.data[start:start + size]
    section.size += size
    for table in (section.relocs, *section.livepatch.values()):
        table += [Reloc(each.offset - start + end, each.type, each.symbol, each.addend) for each in table
                  if start <= each.offset < start + size]
    return f"{section.name}[{start // size}]"


def move(module: Object, dice: random.Random) -> str:
    """Let an entry of a table be about another place: that of another entry."""
    section = _pick(dice, [each for each in _tables(module) if len(each.relocs) > 1])
    one, two = dice.sample(section.relocs, 2)
    one.symbol, one.addend, two.symbol, two.addend = two.symbol, two.addend, one.symbol, one.addend
    return f"{section.name}+{one.offset:#x} and +{two.offset:#x}"


def livepatch_symbol(module: Object, dice: random.Random) -> str:
    """Let the livepatch core look for another symbol."""
    symbol = _pick(dice, [each for each in module.symbols if each.shndx == SHN_LIVEPATCH])
    before = symbol.name
    owner, _, rest = before.removeprefix(".klp.sym.").partition(".")
    name, _, position = rest.rpartition(",")
    symbol.name = dice.choice((
        f".klp.sym.{owner}.{name},{int(position) + 1}",
        f".klp.sym.{owner}.{dice.choice(('jiffies', 'schedule', 'kfree', 'vfs_read', 'init_task'))},0",
        f".klp.sym.{'ext4' if owner == 'vmlinux' else 'vmlinux'}.{name},{position}"))
    return f"{before} to {symbol.name}"


def import_(module: Object, dice: random.Random) -> str:
    """Let the module loader look for another symbol."""
    symbol = _pick(dice, _imports(module))
    before, symbol.name = symbol.name, dice.choice(("kfree", "jiffies", "vfree", "mutex_lock", "plp_nowhere"))
    return f"{before} to {symbol.name}"


def weaken(module: Object, dice: random.Random) -> str:
    """Let the module loader do without a symbol."""
    symbol = _pick(dice, _imports(module))
    symbol.bind = STB_WEAK
    return symbol.name


def _imports(module: Object) -> list[Symbol]:
    return [each for each in module.symbols if each.undefined and each.name]


def value(module: Object, dice: random.Random) -> str:
    """Let a symbol be a little beside."""
    symbol = _pick(dice, [each for each in module.symbols if each.section is not None and each.name])
    before, symbol.value = symbol.value, max(0, symbol.value + dice.choice((-8, -1, 1, 4, 8)))
    return f"{symbol.name} {before:#x} to {symbol.value:#x}"


def flags(module: Object, dice: random.Random) -> str:
    """Let a section be written to, executed or loaded, or not."""
    section = _pick(dice, _loaded(module))
    bit = dice.choice((WRITE, ALLOC, EXEC))
    section.flags ^= bit
    return f"{section.name} ^ {bit}"


def name(module: Object, dice: random.Random) -> str:
    """Give a section another name."""
    section = _pick(dice, _loaded(module))
    before, section.name = section.name, dice.choice([each for each in _NAMES if each != section.name])
    return f"{before} to {section.name}"


def align(module: Object, dice: random.Random) -> str:
    """Align a section otherwise."""
    section = _pick(dice, [each for each in _loaded(module) if each.align > 1])
    before, section.align = section.align, dice.choice((1, section.align // 2, section.align * 2))
    return f"{section.name} {before} to {section.align}"


def empty(module: Object, dice: random.Random) -> str:
    """Take the content of a section away."""
    section = _pick(dice, [each for each in _loaded(module) if each.type != SHT_NOBITS])
    section.type, section.data, section.relocs, section.livepatch = SHT_NOBITS, bytearray(), [], {}
    return section.name


def gone(module: Object, dice: random.Random) -> str:
    """Leave a whole table out."""
    section = _pick(dice, _tables(module))
    module.sections.remove(section)
    module.symbols = [each for each in module.symbols if each.section is not section]
    return section.name


def other_object(module: Object, dice: random.Random) -> str:
    """Let livepatch relocations wait for another object."""
    section, owner = _pick(dice, [(each, owner) for each in _loaded(module) for owner in each.livepatch])
    other = "ext4" if owner == "vmlinux" else "vmlinux"
    section.livepatch[other] = section.livepatch.pop(owner)
    return f"{section.name}: {owner} to {other}"


def functions(module: Object, dice: random.Random) -> str:
    """Damage the table of the functions to replace: another row, another function, one left out."""
    table = _pick(dice, [each for each in module.symbols if each.name.startswith("funcs_")])
    assert table.section is not None
    relocs = table.section.relocs
    own = [each for each in relocs if table.value <= each.offset < table.value + table.size]
    count = len(own) // 2
    if not count:
        raise ImpossibleError
    what = dice.choice(("swapped", "other", "position", "left out", "name"))
    row = dice.randrange(count)
    if what == "swapped":
        if count < 2:
            raise ImpossibleError
        one, two = dice.sample(own[1::2], 2)
        one.symbol, one.addend, two.symbol, two.addend = two.symbol, two.addend, one.symbol, one.addend
    elif what == "other":
        own[2 * row + 1].symbol = dice.choice([each for each in module.symbols if each.type == STT_FUNC
                                               and each.section is not None])
    elif what == "position":
        table.section.data[own[2 * row].offset + 16] ^= dice.choice((1, 2, 3))
    elif what == "name":
        own[2 * row].addend += dice.choice((-1, 1, 3))
    else:
        size = table.size // (count + 1)
        for each in own[2 * row:2 * row + 2]:
            relocs.remove(each)
        for each in own[2 * row + 2:]:
            each.offset -= size
    return f"{what}, row {row}"


MUTATIONS: Mapping[str, Callable[[Object, random.Random], str]] = {
    each.__name__.strip("_"): each for each in (
        drop, shift, retype, swap, addend, code, data, unwind, remove, double, move, livepatch_symbol, import_, weaken,
        value, flags, name, align, empty, gone, other_object, functions)
}


def mutants(original: bytes, dice: random.Random, count: int, kinds: Sequence[str] = ()) -> Iterator[
        tuple[str, str, bytes]]:
    """Yield *count* damaged modules: what kind of damage it is, what it is exactly, and the file."""
    whole = Object.parse(original).pack()
    made = 0
    while made < count:
        kind = dice.choice(kinds or list(MUTATIONS))
        module = Object.parse(original)
        try:
            what = MUTATIONS[kind](module, dice)
        except ImpossibleError:
            continue
        damaged = module.pack()
        if damaged != whole:
            made += 1
            yield kind, what, damaged


# ---- what is the same to the kernel ----

def same(original: bytes, mutant: bytes, unaligned: Callable[[str, int], bool]) -> str:
    """Say why a mutant is the same module to the kernel; "" when it is not.

    Args:
        original: The module as it was built.
        mutant: What was made of it.
        unaligned: Tells whether the kernel's own build aligns sections of a name to no more than so many bytes.
    """
    one, two = (Object.parse(each) for each in (original, mutant))
    if _view(one) != _view(two):
        return ""
    reason = "the loader sees the same"
    before, after = ([each for each in module.sections if each.flags & ALLOC] for module in (one, two))
    for old, new in zip(before, after, strict=True):
        if new.align % old.align:
            if not unaligned(new.name, new.align):
                return ""
            reason = "not aligned by the kernel's own build either"
        elif new.align != old.align:
            reason = "a stricter alignment"
    return reason


def _view(module: Object) -> object:
    """Return what the loader and the livepatch core make of a module, alignment apart."""
    sections = []
    for section in module.sections:
        if not section.flags & ALLOC or section.name.startswith(".note") or section.name in _UNREAD:
            continue
        fields = [*((row, "") for row in section.relocs),
                  *((row, owner) for owner, table in section.livepatch.items() for row in table)]
        leads = sorted((row.offset, PC32 if row.type == PLT32 else row.type, _meant(row), owner)
                       for row, owner in fields if row.type)
        content: object = bytes(section.data) or bytes(section.size), leads
        size = TABLES.get(section.name, 0)
        if size:
            entries = [(bytes(section.data[at:at + size]),
                        tuple((offset - at, *rest) for offset, *rest in leads if at <= offset < at + size))
                       for at in range(0, section.size, size)]
            other = module.section(".orc_unwind")
            if section.name == ".orc_unwind_ip" and other is not None:
                entries = [(*entry, bytes(other.data[6 * at:6 * at + 6])) for at, entry in enumerate(entries)]
            content = Counter(entries)
        sections.append((section.name, section.flags & 7, section.size, content))
    inside = sorted((symbol.section.name, symbol.value) for symbol in module.symbols
                    if symbol.name and symbol.section is not None and symbol.section.flags & EXEC)
    return sections, inside


def _meant(row: Reloc) -> tuple[str, int]:
    symbol = row.symbol
    if symbol.section is not None:
        return f"[{symbol.section.name}]", symbol.value + row.addend
    weak = "weak " if symbol.bind == STB_WEAK else ""
    return f"{weak}{symbol.shndx} {symbol.name}", row.addend


def alignments(objects: Sequence[bytes]) -> Callable[[str, int], bool]:
    """Return what tells whether the kernel's own build asks for no more alignment: from what its assembler made."""
    most: dict[str, int] = {}
    for each in objects:
        for section in Object.parse(each).sections:
            most[section.name] = max(most.get(section.name, 1), section.align)

    def unaligned(name: str, size: int) -> bool:
        # strings are read byte by byte
        return bool(re.match(r"\.rodata\.str", name)) or most.get(name, 1) <= size

    return unaligned
