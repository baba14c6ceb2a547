# SPDX-License-Identifier: MIT
"""What the kernel's own build makes of a source, with what each reference means: the measure of everything else.

The compiler's assembly is assembled in three layouts. Layout 0 is the object of the kernel's own build, byte for byte:
it is compared with the image that runs. The other two have padding between the atoms; how far a reference moves from
the one to the other tells which atom is meant. In both, jumps from one function to another are long, as they are in a
patch.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass, field

from pylivepatch.build.verify import objectfile as elf
from pylivepatch.build.verify.assembly import END, MARK, Assembly, Atom
from pylivepatch.build.verify.code import Code
from pylivepatch.build.verify.objectfile import ObjectFile, Rel, Sec
from pylivepatch.errors import BuildError


@dataclass(frozen=True, slots=True)
class Ref:
    """A reference.

    Attributes:
        offset: Where its field is in the atom.
        type: The relocation's type.
        target: The atom that is meant; a name, when it is not of this source; None when nothing is.
        delta: Which byte of it.
        bias: Bytes from the field to what its distance is measured from, the end of the instruction.
        branch: Whether it is the target of a call or jump.
        resolved: Whether the assembler has written it for good: a jump within the section.
    """

    offset: int
    type: int
    target: Atom | str | None
    delta: int
    bias: int
    branch: bool
    resolved: bool = False


@dataclass(slots=True)
class Piece:
    """An atom in an object.

    Attributes:
        atom: The atom.
        data: Its bytes.
        refs: Its references, by offset.
        start: Offset of its first byte in the section.
        section: Its section there.
    """

    atom: Atom
    data: bytes = field(repr=False)
    refs: list[Ref] = field(repr=False)
    start: int
    section: Sec


class Reference:
    """A source as the kernel's own build makes it.

    Args:
        source: Its name, for messages.
        text: What the compiler wrote.
        objects: What the assembler makes of it in layout 1 and 2, and in layout 0 where that is asked for.

    Attributes:
        source: Its name.
        text: The assembly, in atoms.
        apart: The object with its atoms apart from each other.
    """

    def __init__(self, source: str, text: Assembly, objects: Sequence[bytes]) -> None:
        self.source = source
        self.text = text
        self.apart: ObjectFile
        self.apart, self._wide, *plain = (ObjectFile.parse(data, source) for data in objects)
        self._plain = plain[0] if plain else None
        self._spans = {factor: self._marks(object_) for factor, object_ in enumerate([*plain, self.apart, self._wide],
                                                                                      1 - len(plain))}
        self._offsets = {symbol.name: (symbol.shndx, symbol.value) for symbol in self.apart.symbols
                         if symbol.name and symbol.shndx not in (elf.UNDEF, elf.ABS)}
        self._alike()
        self._pieces: dict[int, Piece] = {}
        self._plains: dict[int, Piece] = {}
        self._sites: dict[int, list[int]] = {}
        self._types = {symbol.name: symbol.type for symbol in self.apart.symbols}

    @property
    def plain(self) -> ObjectFile:
        """The object of the kernel's own build."""
        assert self._plain is not None
        return self._plain

    # ---- what there is ----

    def named(self, name: str) -> Atom | None:
        """Return the atom that has the symbol *name*."""
        while name in self.text.aliases:
            name = self.text.aliases[name]
        return self.text.names.get(name)

    def offset(self, name: str) -> int:
        """Return where the symbol *name* is in its atom."""
        atom = self.named(name)
        assert atom is not None
        _, value = self._offsets[name]
        return value - self._spans[1][atom.number][1]

    def is_func(self, name: str) -> bool:
        """Tell whether the symbol *name* is a function's."""
        return self._types.get(name) == elf.FUNC

    def is_global(self, name: str) -> bool:
        """Tell whether other sources can refer to the symbol *name*."""
        return name in self.text.binding

    def piece(self, atom: Atom) -> Piece:
        """Return *atom* as it is when the atoms are apart."""
        if atom.number not in self._pieces:
            self._pieces[atom.number] = self._read(atom)
        return self._pieces[atom.number]

    def original(self, atom: Atom) -> Piece:
        """Return *atom* as the object of the kernel's own build has it."""
        if atom.number not in self._plains:
            section, start, end = self._place(self.plain, 0, atom)
            refs = [ref for ref in self.piece(atom).refs if not ref.resolved]
            moved = [self._moved(rel, ref, start) for rel, ref in zip(section.within(start, end), refs, strict=True)]
            self._plains[atom.number] = Piece(atom, section.data[start:end], moved, start, section)
        return self._plains[atom.number]

    def sites(self, atom: Atom) -> list[int]:
        """Return where static branches are in the code of *atom* as the kernel's own build has it."""
        if not self._sites:
            self._sites[-1] = []
            for entry in self.text.ranked("__jump_table"):
                first = self.original(entry).refs[0]
                if isinstance(first.target, Atom):
                    self._sites.setdefault(first.target.number, []).append(first.delta)
        return self._sites.get(atom.number, [])

    # ---- reading ----

    def _moved(self, rel: Rel, ref: Ref, start: int) -> Ref:
        """Return *ref* as it is in the object of the kernel's own build."""
        delta = ref.delta
        if isinstance(ref.target, Atom):
            symbol = self.plain.symbols[rel.symbol]
            delta = symbol.value + rel.addend + ref.bias - self._spans[0][ref.target.number][1]
        return Ref(rel.offset - start, ref.type, ref.target, delta, ref.bias, ref.branch)

    def _marks(self, object_: ObjectFile) -> dict[int, tuple[int, int, int]]:
        """Return section, beginning and end of each atom."""
        starts: dict[int, tuple[int, int]] = {}
        ends: dict[int, int] = {}
        for symbol in object_.symbols:
            if symbol.name.startswith(MARK):
                starts[int(symbol.name[len(MARK):])] = symbol.shndx, symbol.value
            elif symbol.name.startswith(END):
                ends[int(symbol.name[len(END):])] = symbol.value
        return {number: (shndx, start, ends.get(number, object_.sections[shndx].size))
                for number, (shndx, start) in starts.items()}

    def _place(self, object_: ObjectFile, factor: int, atom: Atom) -> tuple[Sec, int, int]:
        index, start, end = self._spans[factor][atom.number]
        return object_.sections[index], start, end

    def _alike(self) -> None:
        """Make sure that the layouts differ in padding alone."""
        for one, two in zip(self.apart.sections, self._wide.sections, strict=True):
            if one.name != two.name or [rel.type for rel in one.relocs] != [rel.type for rel in two.relocs]:
                raise self._error(f"{one.name} is not the same in two layouts")

    def _error(self, words: str) -> BuildError:
        return BuildError(f"{self.source}: {words}", kind="proof", file=self.source)

    def _read(self, atom: Atom) -> Piece:
        section, start, end = self._place(self.apart, 1, atom)
        other, begin, finish = self._place(self._wide, 2, atom)
        if end - start != finish - begin:
            raise self._error(f"{atom.name or atom.section} is not the same in two layouts")
        data, wide = section.data[start:end], other.data[begin:finish]
        code = Code(data) if atom.code else None
        refs = []
        holes: list[tuple[int, int]] = []
        for rel, twin in zip(section.within(start, end), other.within(begin, finish), strict=True):
            if rel.type not in elf.WIDTHS or rel.offset - start != twin.offset - begin:
                raise self._error(f"a reference of {atom.name or atom.section} at {rel.offset - start:#x} is of a kind "
                                  f"that is not known ({rel.type})")
            refs.append(self._ref(atom, rel, twin, start, code))
            holes.append((rel.offset - start, elf.WIDTHS[rel.type]))
        if code is not None:
            covered = {offset for offset, _ in holes}
            for insn in code.insns:
                target = insn.target()
                if target is not None and not 0 <= target < len(data) and insn.end - 4 not in covered:
                    far = begin + insn.end + struct.unpack_from("<i", wide, insn.end - 4)[0]
                    found, delta = self._meant(atom, section, start + target, far)
                    refs.append(Ref(insn.end - 4, elf.PC32, found, delta, 4, True, resolved=True))
                    holes.append((insn.end - 4, 4))
        refs.sort(key=lambda ref: ref.offset)
        if _masked(data, holes) != _masked(wide, holes):
            raise self._error(f"the bytes of {atom.name or atom.section} are not the same in two layouts")
        return Piece(atom, data, refs, start, section)

    def _ref(self, atom: Atom, rel: Rel, twin: Rel, start: int, code: Code | None) -> Ref:
        symbol, same = self.apart.symbols[rel.symbol], self._wide.symbols[twin.symbol]
        offset, bias, branch = rel.offset - start, 0, False
        if code is not None and rel.type in (elf.PC32, elf.PLT32):
            insn = code.at(offset)
            if insn is not None:
                bias, branch = insn.end - offset, insn.branches
        if symbol.shndx == elf.UNDEF:
            return Ref(offset, rel.type, symbol.name, rel.addend + bias, bias, branch)
        if symbol.type != elf.SECTION:
            found = self.named(symbol.name)
            if found is None:
                raise self._error(f"{atom.name or atom.section} refers to {symbol.name}, which is nowhere")
            return Ref(offset, rel.type, found, self.offset(symbol.name) + rel.addend + bias, bias, branch)
        target = self.apart.sections[symbol.shndx]
        found, delta = self._meant(atom, target, symbol.value + rel.addend + bias, same.value + twin.addend + bias)
        return Ref(offset, rel.type, found, delta, bias, branch)

    def _meant(self, user: Atom, section: Sec, near: int, far: int) -> tuple[Atom, int]:
        """Return the atom that is at *near* in one layout and at *far* in the other, and which byte of it is meant."""
        step = self.text.step(section.name)
        ranked = self.text.ranked(section.name)
        if step:
            rank, rest = divmod(far - near, step)
            if not rest and 1 <= rank <= len(ranked):
                return ranked[rank - 1], near - self._spans[1][ranked[rank - 1].number][1]
        else:
            for atom in ranked:
                _, start, end = self._spans[1][atom.number]
                if start <= near < end:
                    return atom, near - start
        raise self._error(f"nothing tells what {user.name or user.section} refers to in {section.name}")


def _masked(data: bytes, holes: list[tuple[int, int]]) -> bytes:
    out = bytearray(data)
    for offset, width in holes:
        out[offset:offset + width] = bytes(width)
    return bytes(out)
