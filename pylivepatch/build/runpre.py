# SPDX-License-Identifier: MIT
"""Run-pre matching: prove that what was compiled is what runs, and learn where everything is.

Ksplice's idea. The object that the kernel's own build makes of a source ("pre") is compared with the image that
runs ("run"): every byte of a function has to be equal, except those that a linker writes. What the linker wrote
tells in turn where the symbols are that the function refers to, including those whose name is not unique.

The functions of one source stand in the image as they stand in the object, one after the other, because the linker
moves whole sections. So one address is looked for, the beginning of a section, at which all of its functions match.
"""

from __future__ import annotations

import itertools
import re
from bisect import bisect_left, bisect_right
from collections import Counter, defaultdict
from dataclasses import dataclass, field

from pylivepatch.build import insn, tables
from pylivepatch.build.elf import SHF_STRINGS, SHT_NOBITS, STB_WEAK, WIDTH, Object, Reloc, Section, Symbol
from pylivepatch.build.image import Image, field_value
from pylivepatch.build.insn import meant
from pylivepatch.errors import BuildError, MismatchError

_CAUSE = (
    "is the source of exactly this kernel's package, its config and its compiler in use? "
    "--source, --config, --image and the compiler of CONFIG_CC_VERSION_TEXT name them"
)
"""Numbers of types, which resolve_btfids writes after the link."""

_WIDEST = 8
_SOURCE = re.compile(rb"(?:\./)?([\w.+-]+(?:/[\w.+-]+)+\.[chS])\0")
_LONGEST = 4096
"""Bytes of a path."""


@dataclass(slots=True)
class Match:
    """Where the parts of an object are in the image.

    Attributes:
        source: The source file.
        image: What it was compared with.
        pre: The object as the kernel's own build makes it.
        bases: Address of each of its sections that was found, by the section's name.
        matched: Names of the functions that are byte for byte what runs.
        imports: Addresses of the symbols that it takes from elsewhere.
        differing: For each function that differs, the offset of the first byte.
        conflicts: For each function whose references lead elsewhere than the others', or to other contents, what was
            found.
        globals: Addresses of its own global symbols, where the image refers to them: a weak one may be another's.
    """

    source: str
    image: Image
    pre: Object
    bases: dict[str, int] = field(default_factory=dict)
    matched: set[str] = field(default_factory=set)
    imports: dict[str, int] = field(default_factory=dict)
    differing: dict[str, int] = field(default_factory=dict)
    conflicts: dict[str, str] = field(default_factory=dict)
    globals: dict[str, int] = field(default_factory=dict)

    def address(self, name: str) -> int | None:
        """Return where the object's symbol *name* is in the image, defined or imported; None when not known."""
        if name in self.globals:
            return self.globals[name]
        for symbol in self.pre.symbols:
            if symbol.name == name and symbol.section is not None:
                base = self.bases.get(symbol.section.name)
                if base is not None:
                    return base + symbol.value
        return self.imports.get(name)

    def defined(self, name: str) -> Symbol | None:
        """Return the object's own symbol *name*."""
        return next((symbol for symbol in self.pre.symbols
                     if symbol.name == name and symbol.section is not None), None)

    def require(self, name: str) -> int:
        """Return the address of the function *name*, which must be proved to be what runs.

        Raises:
            MismatchError: It is not, with the first differing instruction of both.
        """
        symbol = self.defined(name)
        if symbol is None or symbol.section is None:
            raise MismatchError(f"{self.source} as compiled for this kernel has no function {name}",
                                kind="mismatch", symbol=name, file=self.source, remedy=_CAUSE)
        base = self.bases.get(symbol.section.name)
        if name in self.conflicts:
            raise MismatchError(f"{name}() of {self.source} is not what runs: {self.conflicts[name]}",
                                kind="mismatch", symbol=name, file=self.source, remedy=_CAUSE)
        if base is not None and name in self.matched:
            return base + symbol.value
        raise self._mismatch(symbol, base)

    def prove(self) -> None:
        """Make sure that every function of the source is what runs.

        The exception is a weak one, of which another source has the one that runs.

        Raises:
            MismatchError: One is not, with the first differing instruction of both.
        """
        for symbol in self.pre.symbols:
            if not (symbol.is_func and symbol.section is not None and symbol.section.executable and symbol.size):
                continue
            if symbol.bind == STB_WEAK and self._is_overridden(symbol):
                continue
            self.require(symbol.name)

    def _is_overridden(self, symbol: Symbol) -> bool:
        """Tell whether the image has a weak symbol elsewhere than this source's own would be."""
        assert symbol.section is not None
        base, places = self.bases.get(symbol.section.name), self.image.places(symbol.name)
        return bool(places) and base is not None and base + symbol.value not in places

    def _mismatch(self, symbol: Symbol, base: int | None) -> BuildError:
        places = [base + symbol.value] if base is not None else self.image.places(symbol.name)
        if not places:
            return MismatchError(
                f"{self.image.name} has no function {symbol.name}, which {self.source} compiles to",
                kind="mismatch", symbol=symbol.name, file=self.source, remedy=_CAUSE)
        assert symbol.section is not None
        masked = _Masked(self.pre, symbol.section)
        pre = bytes(symbol.section.data[symbol.value:symbol.value + symbol.size])
        offset, place = max((masked.differs(symbol, self.image, place), place) for place in places)
        starts = [start for start in insn.boundaries(pre) if start <= offset]
        start = starts[-1] if starts else max(offset, 0)
        run = self.image.read(place + start, 16)
        ours, theirs = (insn.disassemble(code, 0, 1) for code in (pre[start:start + 16], run))
        return MismatchError(
            f"{symbol.name}() of {self.source} is not what runs: at +{start:#x} of {symbol.size:#x} bytes "
            f"`{(ours or ['?'])[0]}` was compiled, and {self.image.name} has `{(theirs or ['?'])[0]}`",
            kind="mismatch", symbol=symbol.name, file=self.source, remedy=_CAUSE)


class _Masked:
    """A section of the object with the bytes that the linker or objtool writes left out."""

    def __init__(self, pre: Object, section: Section) -> None:
        self.section, self.data, self.size = section, section.data, section.size
        self.holes = sorted((reloc.offset, WIDTH.get(reloc.type, 4)) for reloc in section.relocs)
        table = pre.section("__jump_table")
        self.labels = {at: insn.jump_size(section.data, at) for at in (
            reloc.symbol.value + reloc.addend for reloc in (table.relocs[::3] if table else [])
            if reloc.symbol.section is section)}

    def nops(self, run: bytes | bytearray, start: int) -> list[tuple[int, int]]:
        """Return which jump labels are nops in *run*, the image's bytes from offset *start* of the section.

        objtool makes them from jumps: in vmlinux.o only from 6.2 on with IBT.
        """
        return [(at, size) for at, size in self.labels.items()
                if 0 <= at - start < len(run) and run[at - start:at - start + size] in (insn.NOP2, insn.NOP5)]

    def differs(self, symbol: Symbol, image: Image, place: int) -> int:
        """Return the offset in *symbol* of the first byte that differs from the image at *place*; its size if none."""
        run = bytearray(image.read(place, symbol.size))
        if len(run) < symbol.size:
            return 0
        pre = self._masked(run, symbol.value)
        if pre == run:
            return symbol.size
        return next(offset for offset, (a, b) in enumerate(zip(pre, run, strict=True)) if a != b)

    def differing(self, image: Image, base: int) -> list[tuple[int, str]]:
        """Return where the section differs from the image at *base*, and how."""
        if self.section.name == tables.BTF_IDS:
            return []
        run = bytearray(image.read(base, self.size))
        if len(run) < self.size:
            return [(0, "there is more than the image has")]
        pre = self._masked(run, 0)
        if pre == run:
            return []
        return [(offset, f"{a:#04x} was compiled at {offset:#x}, and the image has {b:#04x}")
                for offset, (a, b) in enumerate(zip(pre, run, strict=True)) if a != b]

    def _masked(self, run: bytearray, start: int) -> bytearray:
        """Return the section's bytes from *start*, with those of *run* in the holes."""
        pre = bytearray(self.data[start:start + len(run)])
        first = bisect_left(self.holes, (start - _WIDEST, 0))
        for at, size in (*itertools.takewhile(lambda hole: hole[0] < start + len(run), self.holes[first:]),
                         *self.nops(run, start)):
            low, high = max(at - start, 0), min(at - start + size, len(run))
            if low < high:
                pre[low:high] = run[low:high]
        return pre


def match(source: str, pre: Object, image: Image) -> Match:
    """Find the sections of *pre* in *image*, and compare their functions.

    Raises:
        MismatchError: Not one function of it is there.
    """
    found = Match(source, image, pre)
    functions: dict[int, list[Symbol]] = {}
    for symbol in pre.symbols:
        if symbol.section is not None and symbol.section.executable and symbol.size and symbol.is_func:
            functions.setdefault(id(symbol.section), []).append(symbol)
    for section in pre.sections:
        if id(section) in functions:
            _place(found, section, functions[id(section)])
    if not found.matched:
        first = next((symbols[0] for symbols in functions.values()), None)
        if first is None:
            raise BuildError(f"{source} has no functions", kind="nothing", file=source)
        found.require(first.name)
    _infer(found)
    return found


def _place(found: Match, section: Section, functions: list[Symbol]) -> None:
    """Find the address of *section* at which the most of its functions match: that is all, but for weak ones."""
    masked = _Masked(found.pre, section)
    votes: Counter[int] = Counter()
    results: dict[tuple[int, int], int] = {}
    for symbol in functions:
        for address in set(found.image.places(symbol.name)):
            differs = results[id(symbol), address] = masked.differs(symbol, found.image, address)
            if differs == symbol.size:
                votes[address - symbol.value] += 1
    if not votes:
        for symbol in functions:
            found.differing[symbol.name] = max(
                (results[id(symbol), address] for address in found.image.places(symbol.name)), default=0)
        return
    (base, most), *others = votes.most_common(2)
    if others and others[0][1] == most:
        bases = [place for place, count in votes.items() if count == most]
        base = _consistent(found, section, functions, bases)
    found.bases[section.name] = base
    for symbol in functions:
        differs = masked.differs(symbol, found.image, base + symbol.value)
        if differs == symbol.size and symbol.name in found.image.names(base + symbol.value):
            found.matched.add(symbol.name)
        else:
            found.differing[symbol.name] = min(differs, symbol.size - 1)


def _consistent(found: Match, section: Section, functions: list[Symbol], bases: list[int]) -> int:
    """Choose among places that match equally well the one whose references lead to the names they should."""
    best: list[tuple[int, int]] = []
    for base in bases:
        good = 0
        for reloc in section.relocs:
            if reloc.type in WIDTH and reloc.symbol.name and not reloc.symbol.is_section:
                value = _value(found.image, reloc, base)
                good += value is not None and reloc.symbol.name in found.image.names(value)
        best.append((good, base))
    best.sort(reverse=True)
    if len(best) > 1 and best[0][0] == best[1][0]:
        names = ", ".join(symbol.name for symbol in functions[:3])
        raise BuildError(
            f"{found.image.name} has the code of {found.source} ({names}) more than once, and nothing tells which is "
            "its own",
            kind="ambiguous", symbol=functions[0].name, file=found.source)
    return best[0][1]


def _value(image: Image, reloc: Reloc, base: int) -> int | None:
    """Return the address of the symbol of *reloc* according to the image; None where there is nothing."""
    at = base + reloc.offset
    data = image.read(at, WIDTH[reloc.type])
    if len(data) < WIDTH[reloc.type]:
        return None
    return (field_value(data, 0, reloc.type, at) - reloc.addend) & ((1 << 64) - 1)


def _infer(found: Match) -> None:
    """Learn from what the linker wrote where the other sections and the imported symbols are.

    A section found this way is looked at in turn: data refer to other data.
    """
    pending = [section for section in found.pre.sections if section.name in found.bases]
    matched = {(id(symbol.section), symbol.value, symbol.value + symbol.size): symbol.name
               for symbol in found.pre.symbols if symbol.name in found.matched and symbol.section is not None}
    uses: list[tuple[str, Section, int]] = []
    strings: dict[int, list[tuple[int, str]]] = defaultdict(list)
    while pending:
        section = pending.pop()
        spans = sorted((start, end, name) for (owner, start, end), name in matched.items() if owner == id(section))
        masked, base = _Masked(found.pre, section), found.bases[section.name]
        nops = masked.nops(found.image.read(base, section.size), 0)
        for reloc in section.relocs:
            if any(at <= reloc.offset < at + size for at, size in nops):
                continue
            function = ""
            if section.executable:
                function = next((name for start, end, name in spans if start <= reloc.offset < end), "")
                if not function:
                    continue
            if reloc.type not in WIDTH:
                continue
            value = _value(found.image, reloc, base)
            if value is None:
                continue
            target = reloc.symbol.section
            if target is None:
                _import(found, reloc.symbol.name, value, function)
            elif target.allocated and target.merged:
                words = _differs(found.image, target, reloc, meant(section, reloc)[0], value)
                if words and function:
                    found.conflicts.setdefault(function, words)
                elif words:
                    strings[id(section)].append((reloc.offset, words))
            elif target.allocated:
                if function and not target.executable:
                    uses.append((function, target, reloc.symbol.value + meant(section, reloc)[0]))
                if reloc.symbol.bind and reloc.symbol.name in found.image.names(value):
                    # a weak one that another source overrides leads elsewhere
                    found.globals.setdefault(reloc.symbol.name, value)
                    if reloc.symbol.bind == STB_WEAK:
                        continue
                place = value - reloc.symbol.value
                if target.name not in found.bases:
                    found.bases[target.name] = place
                    pending.append(target)
                elif found.bases[target.name] != place and function:
                    name = reloc.symbol.name or target.name
                    found.conflicts.setdefault(function, f"it refers to {name} at another place than the others do")
    _compare_data(found, uses, strings)


def _differs(image: Image, section: Section, reloc: Reloc, at: int, value: int) -> str:
    """Say how a string or number that the linker merges differs from the image's; "" when it does not.

    Args:
        image: The image.
        section: Where it stands in the object.
        reloc: What refers to it.
        at: Which byte of its symbol is meant.
        value: Where its symbol is in the image, if it were one there.
    """
    if not reloc.symbol.is_section:
        at = 0  # a label is that of the string, and a loop's end may be behind it
    start = reloc.symbol.value + at
    width = section.entsize or 1
    end = start + width - start % width
    while section.flags & SHF_STRINGS and any(section.data[end - width:end]):
        end += width
    pre = bytes(section.data[start:end])
    run = image.read(value + at, len(pre))
    if pre == run or (section.flags & SHF_STRINGS and _is_name_of(pre, image.read(value + at, _LONGEST))):
        return ""
    return f"{pre!r} was compiled, and the image has {run!r}"


def _is_name_of(pre: bytes, run: bytes) -> bool:
    """Tell whether a string is the name of a source file, by which the image's build called the same one.

    That was in a directory of its own: since 7.x __FILE__ has no "./" then, and what UBSAN reports all of the path.
    """
    name, there = _SOURCE.fullmatch(pre), run.partition(b"\0")[0]
    return name is not None and (there == name[1] or (there.startswith(b"/") and there.endswith(b"/" + name[1])))


def _compare_data(
    found: Match, uses: list[tuple[str, Section, int]], strings: dict[int, list[tuple[int, str]]],
) -> None:
    """Compare what is in the variables and tables that functions use with what they are in the image at first."""
    places: dict[int, list[int]] = {}
    differing: dict[int, list[tuple[int, str]]] = {}
    own = {(id(symbol.section), symbol.value): symbol for symbol in found.pre.symbols
           if symbol.section is not None and not symbol.is_section and symbol.name and symbol.bind != STB_WEAK}
    for function, section, at in uses:
        if section.name not in found.bases:
            continue
        symbol = own.get((id(section), at))
        known = found.image.places(symbol.name) if symbol is not None else []
        if symbol is not None and known and found.bases[section.name] + at not in known:
            found.conflicts.setdefault(function, f"{symbol.name} is not where it refers to {symbol.name}")
        if section.type == SHT_NOBITS:
            continue
        if id(section) not in places:
            symbols = [symbol for symbol in found.pre.symbols
                       if symbol.section is section and not symbol.is_section and symbol.size]
            places[id(section)] = sorted({0, section.size, *(symbol.value for symbol in symbols),
                                          *(symbol.value + symbol.size for symbol in symbols)})
            differing[id(section)] = [*_Masked(found.pre, section).differing(found.image, found.bases[section.name]),
                                      *strings.get(id(section), ())]
        if not differing[id(section)]:
            continue
        marks = places[id(section)]
        start = bisect_right(marks, at) - 1
        if 0 <= start < len(marks) - 1:
            for offset, words in differing[id(section)]:
                if marks[start] <= offset < marks[start + 1]:
                    name = next((symbol.name for symbol in found.pre.symbols if symbol.section is section
                                 and symbol.value == marks[start] and symbol.name), section.name)
                    found.conflicts.setdefault(function, f"in {name}, which it uses, {words}")


def _import(found: Match, name: str, value: int, function: str) -> None:
    known = found.image.symbols.addresses(name)
    if function and (known or found.image.imports) and name not in found.image.names(value):
        if known or name in found.image.imports.values():
            there = ", ".join(found.image.names(value)) or f"{value:#x}"
            found.conflicts.setdefault(function, f"it refers to {there} where {name} was compiled")
        return
    found.imports.setdefault(name, value)


def suffix_free(name: str) -> str:
    """Return *name* without the numbers that the compiler gives to what has no name of its own."""
    return re.sub(r"\.\d+(?=\.|\Z)", "", name)
