# SPDX-License-Identifier: MIT
"""Where the parts of a source are in what runs: its functions byte for byte, and what they lead to."""

from __future__ import annotations

from collections import Counter, defaultdict

from pylivepatch.build.verify import objectfile as elf
from pylivepatch.build.verify.assembly import Atom
from pylivepatch.build.verify.kernel import Running
from pylivepatch.build.verify.reference import Piece, Ref, Reference

NOPS = {2: b"\x66\x90", 5: b"\x0f\x1f\x44\x00\x00"}
"""What objtool makes of the jump at a static branch that is off at first."""

_64 = (1 << 64) - 1


def pointed(running: Running, ref: Ref, start: int) -> int | None:
    """Return the address that a field of the image leads to, when what has it is at *start* there."""
    width = elf.WIDTHS[ref.type]
    data = running.read(start + ref.offset, width)
    if len(data) < width:
        return None
    if ref.type == elf.ABS32:
        return int.from_bytes(data, "little")
    value = int.from_bytes(data, "little", signed=True)
    if ref.type in elf.RELATIVE:
        value += start + ref.offset + ref.bias
    return value & _64


class Located:
    """Where the parts of a source are in what runs.

    Args:
        reference: The source, as the kernel's own build compiles it.
        running: What it is a part of.

    Attributes:
        start: Address of each atom that was found by its bytes, by number.
        differing: Names of functions that are not byte for byte what runs.
    """

    def __init__(self, reference: Reference, running: Running) -> None:
        self.reference = reference
        self.running = running
        self.start: dict[int, int] = {}
        self.differing: list[str] = []
        self._votes: dict[int | str, Counter[int]] = defaultdict(Counter)
        self._find()
        for number, start in list(self.start.items()):
            self._learn(reference.text.atoms[number], start)

    def address(self, target: Atom | str) -> int | None:
        """Return where the beginning of *target* is, as the code that runs has it; None when nothing tells."""
        if isinstance(target, Atom) and target.number in self.start:
            return self.start[target.number]
        votes = self._votes.get(target.number if isinstance(target, Atom) else target)
        return votes.most_common(1)[0][0] if votes and len(votes) == 1 else None

    def disputed(self, target: Atom | str) -> bool:
        """Tell whether code that runs refers to *target* at different places."""
        return len(self._votes.get(target.number if isinstance(target, Atom) else target, ())) > 1

    def _find(self) -> None:
        """Find each section of the object: its functions stand in the image as they stand in the object."""
        reference = self.reference
        by_section: dict[int, list[tuple[Atom, str, Piece]]] = defaultdict(list)
        for atom in reference.text.atoms:
            name = next((label for label in atom.labels if reference.is_func(label)), "")
            if atom.code and name:
                piece = reference.original(atom)
                by_section[piece.section.index].append((atom, name, piece))
        for rows in by_section.values():
            votes: Counter[int] = Counter()
            for _, name, piece in rows:
                for place in self.running.places(name):
                    start = place - reference.offset(name)
                    if self._equal(piece, start):
                        votes[start - piece.start] += 1
            for atom, name, piece in rows:
                bases = [base for base, count in votes.items() if count == max(votes.values())]
                fitting = [base for base in bases if self._equal(piece, base + piece.start)
                           and base + piece.start + reference.offset(name) in self.running.places(name)]
                if len(fitting) == len(bases) == 1:
                    self.start[atom.number] = fitting[0] + piece.start
                else:
                    self.differing.append(name)

    def _equal(self, piece: Piece, start: int) -> bool:
        """Compare the bytes of a piece with what runs, but for fields that the linker writes."""
        run = bytearray(self.running.read(start, len(piece.data)))
        own = bytearray(piece.data)
        if len(run) != len(own):
            return False
        holes = [(ref.offset, elf.WIDTHS[ref.type]) for ref in piece.refs]
        for offset in self.reference.sites(piece.atom):
            size = 2 if own[offset] == 0xEB else 5
            if run[offset:offset + size] == NOPS[size]:
                holes.append((offset, size))
        for offset, size in holes:
            own[offset:offset + size] = run[offset:offset + size] = bytes(size)
        return own == run

    def _learn(self, atom: Atom, start: int) -> None:
        """Take down where the fields of an atom lead to."""
        piece = self.reference.original(atom)
        for ref in piece.refs:
            value = pointed(self.running, ref, start)
            if value is None or ref.target is None:
                continue
            key: int | str = ref.target if isinstance(ref.target, str) else ref.target.number
            self._votes[key][(value - ref.delta) & _64] += 1
