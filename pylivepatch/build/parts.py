# SPDX-License-Identifier: MIT
"""An object taken apart: functions, data, constants, and the table entries that belong to each function.

Nearly every symbol has a section of its own (see `assembly`); what is written in assembly is cut at the symbols.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field

from pylivepatch.build import insn, tables
from pylivepatch.build.elf import (
    R_X86_64_PC32,
    R_X86_64_PLT32,
    SHT_NOBITS,
    STT_FUNC,
    STT_OBJECT,
    WIDTH,
    Object,
    Reloc,
    Section,
    Symbol,
)
from pylivepatch.build.insn import meant

LEAD = 16
"""Bytes of padding before a function that CONFIG_CALL_PADDING asks the compiler for."""

_CHILD = re.compile(r"\.(?:cold|part|isra|constprop)\b")
_FRESH = re.compile(
    r"(?:__func__|__FUNCTION__|__PRETTY_FUNCTION__|__warned|__already_done|__key|_rs|CSWTCH|_entry|_entry_ptr"
    r"|__print_once|__ret_warn_on|___?tp_str|__already_done_bpf)\.\d+\Z")
_LITERAL = "__compound_literal."
_UNIQUE = re.compile(r"__UNIQUE_ID_|\.L|__addressable_|__PASTE")


@dataclass(eq=False, slots=True)
class Ref:
    """A reference from one part to another.

    Attributes:
        offset: Where in the part the field is.
        type: The relocation's type.
        part: What is meant, when it is in this object.
        external: The name of what is meant, when it is not.
        at: Offset of the byte meant in `part`, or from the external symbol.
        bias: What has to be subtracted from it for the relocation's addend.
        branch: Whether it is the target of a call or jump, which may go to a new function; anything else is a
            pointer, which must lead to the original.
    """

    offset: int
    type: int
    part: Part | None
    external: str
    at: int
    bias: int
    branch: bool


@dataclass(eq=False, slots=True)
class Entry:
    """An entry of one of the compiler's tables, which belongs to a function.

    Attributes:
        table: Name of the table's section.
        data: Its bytes.
        refs: Its references; the first one leads to the code that it is about.
        part: The same for code that refers to it: to what a warning says, since 7.x; None when none does.
    """

    table: str
    data: bytes
    refs: list[Ref]
    part: Part | None = None


@dataclass(eq=False, slots=True)
class Part:
    """A function, a variable, or a constant.

    Attributes:
        name: Its symbol's name, or the section's for what has no symbol.
        section: Where it stands.
        start: Offset in the section.
        size: Bytes.
        symbols: Its symbols: more than one for aliases.
        lead: Bytes of padding before it that are part of the function for the kernel.
        refs: What it refers to, by offset.
        entries: Table entries that are about it.
        entry: The table entry that it is itself.
        align: Alignment in bytes.
    """

    name: str
    section: Section
    start: int
    size: int
    symbols: list[Symbol] = field(default_factory=list)
    lead: int = 0
    refs: list[Ref] = field(default_factory=list, repr=False)
    entries: list[Entry] = field(default_factory=list, repr=False)
    entry: Entry | None = field(default=None, repr=False)
    align: int = 1

    @property
    def labels(self) -> bool:
        """Whether it is a table of places inside a function, which each copy of the function has for itself."""
        return not self.is_func and any(ref.part is not None and ref.part.is_func and ref.at for ref in self.refs)

    @property
    def data(self) -> bytes:
        """Its bytes, zeros for what has none in the file."""
        if self.section.type == SHT_NOBITS:
            return bytes(self.size)
        return bytes(self.section.data[self.start:self.start + self.size])

    @property
    def is_func(self) -> bool:
        """Whether it is a function, or the cold part of one."""
        return any(symbol.type == STT_FUNC for symbol in self.symbols)

    @property
    def is_global(self) -> bool:
        """Whether other objects can refer to it."""
        return any(symbol.bind for symbol in self.symbols)

    @property
    def is_cold(self) -> bool:
        """Whether it is the cold part of a function, which only that function jumps to."""
        return ".cold" in self.name

    @property
    def is_clone(self) -> bool:
        """Whether the compiler made it from a function, so that its calling convention and content are its own."""
        return self.is_func and _CHILD.search(self.name) is not None

    @property
    def is_string(self) -> bool:
        """Whether it is a constant that has no identity: the linker merges equal ones."""
        return self.section.merged

    @property
    def is_fresh(self) -> bool:
        """Whether each copy of the code has its own: no name, or a static local of a macro such as WARN_ONCE()."""
        return (not self.symbols or self.is_string or self.labels or self.section.name == tables.DYNAMIC_DEBUG
                or (not self.is_global and bool(_FRESH.match(self.name) or _UNIQUE.match(self.name)))
                or (self.name.startswith(_LITERAL) and not self.section.writable))

    @property
    def in_init(self) -> bool:
        """Whether the kernel frees it after init, or never has it: there is nothing to patch then."""
        return tables.is_init(self.section.name)

    @property
    def traced(self) -> bool:
        """Whether it begins with a call of the function tracer, which live patching needs."""
        return any(entry.table == tables.TRACED for entry in self.entries)


class Parts:
    """The parts of one object.

    Attributes:
        object: The object.
        all: Its parts, in the order of the file.
    """

    def __init__(self, object_: Object) -> None:
        self.object = object_
        self.all: list[Part] = []
        self._of: dict[int, list[Part]] = {}
        self._by_symbol: dict[int, Part] = {}
        self._constants: dict[tuple[int, int], Part] = {}
        self._starts = self._slices()
        for section in object_.sections:
            if section.allocated and not tables.dropped(section.name) and not tables.is_table(section.name) \
                    and not section.merged:
                self._cut(section)
        for part in list(self.all):
            part.refs = list(self._refs(part.section, part.start, part.size))
        pointed = self._pointed()
        for section in object_.sections:
            if tables.is_table(section.name):
                self._attach(section, pointed)
        self._named: dict[str, Part] = {}
        for part in self.all:
            for symbol in part.symbols:
                self._named.setdefault(symbol.name, part)

    def named(self, name: str) -> Part | None:
        """Return the part whose symbol is *name*."""
        return self._named.get(name)

    def functions(self) -> Iterator[Part]:
        """Yield the functions, cold parts included."""
        return (part for part in self.all if part.is_func)

    def _slices(self) -> dict[int, set[int]]:
        """Return where code without symbols is cut: replacements for alternatives begin where a table points."""
        starts: dict[int, set[int]] = {}
        for section in self.object.sections:
            for reloc in section.relocs:
                target = reloc.symbol.section
                if target is not None and target.name in tables.UNNAMED_CODE:
                    starts.setdefault(id(target), set()).add(meant(section, reloc)[0] + reloc.symbol.value)
        return starts

    def _cut(self, section: Section) -> None:
        parts: list[Part] = []
        marks: dict[int, Part] = {}
        for symbol in self.object.symbols:
            if symbol.section is not section or not (
                    symbol.type in (STT_FUNC, STT_OBJECT) or tables.is_set(symbol)):
                continue
            # without lockdep its keys are structs without members: objects without size
            part = marks.get(symbol.value)
            if part is None:
                part = marks[symbol.value] = Part(symbol.name, section, symbol.value, symbol.size)
                parts.append(part)
            part.size = max(part.size, symbol.size)
            part.symbols.append(symbol)
            self._by_symbol[id(symbol)] = part
        for part in parts:
            part.symbols.sort(key=lambda symbol: -symbol.bind)
            part.name = part.symbols[0].name
            alone = len(parts) == 1
            if alone:  # what the compiler gives no size for: the last member of a struct, an array of any length
                part.size = section.size - part.start
            part.align = section.align if alone else min(section.align, (part.start & -part.start) or section.align)
            if part.is_func and part.start >= LEAD and \
                    section.data[part.start - LEAD:part.start] == b"\x90" * LEAD:
                part.lead = LEAD
        parts += [Part(section.name, section, start, 0) for start in sorted(self._starts.get(id(section), ()))]
        parts.sort(key=lambda part: part.start)
        if section.name in tables.UNNAMED_CODE:
            ends = [part.start for part in parts[1:]] + [section.size]
            for part, end in zip(parts, ends, strict=True):
                part.size = max(end - part.start, 0)
        elif not parts and section.size:
            parts.append(Part(section.name, section, 0, section.size, align=section.align))
        self._of[id(section)] = parts
        self.all += parts

    def _refs(self, section: Section, start: int, size: int) -> Iterator[Ref]:
        relocs = section.relocs
        low, high = 0, len(relocs)
        while low < high:
            middle = (low + high) // 2
            if relocs[middle].offset < start:
                low = middle + 1
            else:
                high = middle
        while low < len(relocs) and relocs[low].offset < start + size:
            if relocs[low].type in WIDTH:
                yield self._ref(section, relocs[low], start)
            low += 1

    def _ref(self, section: Section, reloc: Reloc, start: int) -> Ref:
        at, bias = meant(section, reloc)
        branch = (section.executable and reloc.type in (R_X86_64_PC32, R_X86_64_PLT32)
                  and insn.is_branch(section.data, reloc.offset))
        symbol = reloc.symbol
        if symbol.section is None:
            return Ref(reloc.offset - start, reloc.type, None, symbol.name, at, bias, branch)
        offset = symbol.value + at
        part = self._by_symbol.get(id(symbol))
        if part is None:
            # the end of a string's loop may be said to be behind the string: the label tells which one is meant
            labelled = symbol.section.merged and not symbol.is_section
            part = self._at(symbol.section, symbol.value if labelled else offset)
        if part is None:
            return Ref(reloc.offset - start, reloc.type, None, "", offset, bias, branch)
        return Ref(reloc.offset - start, reloc.type, part, "", offset - part.start, bias, branch)

    def _at(self, section: Section, offset: int) -> Part | None:
        """Return the part of *section* that *offset* is meant for: the nearest one when it is between two."""
        if section.merged:
            return self._constant(section, offset)
        parts = self._of.get(id(section), [])
        found = None
        for part in parts:
            if part.start - part.lead <= offset:
                found = part
        return found or (parts[0] if parts else None)

    def _constant(self, section: Section, offset: int) -> Part:
        """Return the string or number at *offset* of a section of mergeable constants."""
        key = id(section), offset
        if key not in self._constants:
            width = section.entsize or 1
            if section.flags & 0x20:
                end = offset
                while any(section.data[end:end + width]):
                    end += width
                size = end + width - offset
            else:
                size = width - offset % width
            self._constants[key] = Part(section.name, section, offset, size, align=min(width, 16))
        return self._constants[key]

    def _pointed(self) -> dict[tuple[int, int], list[Ref]]:
        """Return what refers to entries of tables, by section and offset: code of warnings, which hands its own on."""
        ends = [(part, ref) for part in self.all for ref in part.refs if ref.part is None and not ref.external]
        found: dict[tuple[int, int], list[Ref]] = {}
        for part, ref in ends:
            reloc = next(reloc for reloc in part.section.relocs if reloc.offset == part.start + ref.offset)
            found.setdefault((id(reloc.symbol.section), ref.at), []).append(ref)
        return found

    def _attach(self, section: Section, pointed: dict[tuple[int, int], list[Ref]]) -> None:
        for start, size in tables.entries(section):
            refs = list(self._refs(section, start, size))
            entry = Entry(section.name, bytes(section.data[start:start + size]), refs)
            if tables.replaces_by_nothing(section.name, entry.data):
                _empty(refs[1])
            if users := pointed.get((id(section), start)):
                entry.part = Part(section.name, section, start, size, refs=refs, entry=entry)
                for user in users:
                    user.part, user.at = entry.part, 0
            if refs and refs[0].part is not None:
                refs[0].part.entries.append(entry)


def _empty(ref: Ref) -> None:
    """Have a reference to a replacement without bytes lead to that, and not to what happens to stand there."""
    if ref.part is not None:
        ref.part, ref.at = Part(ref.part.section.name, ref.part.section, ref.part.start + ref.at, 0), 0
