# SPDX-License-Identifier: MIT
"""The module against what it must be: from the tables of the livepatch core into the code, reference by reference.

Each function of the module is laid beside the function of the reference that it claims to be. Their bytes have to be
the same but for the fields that are written at load; and each field has to lead to what it leads to in the reference:
to the module's copy of that, which is laid beside it in turn, or to the kernel's own, at the address where the code
that runs has it. In the end nothing of the module may be left over.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator

from pylivepatch.build.verify import objectfile as elf
from pylivepatch.build.verify.assembly import Atom
from pylivepatch.build.verify.closure import base
from pylivepatch.build.verify.code import Code
from pylivepatch.build.verify.glue import Row, Tables
from pylivepatch.build.verify.kernel import VMLINUX, Kernel
from pylivepatch.build.verify.located import NOPS
from pylivepatch.build.verify.meaning import ONCE, Copy, Meaning, Unit
from pylivepatch.build.verify.module import Found, Module, Place
from pylivepatch.build.verify.objectfile import Sec
from pylivepatch.build.verify.reference import Piece, Ref

_LEFT_OUT = re.compile(r"\.discard|__patchable_function_entries|\.printk_index|\.note|\.comment|\.ident|runtime_")
"""Sections of which a patch needs nothing: notes for objtool, which has read them, and for tools."""

_REPLACEMENTS = ".altinstr_replacement"
_JUMPS = "__jump_table"
_JUMP = {0xEB: 2, 0xE9: 5}
"""Bytes of a jump, by its first one."""
_NOP = 2
"""The bit of a static branch's key that tells objtool to make a nop of its jump."""

_PLAIN = re.compile(r"\.(?:data|bss|rodata)(?:[.\d_]|\Z)")
_MERGED = re.compile(r"(\.(?:text|data|bss|rodata))\.(?:\w|\.L).*\Z")
"""Sections that the linker script for modules makes one of, where it does: that of 7.x."""
_ENTRIES = frozenset({".rodata.klp_entries", ".rodata"})
"""Where pointers are that are there for objtool, by themselves or merged with other data."""
_PERCPU, _READ_ONLY_LATER = ".data..percpu", ".data..ro_after_init"


class Copies:
    """Lays the parts of a module beside those of the references.

    Args:
        module: The module.
        kernel: The kernel that it is for.
        units: The sources that it has something of.
        tables: What it tells the livepatch core.

    Attributes:
        complaints: What is wrong, in words.
        notes: What a person should know.
        functions: How many functions were compared.
        references: How many references were followed.
        meaning: Tells what a reference means, and which functions are replaced.
    """

    def __init__(self, module: Module, kernel: Kernel, units: list[Unit], tables: Tables) -> None:
        self.module = module
        self.kernel = kernel
        self.units = units
        self.tables = tables
        self.complaints: list[str] = []
        self.notes: list[str] = []
        self.functions: int = 0
        self.references: int = 0
        self.meaning: Meaning = Meaning(module, kernel, units)
        self._copies: dict[tuple[int, int], set[Place]] = defaultdict(set)
        self._owners: dict[Place, tuple[int, int]] = {}
        self._pending: list[tuple[int, Atom, Place]] = []
        self._covered: dict[int, list[tuple[int, int]]] = defaultdict(list)
        self._entries: dict[int, dict[Place, list[int]]] = {}

    def run(self) -> None:
        """Do it."""
        self.meaning.given.update(row.new for row in self.tables.rows)
        own = list(self._own())
        replacements = [copy for row in self.tables.rows for copy in self._replacement(row)]
        for copy in [*replacements, *self._callbacks(), *own]:
            self._bind(*copy)
        for place in self.meaning.given:
            self._pointers(place)
        while self._pending:
            self._lay(*self._pending.pop())

    # ---- where to begin ----

    def _replacement(self, row: Row) -> Iterator[Copy]:
        """Find the source that a replaced function is of: the one whose function is where livepatch finds it."""
        where = self.meaning.symbol(row.object, row.name, row.position)
        if isinstance(where, str):
            self._complain(f"{row.object}: {row.name}: {where}")
            return
        for number, unit in enumerate(self.units):
            if unit.object != row.object or unit.located is None or unit.closure is None:
                continue
            for old, start in unit.located.start.items():
                atom = unit.located.reference.text.atoms[old]
                label = next((name for name in atom.labels if unit.located.reference.is_func(name)), "")
                if not label or start + unit.located.reference.offset(label) != where:
                    continue
                new = unit.patched.named(label) if base(label) == label else None
                if new is None or unit.closure.number(new) != old:
                    new = next((one for one in unit.patched.text.atoms if unit.closure.number(one) == old), None)
                if new is None:
                    self._complain(f"{row.name} of {unit.source} is replaced, and the patched source does not have it")
                    return
                if old in self.meaning.replaced[number]:
                    self._complain(f"{row.object}: {row.name} is replaced twice")
                self.meaning.replaced[number].add(old)
                self._traced(unit, atom, new)
                name = next(name for name in new.labels if unit.patched.is_func(name))
                yield Copy(number, new, Place(row.new.section, row.new.offset - unit.patched.offset(name)))
                return
        self._complain(f"{row.object}: {row.name} is replaced, and no source that was compiled has it there")

    def _traced(self, unit: Unit, old: Atom, new: Atom) -> None:
        """Make sure that a function is traced, and that all its names mean one function after the diff, too."""
        assert unit.located is not None
        before, after = unit.located.reference, unit.patched
        if not any(entry.owner is old for entry in before.text.ranked("__mcount_loc")):
            self._complain(f"{old.name} of {unit.source} cannot be traced, and so not replaced")
        for name in before.text.names_of(old):
            other = after.named(name)
            if name in before.text.binding and other is not None and other is not new:
                self._complain(f"{name} is another name of {old.name} in {unit.source}, and is not after the diff")

    def _callbacks(self) -> Iterator[Copy]:
        """Find the functions that the sources name for an occasion."""
        wanted: dict[tuple[str, str], tuple[int, Ref]] = {}
        for number, unit in enumerate(self.units):
            for atom in unit.patched.text.atoms:
                if atom.section.startswith(".klpctl.") and atom.section != ".klpctl.state":
                    wanted[unit.object, atom.section[8:]] = number, unit.patched.piece(atom).refs[0]
        there = self.tables.callbacks
        for key in wanted.keys() | there.keys():
            if key not in wanted or key not in there:
                self._complain(f"the {key[1]} callback of {key[0]} is not what the sources say")
                continue
            number, ref = wanted[key]
            self.meaning.given.add(there[key])
            if isinstance(ref.target, Atom):
                yield Copy(number, ref.target, Place(there[key].section, there[key].offset - ref.delta))

    def _pointers(self, place: Place) -> None:
        """Account for pointers that are there for objtool: it seals functions to which nothing points."""
        for section in self.module.file.sections:
            if section.name in _ENTRIES and not section.flags & (elf.WRITE | elf.EXEC):
                for rel in section.relocs:
                    if rel.type == elf.ABS64 and self.module.found(rel).place == place:
                        self._cover(Place(section.index, rel.offset), elf.WIDTHS[rel.type])

    def _own(self) -> Iterator[Copy]:
        """Find what the module's own sources define, by name."""
        for number, unit in enumerate(self.units):
            if unit.object:
                continue
            for atom in unit.patched.text.atoms:
                if not atom.name or _LEFT_OUT.match(atom.section) or atom.owner is not None:
                    continue
                piece = unit.patched.piece(atom)
                offset = unit.patched.offset(atom.name)
                places = [Place(place.section, place.offset - offset) for place in self.module.symbols(atom.name)]
                same = [place for place in places if not self._differs(piece, place)]
                if len(same) == 1:
                    yield Copy(number, atom, same[0])
                else:
                    self._complain(f"{atom.name} of {unit.source} is in the module {len(same) or 'in another form'}"
                                   + (" times" if same else ""))

    # ---- what is the same ----

    def _bind(self, number: int, atom: Atom, place: Place) -> str:
        """Claim that *atom* is at *place* of the module; return what is against it."""
        if place in self._copies[number, atom.number]:
            return ""
        piece = self.units[number].patched.piece(atom)
        other = self._owners.get(place)
        if other is not None and len(piece.data) and self._writable(atom, piece):
            return f"{self.module.words(place)} is {self._called(*other)} as well"
        if self._copies[number, atom.number] and self._writable(atom, piece):
            return f"the module has {self._called(number, atom.number)} twice"
        self._copies[number, atom.number].add(place)
        if len(piece.data):
            self._owners[place] = number, atom.number
        self._pending.append((number, atom, place))
        return ""

    def _writable(self, atom: Atom, piece: Piece) -> bool:
        return bool(piece.section.flags & elf.WRITE) or atom.code

    def _called(self, number: int, atom: int) -> str:
        found = self.units[number].patched.text.atoms[atom]
        return f"{found.name or (found.labels or ['?'])[0]} of {self.units[number].source}"

    def _lay(self, number: int, atom: Atom, place: Place) -> None:
        """Compare an atom with what the module has at *place*, and follow its references."""
        unit = self.units[number]
        piece = self._piece(number, atom)
        who = self._called(number, atom.number)
        words = self._differs(piece, place) or self._misplaced(unit, piece, place)
        if words:
            self._complain(f"{who}: {words}")
            return
        section = self.module.file.sections[place.section]
        self._cover(place, len(piece.data))
        self.functions += atom.code
        found = {rel.offset - place.offset: rel for rel in section.within(place.offset, place.offset + len(piece.data))}
        for ref in piece.refs:
            self.references += 1
            rel = found.pop(ref.offset, None)
            if rel is None:
                lead = self._written(place, ref, section) if ref.resolved or ref.branch else None
            else:
                lead = self.module.found(rel, ref.bias) if self._kind(rel.type) == self._kind(ref.type) else None
            if lead is None:
                self._complain(f"{who}: at {ref.offset:#x} a reference to {self._meant(ref)} is missing, or of "
                               "another kind")
                continue
            copy = self.meaning.of(number, atom, ref, lead)
            words = self._bind(*copy) if isinstance(copy, Copy) else copy
            if words:
                self._complain(f"{who}: at {ref.offset:#x} it leads to {self._lead(lead)} instead of "
                               f"{self._meant(ref)}: {words}")
        for offset in found:
            if found[offset].type != elf.NONE:
                self._complain(f"{who}: at {offset:#x} is a reference too many, to "
                               f"{self._lead(self.module.found(found[offset]))}")
        if atom.owner is None and atom.code:
            self._tables(number, atom)
            self._key(number, atom)

    def _key(self, number: int, atom: Atom) -> None:
        """Account for the key of a static call whose trampoline the module has: only objtool refers to it."""
        key = self.units[number].patched.named(atom.name.replace("__SCT__", "__SCK__", 1))
        if atom.name.startswith("__SCT__") and key is not None:
            offset = self.units[number].patched.offset(key.name)
            for place in self.module.symbols(key.name):
                self._bind(number, key, Place(place.section, place.offset - offset))

    def _piece(self, number: int, atom: Atom) -> Piece:
        """Return what *atom* must be in the module: objtool has made nops of the jumps at branches that are off."""
        piece = self.units[number].patched.piece(atom)
        sites = [(size, at) for at, size, off in self._branches(number, atom) if off]
        if not sites:
            return piece
        data, refs = bytearray(piece.data), piece.refs
        for size, at in sites:
            data[at:at + size] = NOPS[size]
            refs = [ref for ref in refs if not at <= ref.offset < at + size]
        return Piece(atom, bytes(data), refs, piece.start, piece.section)

    def _branches(self, number: int, atom: Atom) -> Iterator[tuple[int, int, bool]]:
        """Yield each static branch in *atom*: where its jump is, how many bytes it has, whether it has to be a nop."""
        unit = self.units[number]
        top = atom.owner or atom
        for entry in unit.patched.text.ranked(_JUMPS) if atom.code else ():
            if entry.owner is top:
                site, _, key = unit.patched.piece(entry).refs
                if site.target is atom:
                    data = unit.patched.piece(atom).data
                    size = _JUMP.get(data[site.delta], 0)
                    yield site.delta, size, bool(size) and (bool(key.delta & _NOP) or self._silent(unit, key))

    def _silent(self, unit: Unit, key: Ref) -> bool:
        """Tell whether a static branch is a tracepoint's that is not there yet when the patch loads: a module's own."""
        return self._absent(unit, key) and self._meant(key).startswith("__tracepoint_")

    def _absent(self, unit: Unit, key: Ref) -> bool:
        """Tell whether a static key is in a module, so that no entry may refer to it."""
        if unit.object in ("", VMLINUX) or unit.closure is None:
            return False
        if isinstance(key.target, Atom):
            return key.target.section not in ONCE and unit.closure.original(key.target) is not None
        return isinstance(key.target, str) and self.kernel.exports.get(key.target, (unit.object, ""))[0] != VMLINUX

    def _differs(self, piece: Piece, place: Place) -> str:
        """Say how the module's bytes at *place* differ from *piece*, but for what is written at load."""
        data = self.module.at(place, len(piece.data))
        if len(data) < len(piece.data):
            return f"the module has {len(data)} bytes of {len(piece.data)}"
        own, its = bytearray(piece.data), bytearray(data)
        for ref in piece.refs:
            width = elf.WIDTHS[ref.type]
            own[ref.offset:ref.offset + width] = its[ref.offset:ref.offset + width] = bytes(width)
        if own == its:
            return ""
        offset = next(n for n, (a, b) in enumerate(zip(own, its, strict=True)) if a != b)
        return f"at {offset:#x} the module has {its[offset]:#04x} instead of {own[offset]:#04x}"

    def _misplaced(self, unit: Unit, piece: Piece, place: Place) -> str:
        """Say what is wrong with the section that an atom is in."""
        section, wanted = self.module.file.sections[place.section], piece.section
        name = section.name
        align = 1 if wanted.flags & elf.MERGE and not piece.atom.name else piece.atom.align
        if piece.data and (place.offset % align or section.align < align):
            return f"it is not aligned to {piece.atom.align} bytes"
        if not section.flags & elf.ALLOC and wanted.flags & elf.ALLOC:
            return f"{name} is not loaded"
        if bool(section.flags & elf.EXEC) != piece.atom.code:
            return f"{name} {'does not hold' if piece.atom.code else 'holds'} code"
        if not piece.atom.code and bool(section.flags & elf.WRITE) != bool(wanted.flags & elf.WRITE):
            return f"{name} can{'' if section.flags & elf.WRITE else 'not'} be written to"
        if not unit.object:
            kept = name in (wanted.name, _MERGED.sub(r"\1", wanted.name))
            return "" if kept else f"it is in {name} instead of {wanted.name}"
        if wanted.name.startswith(_PERCPU):
            return "" if name == _PERCPU else f"the module loader does not take {name} for per-CPU data"
        if piece.atom.code:
            return "" if (".text" in name and not name.startswith((".init", ".exit"))) or name == wanted.name else (
                f"{name} is not a section for code that stays")
        if not _PLAIN.match(wanted.name) or "decrypted" in wanted.name:
            return "" if name == wanted.name else f"it is in {name} instead of {wanted.name}"
        if not _PLAIN.match(name) or name.startswith((_PERCPU, _READ_ONLY_LATER)):
            return f"{name} is not a section for such data"
        return ""

    def _kind(self, type_: int) -> int:
        """Return the kind of a relocation: a call is a distance like any other."""
        return elf.PC32 if type_ == elf.PLT32 else type_

    def _written(self, place: Place, ref: Ref, section: Sec) -> Found:
        """Return what a distance that is in the module's bytes for good leads to."""
        at = place.offset + ref.offset
        far = int.from_bytes(section.data[at:at + 4], "little", signed=True)
        return Found(elf.PC32, Place(place.section, at + ref.bias + far))

    # ---- tables ----

    def _tables(self, number: int, function: Atom) -> None:
        """Find in the module the entries of all tables that are about a function."""
        for atom in self.units[number].patched.text.atoms:
            if atom.owner is function and not atom.labels and not atom.code and not _LEFT_OUT.match(atom.section):
                self._entry(number, function, atom)

    def _entry(self, number: int, function: Atom, atom: Atom) -> None:
        unit = self.units[number]
        piece = unit.patched.piece(atom)
        if atom.section == _JUMPS and self._absent(unit, piece.refs[2]):
            key = self._meant(piece.refs[2])
            if not key.startswith(("__tracepoint_", "___once_key.")):
                self._complain(f"{self._called(number, function.number)}: the static key {key} of {unit.object} is not "
                               "there when the patch loads")
            elif key.startswith("__tracepoint_"):
                self.notes.append(f"{function.name}() of {unit.source}: the tracepoint {key[13:]} stays silent")
            return
        who = f"{self._called(number, function.number)}: its entry in {atom.section}"
        first = next((ref for ref in piece.refs if isinstance(ref.target, Atom) and
                      (ref.target is function or ref.target.owner is function)), None)
        if first is None or not isinstance(first.target, Atom):
            self._complain(f"{who} is about nothing in it")
            return
        section = self.module.file.named(atom.section)
        places = [] if section is None else [
            Place(section.index, at - first.offset)
            for copy in self._copies[number, first.target.number]
            for at in self._leading(section).get(Place(copy.section, copy.offset + first.delta), ())]
        fitting = [place for place in places if not self._differs(piece, place) and not self._taken(place)]
        if not fitting:
            self._complain(f"{who} is missing")
            return
        place = fitting[0]
        self._copies[number, atom.number].add(place)
        self._lay(number, atom, place)

    def _leading(self, section: Sec) -> dict[Place, list[int]]:
        """Return the offsets in a table from which references lead to each place."""
        known = self._entries.get(section.index)
        if known is None:
            known = self._entries[section.index] = {}
            for rel in section.relocs:
                found = self.module.found(rel)
                if found.place is not None:
                    known.setdefault(found.place, []).append(rel.offset)
        return known

    def _taken(self, place: Place) -> bool:
        return any(start <= place.offset < end for start, end in self._covered[place.section])

    # ---- what came of it ----

    def has(self, number: int, atom: Atom) -> bool:
        """Tell whether the module has an atom of a source."""
        return bool(self._copies.get((number, atom.number)))

    def code(self, number: int) -> Iterator[tuple[Atom, Place]]:
        """Yield the code of a source that the module has, and where; what stands in for other code is not among it."""
        return (copy for copy in self._code(number) if copy[0].section != _REPLACEMENTS)

    def replacements(self, number: int) -> Iterator[tuple[Atom, Place]]:
        """Yield what stands in for other code on some processors."""
        return (copy for copy in self._code(number) if copy[0].section == _REPLACEMENTS)

    def _code(self, number: int) -> Iterator[tuple[Atom, Place]]:
        for (unit, atom), places in self._copies.items():
            found = self.units[unit].patched.text.atoms[atom]
            if unit == number and found.code:
                yield from ((found, place) for place in sorted(places))

    def _cover(self, place: Place, size: int) -> None:
        if size:
            self._covered[place.section].append((place.offset, place.offset + size))

    def left(self) -> Iterator[tuple[Sec, int, int]]:
        """Yield what of the module's loaded sections nothing accounts for, but for padding."""
        for section in self.module.file.sections:
            if not section.flags & elf.ALLOC or section.type in (elf.RELA, elf.NOTE):
                continue
            at = 0
            for start, end in [*sorted(self._covered[section.index]), (section.size, section.size)]:
                gap = section.data[at:start] if start > at else b""
                padding = len(gap) < max(section.align, 64) and (
                    not gap.strip(b"\0\x90\xcc") or bool(section.flags & elf.EXEC and Code(gap).idle))
                if gap and not (padding and not section.within(at, start)):
                    yield section, at, start
                at = max(at, end)

    def named(self) -> Iterator[str]:
        """Say which symbols are inside of code: livepatch takes the next symbol for the end of a function."""
        allowed: dict[int, list[tuple[int, int, set[int]]]] = defaultdict(list)
        for (number, atom), places in self._copies.items():
            unit = self.units[number]
            found = unit.patched.text.atoms[atom]
            if found.code:
                offsets = {0, *(unit.patched.offset(name) for name in unit.patched.text.names_of(found))}
                size = len(unit.patched.piece(found).data)
                for place in places:
                    allowed[place.section].append((place.offset, place.offset + size, offsets))
        for symbol in self.module.file.symbols:
            if symbol.type in (elf.SECTION, elf.FILE) or not symbol.name:
                continue
            for start, end, offsets in allowed.get(symbol.shndx, ()):
                if start <= symbol.value < end and symbol.value - start not in offsets:
                    yield f"the symbol {symbol.name} is inside of {self.module.words(Place(symbol.shndx, start))}"

    # ---- words ----

    def _complain(self, words: str) -> None:
        self.complaints.append(words)

    def _meant(self, ref: Ref) -> str:
        target = ref.target
        name = target if isinstance(target, str) else "" if target is None else target.name or (
            target.labels or [target.section])[0]
        return f"{name}{ref.delta:+#x}" if ref.delta else name

    def _lead(self, found: Found) -> str:
        return self.module.words(found.place) if found.place is not None else str(found)
