# SPDX-License-Identifier: MIT
"""Take the changed functions out of a patched object, with what they need and nothing else.

New code calls new code. A pointer to a function that existed before leads to the original, so that it is still good
when the patch has been reverted; through the original, the call reaches the new code as long as the patch is enabled.
Data that existed before is the running kernel's own.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field

from pylivepatch.build import insn, tables
from pylivepatch.build.compare import Changes
from pylivepatch.build.elf import (
    SHF_ALLOC,
    SHF_EXECINSTR,
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
from pylivepatch.build.symbols import Symbols
from pylivepatch.errors import BuildError

_KEY_BITS, _OBJTOOL_NOPS = 3, 2


@dataclass(frozen=True, slots=True)
class Replaced:
    """A function that the patch replaces.

    Attributes:
        object: "vmlinux", or the name of a module.
        name: Its name in the running kernel.
        sympos: Which of several, from 1; 0 when there is one.
        symbol: The name of the new code in the module.
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
        callbacks: For each object and occasion the symbol of the function to call.
        states: What the patch declares with KLPCTL_STATE(): number and edition.
        new: Functions and variables that the diff adds or makes global, by object and name, with who takes them out.
    """

    object: Object = field(default_factory=Object)
    replaced: list[Replaced] = field(default_factory=list)
    added: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    callbacks: dict[tuple[str, str], str] = field(default_factory=dict)
    states: list[tuple[int, int]] = field(default_factory=list)
    new: dict[tuple[str, str], tuple[Extractor, Part]] = field(default_factory=dict)
    _undefined: dict[str, Symbol] = field(default_factory=dict)

    def undefined(self, name: str) -> Symbol:
        """Return the symbol *name* that the module loader or the livepatch core is to resolve."""
        if name not in self._undefined:
            symbol = self._undefined[name] = Symbol(name, bind=STB_GLOBAL)
            self.object.symbols.append(symbol)
        return self._undefined[name]


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
        self.into, self.owner, self.match = into, owner, match
        self.changes, self.patched, self.symbols = changes, patched, symbols
        self.source = match.source
        self.running = Running(owner, match, symbols)
        self._changed = {id(new) for _, new in changes.functions}
        self._made: dict[int, tuple[Symbol, int]] = {}
        self._tables: dict[str, Section] = {}
        self._pending: list[Part] = []
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

    def take(self, part: Part) -> Symbol:
        """Take out a part that another source refers to; one that was static is the kernel's own."""
        old = self.changes.original(part)
        symbol = self._include(part)[0] if old is None else self._original(old, part)
        self._drain()
        return symbol

    def _check_moved(self, part: Part) -> None:
        """Make sure that what seems new is not there already, from another source: its users would go on using that."""
        known = self.symbols.image(self.owner).symbols
        if any(known.is_global(part.name, place) for place in known.addresses(part.name)):
            raise BuildError(
                f"{part.name} is new in {self.source}, and {self.owner} has one from another source file",
                kind="moved", symbol=part.name, file=self.source, remedy="change it where it was, or call it otherwise")

    def _callback(self, part: Part) -> None:
        """Take out a function that klpctl/patch.h names for an occasion."""
        occasion = part.section.name.removeprefix(tables.CALLBACK)
        key = self.owner, occasion
        [ref] = part.refs
        if key in self.into.callbacks or ref.part is None:
            raise BuildError(f"{self.owner} has more than one {occasion} callback in the diff", kind="callback",
                             symbol=ref.part.name if ref.part else ref.external, file=self.source,
                             remedy="let one function do both")
        at, _ = self._include(ref.part)
        name = f"__klp_{occasion}_{len(self.into.callbacks)}"
        self.into.object.symbols.append(Symbol(name, at.value, ref.part.size, STB_GLOBAL, STT_FUNC, section=at.section))
        self.into.callbacks[key] = name

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
        symbol, _ = self._include(new)
        entry = Symbol(f"__klp_{len(self.into.replaced)}", symbol.value, new.size, STB_GLOBAL, STT_FUNC,
                       section=symbol.section)
        self.into.object.symbols.append(entry)
        self.into.replaced.append(Replaced(self.owner, found.name, found.sympos, entry.name, self.source,
                                           self.changes.first[new.name]))

    def _check_weak(self, old: Part) -> None:
        if old.name not in self.match.matched and any(symbol.bind == 2 for symbol in old.symbols):
            raise BuildError(
                f"{old.name}() of {self.source} is weak, and another one runs in this kernel", kind="weak",
                symbol=old.name, file=self.source, remedy="change the one that runs")

    # ---- parts ----

    def _include(self, part: Part) -> tuple[Symbol, int]:
        """Give *part* a place in the module; return its symbol and the offset of *part* from it."""
        if id(part) in self._made:
            return self._made[id(part)]
        if part.in_init:
            raise BuildError(
                f"the changed code refers to {part.name}, which is gone after init", kind="init", symbol=part.name,
                file=self.source, remedy="use nothing that is marked __init or __initdata")
        section = self._section(part)
        data = bytes(part.section.data[part.start - part.lead:part.start]) + part.data
        start = -(-section.size // part.align) * part.align
        if section.type != SHT_NOBITS:
            section.data += bytes(start - section.size) + data
        section.size = start + len(data)
        section.align = max(section.align, part.align)
        kind = STT_FUNC if part.is_func else STT_OBJECT
        symbol = Symbol(part.name if part.symbols else f".L{section.name}.{start:x}", start + part.lead, part.size,
                        STB_LOCAL, kind, section=section)
        if part.symbols:
            self.into.object.symbols.append(symbol)
            made = symbol, 0
        else:
            made = self._section_symbol(section), start
        self._made[id(part)] = made
        self._pending.append(part)
        if part.is_func and not part.is_cold and id(part) not in self._changed:
            self.into.added.append(part.name)
        return made

    def _section_symbol(self, section: Section) -> Symbol:
        for symbol in self.into.object.symbols:
            if symbol.section is section and symbol.is_section:
                return symbol
        symbol = Symbol("", type=3, section=section)
        self.into.object.symbols.append(symbol)
        return symbol

    def _section(self, part: Part) -> Section:
        """Return where *part* goes: functions by themselves, what has no name together."""
        old = part.section
        if part.is_string:
            return self._table(".rodata.str", SHF_ALLOC, shared=True)
        name = f".data.{part.name}" if old.name == ".data..ro_after_init" else old.name
        if name in tables.UNNAMED_CODE or name == tables.DYNAMIC_DEBUG or name.startswith(".data.."):
            return self._table(name, old.flags, shared=True)
        if part.is_func and not name.startswith(".text"):
            name = f".text.{part.name}"
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
        symbol, at = self._made[id(part)]
        assert symbol.section is not None
        start = symbol.value + at
        if not part.is_string:
            for ref in part.refs:
                self._relocate(symbol.section, start + ref.offset, ref, part)
            symbol.section.relocs.sort(key=lambda reloc: reloc.offset)
        for entry in part.entries:
            self._add_entry(part, entry, symbol.section, start)

    # ---- references ----

    def _relocate(self, section: Section, offset: int, ref: Ref, user: Part) -> None:
        symbol, at = self._target(ref, user)
        section.relocs.append(Reloc(offset, ref.type, symbol, at + ref.at - ref.bias))

    def _target(self, ref: Ref, user: Part) -> tuple[Symbol, int]:
        """Return the symbol that *ref* leads to, and where the part meant is from it."""
        part = ref.part
        if part is None:
            return self._external(ref.external), 0
        old = self.changes.original(part)
        if part.is_func and old is not None and not part.is_cold:
            if id(part) in self._changed and (ref.branch or ref.at):
                # a call, or a label inside the function
                return self._include(part)
            return self._original(old, user), 0
        if part.is_func and old is None and not (ref.branch or part is user or part.is_cold or part.is_clone):
            self.into.notes.append(f"{user.name} has the address of {part.name}(), which goes with the patch: what "
                                   "keeps it has to let go of it in a callback, before the patch is unloaded")
        if old is None or part.is_fresh or part.is_cold:
            # what is new, and what each copy of the code has for itself
            return self._include(part)
        return self._original(old, user), 0

    def _original(self, part: Part, user: Part) -> Symbol:
        """Return the symbol for what the running kernel has already."""
        name = self.running.original(part, user)
        return self._include(part)[0] if name is None else self.into.undefined(name)

    def _external(self, name: str) -> Symbol:
        """Return the symbol for what another source defines."""
        for owner in (self.owner, VMLINUX, *sorted(self.running.needed())):
            if (owner, name) in self.into.new:
                other, part = self.into.new[owner, name]
                return other.take(part)
        return self.into.undefined(self.running.external(name))

    # ---- tables ----

    def _add_entry(self, part: Part, entry: Entry, code: Section, start: int) -> None:
        if entry.table == tables.JUMPS and not self._jump_label(part, entry, code, start):
            return
        flags = SHF_ALLOC if not entry.table.startswith(".discard") else 0
        if entry.table in (tables.BUGS, tables.JUMPS):
            flags |= SHF_WRITE
        table = self._table(entry.table, flags, shared=True)
        table.align = max(table.align, 8 if entry.table in (tables.JUMPS, ".parainstructions", tables.TRACED) else 1)
        at = table.size
        table.data += entry.data
        table.size = len(table.data)
        for ref in entry.refs:
            if ref.part is part:
                # the code that it is about is the new one, whatever the reference looks like
                symbol, where = self._made[id(part)]
                table.relocs.append(Reloc(at + ref.offset, ref.type, symbol, where + ref.at - ref.bias))
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
