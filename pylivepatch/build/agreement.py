# SPDX-License-Identifier: MIT
"""Make sure that an object taken apart is the same code as the object that the kernel's build makes.

They may differ in one thing: a jump to a neighbour is long where it was short, and names where it leads. So every
byte is compared that the linker does not write, every reference by where it leads, and a function with such a jump
instruction by instruction.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field

import capstone

from pylivepatch.build import tables
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
from pylivepatch.build.parts import LEAD
from pylivepatch.errors import BuildError

_Place = tuple[object, int]


def check(source: str, plain: Object, named: Object) -> None:
    """Compare *named* with *plain*.

    Raises:
        BuildError: It is other code.
    """
    _Agreement(source, plain, named).run()


@dataclass(frozen=True, slots=True)
class _Defined:
    """A function or variable, and where it begins."""

    symbol: Symbol
    section: Section

    @property
    def start(self) -> int:
        return self.symbol.value

    @property
    def end(self) -> int:
        return self.symbol.value + self.symbol.size

    @property
    def facts(self) -> tuple[object, ...]:
        """What must not differ."""
        symbol, section = self.symbol, self.section
        return symbol.type, symbol.bind, symbol.other, section.name, section.type, section.flags


@dataclass(slots=True)
class _Home:
    """Where a section of the object taken apart is in the other one.

    Attributes:
        section: There.
        shift: What is to be added to an offset.
        offsets: For a function that is tied to others there, the offset of each of its instructions.
    """

    section: Section
    shift: int
    offsets: dict[int, int] = field(default_factory=dict)


class _Agreement:
    def __init__(self, source: str, plain: Object, named: Object) -> None:
        self.source, self.plain, self.named = source, plain, named
        self._homes: dict[int, _Home] = {}
        self._floating: dict[int, Section] = {}
        self._relocs = {id(section): {reloc.offset: reloc for reloc in sorted(section.relocs, key=_offset)}
                        for each in (plain, named) for section in each.sections}
        self._offsets = {key: list(relocs) for key, relocs in self._relocs.items()}

    def run(self) -> None:
        pairs = self._pair_symbols()
        starts: dict[int, set[int]] = defaultdict(set)
        for _, after in pairs:
            starts[id(after.section)].add(after.start)
        tied = {after.symbol.name: self._pair_instructions(before, after) for before, after in pairs
                if self._is_tied(before, after)}
        for before, after in pairs:
            home = self._homes.setdefault(id(after.section), _Home(before.section, before.start - after.start))
            if (home.section, home.shift) != (before.section, before.start - after.start):
                raise self._differs(after.symbol.name)
        self._pair_tables()
        for before, after in pairs:
            name, lead, end = after.symbol.name, min(after.start, LEAD), after.end
            if name in tied:
                self._same_instructions(before, after, tied[name])
                end = after.start
            elif starts[id(after.section)] == {after.start}:
                end = after.section.size
            self._same_bytes(name, before.section, before.start - lead, after.section, after.start - lead,
                             end - after.start + lead)
        self._settle()

    def _differs(self, name: str, why: str = "") -> BuildError:
        return BuildError(f"{name} of {self.source} is not the same when the assembler's input is taken apart{why}",
                          kind="compile", symbol=name, file=self.source)

    # ---- pairing ----

    def _pair_symbols(self) -> list[tuple[_Defined, _Defined]]:
        there, here = ({each.symbol.name: each for each in _defined(one)} for one in (self.plain, self.named))
        for name in there.keys() | here.keys():
            if name not in there or name not in here or there[name].facts != here[name].facts:
                raise self._differs(name)
        return [(there[name], each) for name, each in here.items()]

    def _pair_tables(self) -> None:
        """Pair what is not taken apart; both have those sections in the same order."""
        homes = {id(home.section) for home in self._homes.values()}
        split = {home.section.name for home in self._homes.values()}
        counts = [Counter(section.name for section in each.sections) for each in (self.plain, self.named)]
        split |= {name for name, count in counts[1].items() if 0 < counts[0][name] < count}  # of nothing with a name
        kept = [[section for section in each.sections if section.allocated and id(section) not in taken]
                for each, taken in ((self.plain, homes), (self.named, self._homes.keys()))]
        self._floating = {id(section): section for section in kept[1] if section.name in split}
        kept = [[section for section in each if section.name not in split] for each in kept]
        if [(one.name, one.size) for one in kept[0]] != [(one.name, one.size) for one in kept[1]]:
            raise self._differs("what is in no symbol")
        for before, after in zip(*kept, strict=True):
            self._homes[id(after)] = _Home(before, 0)
        for before, after in zip(*kept, strict=True):
            if not tables.dropped(after.name):
                self._same_bytes(after.name, before, 0, after, 0, after.size)

    def _settle(self) -> None:
        """Compare the constants without a name, whose places the references to them have told."""
        while found := [one for one in self._floating.values() if id(one) in self._homes]:
            for section in found:
                del self._floating[id(section)]
                home = self._homes[id(section)]
                self._same_bytes(section.name, home.section, home.shift, section, 0, section.size)

    # ---- places ----

    def _place(self, section: Section, reloc: Reloc) -> _Place:
        """Return where a reference of the object taken apart leads to in the other one."""
        at, _ = meant(section, reloc)
        target = reloc.symbol.section
        if target is None:
            return reloc.symbol.name, at
        return self._moved(target, reloc.symbol.value + at)

    def _moved(self, section: Section, offset: int) -> _Place:
        home = self._homes.get(id(section))
        if home is None:
            return section.name, offset
        return id(home.section), home.offsets.get(offset, offset + home.shift)

    @staticmethod
    def _there(section: Section, reloc: Reloc) -> _Place:
        at, _ = meant(section, reloc)
        target = reloc.symbol.section
        return (reloc.symbol.name, at) if target is None else (id(target), reloc.symbol.value + at)

    # ---- bytes ----

    def _same_bytes(self, name: str, before: Section, start: int, after: Section, begin: int, size: int) -> None:
        if before.type == SHT_NOBITS:
            return
        a, b = before.data[start:start + size], after.data[begin:begin + size]
        for offset, reloc in self._within(after, begin, size):
            if not self._same_reference(before, start + offset, after, reloc):
                raise self._differs(name, f": what it refers to at {offset:#x}")
            width = WIDTH.get(reloc.type, 0)
            a[offset:offset + width] = b[offset:offset + width] = bytes(width)
        known = self._relocs[id(after)]
        if a != b or any(begin + offset not in known for offset, _ in self._within(before, start, size)):
            raise self._differs(name)

    def _within(self, section: Section, start: int, size: int) -> Iterator[tuple[int, Reloc]]:
        """Yield the relocations of a part of a section, with their offsets in it."""
        offsets, relocs = self._offsets[id(section)], self._relocs[id(section)]
        for offset in offsets[bisect_left(offsets, start):bisect_left(offsets, start + size)]:
            yield offset - start, relocs[offset]

    def _same_reference(self, before: Section, at: int, after: Section, reloc: Reloc) -> bool:
        """Tell whether a reference leads to the same place, whether the assembler wrote it already or not."""
        other = self._relocs[id(before)].get(at)
        if other is not None:
            target = reloc.symbol.section
            if target is not None and id(target) in self._floating and other.symbol.section is not None:
                place = other.symbol.value + other.addend - reloc.symbol.value - reloc.addend
                self._homes.setdefault(id(target), _Home(other.symbol.section, place))
            return other.type == reloc.type and self._there(before, other) == self._place(after, reloc)
        if reloc.type not in (R_X86_64_PC32, R_X86_64_PLT32):
            return False
        written = int.from_bytes(before.data[at:at + 4], "little", signed=True)
        return (id(before), at + 4 + written) == self._place(after, reloc)

    # ---- instructions ----

    def _is_tied(self, before: _Defined, after: _Defined) -> bool:
        """Tell whether a function has a jump that the assembler made short, and with it other padding perhaps."""
        if after.symbol.type != STT_FUNC or after.section.type == SHT_NOBITS:
            return False
        a, b = (each.section.data[each.start:each.end] for each in (before, after))
        if len(a) == len(b):
            for offset, reloc in self._within(after.section, after.start, len(b)):
                width = WIDTH.get(reloc.type, 0)
                a[offset:offset + width] = b[offset:offset + width] = bytes(width)
        return a != b

    def _pair_instructions(self, before: _Defined, after: _Defined) -> list[tuple[_Insn, _Insn]]:
        """Find for each instruction of a function that is tied the one that it was, but for padding."""
        rows = [list(_decode(each)) for each in (before, after)]
        for each, row in zip((before, after), rows, strict=True):
            if not row or row[-1].at + row[-1].size != each.end:
                raise self._differs(after.symbol.name, ": it has an instruction that capstone does not know")
        if [insn.kind for insn in rows[0]] != [insn.kind for insn in rows[1]]:
            rows = [[insn for insn in row if insn.mnemonic != "nop"] for row in rows]
        if [insn.kind for insn in rows[0]] != [insn.kind for insn in rows[1]]:
            raise self._differs(after.symbol.name, ": it has other instructions")
        pairs = list(zip(*rows, strict=True))
        offsets = {new.at: old.at for old, new in pairs} | {after.end: before.end}
        self._homes[id(after.section)] = _Home(before.section, before.start - after.start, offsets)
        return pairs

    def _same_instructions(self, before: _Defined, after: _Defined, pairs: list[tuple[_Insn, _Insn]]) -> None:
        name = after.symbol.name
        for old, new in pairs:
            if not old.direct:
                self._same_bytes(name, before.section, old.at, after.section, new.at, new.size)
            elif self._leads(before.section, old, named=False) != self._leads(after.section, new, named=True):
                raise self._differs(name, f": where the jump at {new.at - after.start:#x} leads")

    def _leads(self, section: Section, insn: _Insn, *, named: bool) -> _Place:
        """Return where a direct jump or call leads, in terms of the object that is not taken apart."""
        reloc = self._relocs[id(section)].get(insn.at + insn.size - 4)
        if reloc is not None and insn.size > 4:
            return self._place(section, reloc) if named else self._there(section, reloc)
        return self._moved(section, insn.target) if named else (id(section), insn.target)


@dataclass(frozen=True, slots=True)
class _Insn:
    """An instruction, with its offset in the section; one that jumps or calls directly with the one that it names."""

    at: int
    size: int
    mnemonic: str
    direct: bool
    target: int

    @property
    def kind(self) -> tuple[str, int]:
        """What is the same in both objects."""
        return self.mnemonic, 0 if self.direct else self.size


def _decode(defined: _Defined) -> Iterator[_Insn]:
    decoder = capstone.Cs(capstone.CS_ARCH_X86, capstone.CS_MODE_64)
    code = bytes(defined.section.data[defined.start:defined.end])
    for at, size, mnemonic, operands in decoder.disasm_lite(code, defined.start):
        direct = mnemonic.rpartition(" ")[2].startswith(("j", "call", "loop")) and operands[:1].isdigit()
        yield _Insn(at, size, mnemonic, direct, int(operands, 0) if direct else 0)


def _offset(reloc: Reloc) -> int:
    return reloc.offset


def _defined(object_: Object) -> Iterator[_Defined]:
    for symbol in object_.symbols:
        section = symbol.section
        if section is not None and section.allocated and symbol.name and not tables.dropped(section.name) \
                and (symbol.type in (STT_FUNC, STT_OBJECT) or symbol.bind):
            yield _Defined(symbol, section)
