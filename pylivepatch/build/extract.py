# SPDX-License-Identifier: MIT
"""Take the changed functions out of a patched object, with what they need and nothing else.

A function that existed before is reached through the original, by calls and by pointers: so they are still good when
the patch has been reverted, they get the new code as long as the patch is enabled, and that of a later patch when one
is on top. Only what may run while the patch is not enabled calls the new code itself, and so do callers of what is
called in another way. Data that existed before is the running kernel's own.
"""

from __future__ import annotations

import itertools
import struct
from dataclasses import dataclass, field

from pylivepatch.build import insn, tables
from pylivepatch.build.compare import Changes
from pylivepatch.build.elf import (
    R_X86_64_64,
    SHF_ALLOC,
    SHF_EXECINSTR,
    SHF_LINK_ORDER,
    SHF_WRITE,
    SHT_NOBITS,
    SHT_PROGBITS,
    STB_GLOBAL,
    STB_LOCAL,
    STT_FUNC,
    STT_OBJECT,
    Object,
    Reloc,
    Section,
    Symbol,
)
from pylivepatch.build.image import VMLINUX
from pylivepatch.build.parts import Entry, Part, Parts, Ref
from pylivepatch.build.running import Running
from pylivepatch.build.runpre import Match
from pylivepatch.build.symbols import Livepatch, Symbols
from pylivepatch.errors import BuildError

_KEY_BITS, _OBJTOOL_NOPS = 3, 2


@dataclass(frozen=True, slots=True)
class Replaced:
    """A function that the patch replaces.

    Attributes:
        object: "vmlinux", or the name of a module.
        name: Its name in the running kernel.
        sympos: Which of several, from 1; 0 when there is one.
        symbol: What the new code is called until the module is linked.
        source: The source file.
        first_change: Offset of the first difference in the new code.
    """

    object: str
    name: str
    sympos: int
    symbol: str
    source: str
    first_change: int


@dataclass(slots=True)
class Extract:
    """What is taken out of all the objects of a patch.

    Attributes:
        object: The relocatable object that becomes a part of the module.
        replaced: The functions that the patch replaces.
        added: Names of functions that come with it.
        notes: What a person should know.
        callbacks: For each object and occasion what the function to call is called until the module is linked.
        undefined: What is not in it, by what is meant; the symbols have no name before the module is linked.
        entries: The functions that are meant by such names. A symbol of its own for them would have objtool take them
            for other functions than those that their cold parts belong to.
        states: What the patch declares with KLPCTL_STATE(): number and edition.
        new: Functions and variables that the diff adds or makes global, by object and name, with who takes them out.
    """

    object: Object = field(default_factory=Object)
    replaced: list[Replaced] = field(default_factory=list)
    added: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    callbacks: dict[tuple[str, str], str] = field(default_factory=dict)
    entries: dict[str, str] = field(default_factory=dict)
    states: list[tuple[int, int]] = field(default_factory=list)
    new: dict[tuple[str, str], tuple[Extractor, Part]] = field(default_factory=dict)
    undefined: dict[Livepatch | str, Symbol] = field(default_factory=dict)
    _names: dict[tuple[int, str], str] = field(default_factory=dict)

    def function_name(self, source: int, name: str) -> str:
        """Return a name for a function of a source that no other source's function has here."""
        stem, cold, rest = name.partition(".cold")
        taken = set(self._names.values())
        fresh = (f"{stem}.{number}" if number else stem for number in itertools.count())
        return self._names.setdefault((source, stem), next(each for each in fresh if each not in taken)) + cold + rest

    def refer(self, meant: Livepatch | str) -> Symbol:
        """Return the symbol for what the livepatch core is to resolve, or, by its name, the module loader."""
        if meant not in self.undefined:
            self.undefined[meant] = Symbol("", bind=STB_GLOBAL)
            self.object.symbols.append(self.undefined[meant])
        return self.undefined[meant]


class Extractor:
    """Takes out of one object what changed.

    Args:
        into: Where it goes.
        owner: "vmlinux", or the name of the module that the source belongs to.
        match: Where the original is in the image.
        changes: What changed.
        patched: The patched object.
        symbols: The symbols of the kernel.
    """

    def __init__(
        self, into: Extract, owner: str, match: Match, changes: Changes, patched: Parts, symbols: Symbols,
    ) -> None:
        self.into = into
        self.owner = owner
        self.match = match
        self.changes = changes
        self.patched = patched
        self.symbols = symbols
        self.source: str = match.source
        self.running: Running = Running(owner, match, symbols)
        self._changed = {id(new) for _, new in changes.functions}
        self._made: dict[int, Symbol] = {}
        self._tables: dict[str, Section] = {}
        self._pending: list[Part] = []
        self._apart = self._running_apart()
        for part in changes.new_names(patched):
            if changes.original(part) is None:
                self._check_moved(part)
            into.new[owner, part.name] = self, part

    def run(self) -> None:
        """Take out all changed functions, and what they need.

        Raises:
            BuildError: Something cannot be patched.
        """
        for old, new in self.changes.functions:
            self._replace(old, new)
        for part in self.patched.all:
            if part.section.name == tables.STATE:
                self.into.states.append(struct.unpack("<QQ", part.data))
            elif part.section.name.startswith(tables.CALLBACK):
                self._callback(part)
        self._drain()
        self._check_tables()

    def _running_apart(self) -> set[int]:
        """Return the new code that may run while the patch is not enabled: callbacks, and what is called by pointers.

        There, the kernel's functions have their old code.
        """
        pending = [ref.part for user in self.patched.all for ref in user.refs
                   if ref.part is not None and ref.part.is_func and not (ref.branch or ref.at)]
        found: set[int] = set()
        while pending:
            part = pending.pop()
            if id(part) not in found and self.changes.original(part) is None:
                found.add(id(part))
                pending += [ref.part for ref in part.refs if ref.part is not None and ref.part.is_func]
        return found

    def take(self, part: Part) -> Symbol:
        """Take out a part that another source refers to; one that was static is the kernel's own."""
        old = self.changes.original(part)
        symbol = self._include(part) if old is None else self._running(old, part)
        self._drain()
        return symbol

    def _check_moved(self, part: Part) -> None:
        """Make sure that what seems new is not there already, from another source: its users would go on using that."""
        known = self.symbols.image(self.owner).symbols
        if any(known.is_global(part.name, place) for place in known.addresses(part.name)):
            raise BuildError(
                f"{part.name} is new in {self.source}, and {self.owner} has one from another source file",
                kind="moved", symbol=part.name, file=self.source, remedy="change it where it was, or call it otherwise")

    def _check_tables(self) -> None:
        """Make sure that nothing is said about the insides of new code in a table that is not taken along."""
        for part in self.patched.all:
            if part.labels and id(part) not in self._made:
                for ref in part.refs:
                    if ref.part is not None and ref.part.is_func and ref.at and id(ref.part) in self._made:
                        raise BuildError(
                            f"{part.section.name} has an entry about {ref.part.name}(), and nothing tells what becomes "
                            "of that in a module", kind="registration", symbol=ref.part.name, file=self.source)

    def _callback(self, part: Part) -> None:
        """Take out a function that klpctl/patch.h names for an occasion."""
        occasion = part.section.name.removeprefix(tables.CALLBACK)
        key = self.owner, occasion
        [ref] = part.refs
        if key in self.into.callbacks or ref.part is None:
            raise BuildError(f"{self.owner} has more than one {occasion} callback in the diff", kind="callback",
                             symbol=ref.part.name if ref.part else ref.external, file=self.source,
                             remedy="let one function do both")
        symbol = self._include(ref.part)
        self.into.callbacks[key] = name = f"__klp_{occasion}_{len(self.into.callbacks)}"
        self.into.entries[name] = symbol.name
        self._point_to(symbol)

    def _point_to(self, symbol: Symbol) -> None:
        """Make a pointer that objtool sees: it takes the mark of indirect branches from what nothing points to."""
        assert symbol.section is not None
        if symbol.section.data[symbol.value:symbol.value + len(insn.ENDBR)] != insn.ENDBR:
            return  # static and never pointed to: the compiler set no mark
        table = self._table(tables.ENTRIES, SHF_ALLOC, shared=True)
        table.relocs.append(Reloc(table.size, R_X86_64_64, symbol, 0))
        table.data += bytes(8)
        table.size, table.align = len(table.data), 8

    def _drain(self) -> None:
        while self._pending:
            self._fill(self._pending.pop(0))

    def _replace(self, old: Part, new: Part) -> None:
        if not old.traced:
            raise BuildError(
                f"{new.name}() cannot be traced, so that it cannot be replaced: it is notrace, noinstr or part of "
                "the tracer itself", kind="untraceable", symbol=new.name, file=self.source,
                remedy="change its callers instead")
        self._check_weak(old)
        address = self.match.require(old.name)
        found = self.symbols.at(self.owner, self.owner, old.name, address)
        assert found is not None  # require() has seen the name there
        symbol = self._include(new)
        entry = f"__klp_{len(self.into.replaced)}"
        self.into.entries[entry] = symbol.name
        self._point_to(symbol)
        self.into.replaced.append(Replaced(self.owner, found.name, found.sympos, entry, self.source,
                                           self.changes.first[new.name]))

    def _check_weak(self, old: Part) -> None:
        if old.name not in self.match.matched and any(symbol.bind == 2 for symbol in old.symbols):
            raise BuildError(
                f"{old.name}() of {self.source} is weak, and another one runs in this kernel", kind="weak",
                symbol=old.name, file=self.source, remedy="change the one that runs")

    # ---- parts ----

    def _include(self, part: Part) -> Symbol:
        """Give *part* a place in the module."""
        if id(part) in self._made:
            return self._made[id(part)]
        if part.entry is not None:
            return self._include_entry(part, part.entry)
        if part.in_init:
            raise BuildError(
                f"the changed code refers to {part.name}, which is freed after init", kind="init", symbol=part.name,
                file=self.source, remedy="use nothing that is marked __init or __initdata")
        section = self._section(part)
        data = bytes(part.section.data[part.start - part.lead:part.start]) + part.data
        start = -(-section.size // part.align) * part.align
        if section.type != SHT_NOBITS:
            section.data += bytes(start - section.size) + data
        section.size = start + len(data)
        section.align = max(section.align, part.align)
        kind = STT_FUNC if part.is_func else STT_OBJECT
        name = self.into.function_name(id(self), part.name) if part.is_func else part.name
        bind = STB_GLOBAL if section.name == tables.TRAMPOLINES else STB_LOCAL  # objtool knows no other
        symbol = self._made[id(part)] = Symbol(name, start + part.lead, part.size, bind, kind, section=section)
        if part.symbols:
            self.into.object.symbols.append(symbol)
        self._pending.append(part)
        if section.name == tables.TRAMPOLINES:
            self._include_key(part)
        elif part.is_func and not part.is_cold and id(part) not in self._changed:
            self.into.added.append(part.name)
        return symbol

    def _include_key(self, trampoline: Part) -> None:
        """Take the key of a static call along, to which only objtool makes a reference."""
        key = self.patched.named(trampoline.name.replace(tables.TRAMPOLINE, tables.KEY, 1))
        if key is None:
            raise BuildError(f"{self.source} has {trampoline.name}, and no key of that static call", kind="link",
                             symbol=trampoline.name, file=self.source)
        self._include(key)

    def _place(self, part: Part, at: int) -> tuple[Symbol, int]:
        """Return what a reference to byte *at* of a part of the module is written with: what the assembler would.

        objtool takes a reference to the symbol of a function for a call of it, and any other for a place.
        """
        symbol = self._include(part)
        if part.is_func and not part.is_cold and at == 0:
            return symbol, 0
        assert symbol.section is not None
        return self._section_symbol(symbol.section), symbol.value + at

    def _section_symbol(self, section: Section) -> Symbol:
        for symbol in self.into.object.symbols:
            if symbol.section is section and symbol.is_section:
                return symbol
        symbol = Symbol("", type=3, section=section)
        self.into.object.symbols.append(symbol)
        return symbol

    def _section(self, part: Part) -> Section:
        """Return where *part* goes: functions and variables by themselves, what has no name together."""
        old = part.section
        if part.is_string:
            return self._table(".rodata.str", SHF_ALLOC, shared=True)
        if old.name in tables.KEPT:
            return self._table(old.name, old.flags, shared=True)
        if tables.is_percpu(old.name):
            if part.align > tables.PERCPU_ALIGN:
                raise BuildError(
                    f"{part.name} is a per-CPU variable that is aligned to {part.align} bytes: the little room that "
                    "the kernel keeps for those of modules has no such place", kind="data", symbol=part.name,
                    file=self.source, remedy="align it less, or allocate it with __alloc_percpu()")
            # in a module, the kernel knows no other: the kinds of vmlinux differ in their place only
            return self._table(tables.PERCPU, old.flags, shared=True)
        kind = ".text" if part.is_func else tables.data_kind(old)
        if kind is None:
            raise BuildError(
                f"{part.name} is in {old.name}, which a module has not, or not in the sense that the kernel has it",
                kind="registration", symbol=part.name, file=self.source, remedy="make it an ordinary variable")
        name = f"{kind}.{part.name}" if part.symbols else f"{kind}.{self.owner}.{len(self.into.object.sections)}"
        section = Section(name, old.type, old.flags & (SHF_ALLOC | SHF_WRITE | SHF_EXECINSTR), align=old.align)
        self.into.object.sections.append(section)
        return section

    def _table(self, name: str, flags: int, *, shared: bool = False) -> Section:
        found = self.into.object.section(name) if shared else self._tables.get(name)
        if found is None:
            found = Section(name, SHT_PROGBITS, flags & (SHF_ALLOC | SHF_WRITE | SHF_EXECINSTR))
            self._tables[name] = found
            self.into.object.sections.append(found)
        return found

    def _fill(self, part: Part) -> None:
        """Write the relocations of a part that has its place, and take its table entries along."""
        symbol = self._made[id(part)]
        assert symbol.section is not None
        start = symbol.value
        if not part.is_string:
            for ref in part.refs:
                self._relocate(symbol.section, start + ref.offset, ref, part)
            symbol.section.relocs.sort(key=lambda reloc: reloc.offset)
        for entry in part.entries:
            if entry.part is None or id(entry.part) not in self._made:
                self._add_entry(part, entry, symbol.section, start)
        if part.lead:
            self._mark_padding(symbol.section, start - part.lead)

    def _include_entry(self, part: Part, entry: Entry) -> Symbol:
        """Take a table entry along that code refers to; the code that it is about is in the module already."""
        about = entry.refs[0].part
        assert about is not None
        code = self._made[id(about)]
        assert code.section is not None
        table = self._table(entry.table, part.section.flags, shared=True)
        self._made[id(part)] = Symbol("", table.size, section=table)
        self._add_entry(about, entry, code.section, code.value)
        return self._made[id(part)]

    def _mark_padding(self, code: Section, at: int) -> None:
        """Name the padding before a function, as the compiler does: objtool of 7.x finds it by that alone."""
        section = Section(tables.PADDING, flags=SHF_ALLOC | SHF_WRITE | SHF_LINK_ORDER, data=bytearray(8), size=8,
                          align=8, link=code)
        section.relocs.append(Reloc(0, R_X86_64_64, self._section_symbol(code), at))
        self.into.object.sections.append(section)

    # ---- references ----

    def _relocate(self, section: Section, offset: int, ref: Ref, user: Part) -> None:
        symbol, addend = self._target(ref, user)
        section.relocs.append(Reloc(offset, ref.type, symbol, addend - ref.bias))

    def _target(self, ref: Ref, user: Part) -> tuple[Symbol, int]:
        """Return the symbol that *ref* leads to, and where the byte meant is from it."""
        part = ref.part
        if part is None:
            return self._external(ref.external), ref.at
        old = self.changes.original(part)
        if part.is_func and old is not None and not part.is_cold:
            direct = part.name in self.changes.recalled or id(user) in self._apart
            if id(part) in self._changed and (ref.at or (ref.branch and direct)):
                # a label inside the function, or a call
                return self._place(part, ref.at)
            return self._running(old, user), ref.at
        if part.is_func and old is None and not (ref.branch or part is user or part.is_cold or part.is_clone
                                                 or user.name.startswith(tables.KEY)):
            self.into.notes.append(f"{user.name} has the address of {part.name}(), which goes with the patch: what "
                                   "keeps it has to release it in a callback, before the patch is unloaded")
        if old is None or part.is_fresh or part.is_cold:
            # what is new, and what each copy of the code has for itself
            return self._place(part, ref.at)
        name = self.running.original(old, user)
        return self._place(part, ref.at) if name is None else (self.into.refer(name), ref.at)

    def _running(self, old: Part, user: Part) -> Symbol:
        """Return the symbol for a function or variable that the running kernel has already."""
        name = self.running.original(old, user)
        if name is None:
            raise BuildError(f"{user.name} refers to {old.name}, which the running kernel has under no name",
                             kind="unresolved", symbol=old.name, file=self.source)
        return self.into.refer(name)

    def _external(self, name: str) -> Symbol:
        """Return the symbol for what another source defines."""
        for owner in (self.owner, VMLINUX, *sorted(self.symbols.needed(self.owner))):
            if (owner, name) in self.into.new:
                other, part = self.into.new[owner, name]
                return other.take(part)
        return self.into.refer(self.running.external(name))

    # ---- tables ----

    def _add_entry(self, part: Part, entry: Entry, code: Section, start: int) -> None:
        if entry.table == tables.JUMPS and not self._jump_label(part, entry, code, start):
            return
        if entry.table.startswith(tables.RUNTIME):
            raise BuildError(f"the kernel writes a constant into {part.name}() when it boots, and no module can have "
                             f"that ({entry.table})", kind="registration", symbol=part.name, file=self.source)
        origin = self.patched.object.section(entry.table)
        assert origin is not None
        flags = origin.flags & ~SHF_ALLOC if entry.table.startswith(".discard") else origin.flags
        table = self._table(entry.table, flags, shared=True)
        table.align = max(table.align, origin.align)
        at = table.size
        table.data += entry.data
        table.size = len(table.data)
        for ref in entry.refs:
            if ref.part is part:
                # the code that it is about is the new one; objtool wants a place to be named by the section
                table.relocs.append(Reloc(at + ref.offset, ref.type, self._section_symbol(code),
                                          start + ref.at - ref.bias))
            else:
                self._relocate(table, at + ref.offset, ref, part)

    def _jump_label(self, part: Part, entry: Entry, code: Section, start: int) -> bool:
        """Tell whether a jump label can be kept: its key must be there when the patch loads.

        A key that a module has is not. Its tracepoints stay off, their jumps become nops; that of DO_ONCE() stays.
        """
        where, _, key = entry.refs
        if (key.part is not None and self.changes.original(key.part) is None) or self.owner == VMLINUX:
            return True
        if key.part is None and self.running.owner_of(key.external) == VMLINUX:
            return True
        name = key.part.name if key.part is not None else key.external
        at = start + where.at
        if name.startswith("___once_key.") and code.data[at] in (0xEB, 0xE9) and not key.at & _OBJTOOL_NOPS:
            return False
        if not name.startswith("__tracepoint_"):
            owner = self.owner if key.part is not None else self.running.owner_of(name)
            raise BuildError(
                f"{part.name}() uses the static key {name} of the module {owner}, which is not there yet when "
                "the patch loads", kind="static-key", symbol=name, file=self.source,
                remedy="in the diff, ask static_key_enabled() instead of static_branch_*()")
        size = insn.jump_size(code.data, at)
        if key.at & _KEY_BITS and code.data[at] in (0xEB, 0xE9):
            code.data[at:at + size] = insn.NOP2 if size == 2 else insn.NOP5
            code.relocs = [reloc for reloc in code.relocs if not at <= reloc.offset < at + size]
        self.into.notes.append(f"{part.name}(): the tracepoint {name.removeprefix('__tracepoint_')} of the module "
                               f"{self.owner} stays silent in the new code")
        return False
