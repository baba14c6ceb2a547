# SPDX-License-Identifier: MIT
"""The kernel that runs, and its modules: what is at which address, by which names.

A module's file has no addresses yet. It gets made-up ones here, one section behind the other, and so does what it takes
from elsewhere; fields are written as the module loader writes them, so that both kinds of images are read alike.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from typing import Self

from elftools.elf.elffile import ELFFile

from pylivepatch.build.kallsyms import Kallsyms, KernelSymbol
from pylivepatch.build.verify import objectfile as elf
from pylivepatch.build.verify.objectfile import ObjectFile
from pylivepatch.elf.file import build_id, unpacked

VMLINUX = "vmlinux"
_BASE, _IMPORTS, _EACH = 0xFFFFFFFFC0000000, 0xFFFFFFFFF0000000, 4096
_64 = (1 << 64) - 1


@dataclass(slots=True)
class Running:
    """What runs under one name: the kernel, or a module of it.

    Attributes:
        name: "vmlinux", or the module's name.
        build_id: Its build id, as hexadecimal digits; "" when it has none.
        symbols: Its symbols, in the order in which livepatch's position counts.
        imports: For a module, what it takes from elsewhere, by the addresses made up for it.
        needs: For a module, the modules that are loaded whenever it is.
        early: Where a module's symbols are that are gone when it is initialised, by name.
    """

    name: str
    build_id: str
    symbols: Kallsyms = field(repr=False)
    imports: dict[int, str] = field(default_factory=dict, repr=False)
    needs: frozenset[str] = frozenset()
    early: dict[str, list[int]] = field(default_factory=dict, repr=False)
    _starts: list[int] = field(default_factory=list, repr=False)
    _parts: list[bytes] = field(default_factory=list, repr=False)

    @classmethod
    def vmlinux(cls, path: Path, symbols: Kallsyms | None = None) -> Self:
        """Read the kernel's image, the ELF file; *symbols* are its symbol tables when they are decoded already."""
        data = path.read_bytes()
        image = ELFFile(BytesIO(data))
        parts = []
        known = ""
        for segment in image.iter_segments():
            if segment["p_type"] == "PT_LOAD":
                content = data[segment["p_offset"]:segment["p_offset"] + segment["p_filesz"]]
                parts.append((segment["p_vaddr"], content + bytes(min(segment["p_memsz"] - len(content), 1 << 26))))
            elif segment["p_type"] == "PT_NOTE" and not known:
                known = build_id(data[segment["p_offset"]:segment["p_offset"] + segment["p_filesz"]])
        parts.sort()
        if symbols is None:
            rodata = image.get_section_by_name(".rodata")
            symbols = Kallsyms.decode(rodata.data() if rodata else b"", str(path))
        return cls(VMLINUX, known, symbols, _starts=[start for start, _ in parts], _parts=[part for _, part in parts])

    @classmethod
    def module(cls, name: str, path: Path) -> Self:
        """Read a module's file, plain or compressed."""
        file = ObjectFile.parse(unpacked(path.read_bytes()), str(path))
        notes, info = file.named(".note.gnu.build-id"), file.named(".modinfo")
        needs: frozenset[str] = frozenset()
        if info is not None:
            found = re.search(rb"(?:\A|\0)depends=([^\0]*)", info.data)
            needs = frozenset(filter(None, found[1].decode().replace("-", "_").split(","))) if found else needs
        base: dict[int, int] = {}
        at = _BASE
        for section in file.sections:
            if section.flags & elf.ALLOC and section.size:
                at = -(-at // section.align) * section.align
                base[section.index] = at
                at += section.size
        imports: dict[int, str] = {}
        symbols: list[KernelSymbol] = []
        early: dict[str, list[int]] = defaultdict(list)
        places: list[int | None] = []
        for symbol in file.symbols:
            place: int | None = None
            if symbol.shndx in base:
                place = base[symbol.shndx] + symbol.value
                if symbol.name and symbol.type not in (elf.FILE, elf.SECTION):
                    if file.sections[symbol.shndx].name.startswith(".init"):
                        early[symbol.name].append(place)
                    else:
                        symbols.append(KernelSymbol(place, "T" if symbol.bind else "t", symbol.name))
            elif symbol.shndx == elf.UNDEF and symbol.name:
                place = _IMPORTS + _EACH * len(imports)
                imports[place] = symbol.name
            elif symbol.shndx == elf.ABS:
                place = symbol.value
            places.append(place)
        loaded = [section for section in file.sections if section.index in base]
        return cls(name, build_id(notes.data) if notes else "", Kallsyms(symbols), imports, needs, early,
                   [base[section.index] for section in loaded],
                   [_written(section, base[section.index], places) for section in loaded])

    def read(self, address: int, size: int) -> bytes:
        """Return *size* bytes at *address*; fewer where the image ends."""
        at = bisect_right(self._starts, address) - 1
        if at < 0 or size <= 0:
            return b""
        offset = address - self._starts[at]
        return self._parts[at][offset:offset + size]

    def called(self, address: int) -> list[str]:
        """Return the names of what is at *address*, of its own or imported."""
        return [self.imports[address]] if address in self.imports else self.symbols.names(address)

    def places(self, name: str) -> list[int]:
        """Return where the symbols called *name* are, those of a module's initialisation among them."""
        return [*self.symbols.addresses(name), *self.early.get(name, ())]

    def whole(self, name: str) -> list[int]:
        """Return where the symbols called *name* are that all sources can refer to."""
        return [place for place in self.symbols.addresses(name) if not self.symbols.is_static(name, place)]


def _written(section: elf.Sec, base: int, places: list[int | None]) -> bytes:
    data = bytearray(section.data)
    for rel in section.relocs:
        width, target = elf.WIDTHS.get(rel.type), places[rel.symbol]
        if width is None or target is None or rel.offset + width > len(data):
            continue
        value = target + rel.addend - (base + rel.offset if rel.type in elf.RELATIVE else 0)
        data[rel.offset:rel.offset + width] = (value & _64).to_bytes(8, "little")[:width]
    return bytes(data)


@dataclass(slots=True)
class Kernel:
    """A kernel with its modules, opened as they are asked for.

    Attributes:
        open: Reads what runs under a name; raises LookupError when nothing does.
        exports: For each symbol that modules may use: who has it, and the namespace that must be imported.
    """

    open: Callable[[str], Running]
    exports: dict[str, tuple[str, str]]
    _opened: dict[str, Running] = field(default_factory=dict)

    def __getitem__(self, name: str) -> Running:
        """Return what runs under *name*."""
        if name not in self._opened:
            self._opened[name] = self.open(name)
        return self._opened[name]

    @property
    def build_ids(self) -> dict[str, str]:
        """The build id of everything that was looked at."""
        return {name: running.build_id for name, running in sorted(self._opened.items())}


def exports(symvers: str) -> dict[str, tuple[str, str]]:
    """Read Module.symvers: what is exported, by whom, in which namespace."""
    found = {}
    for line in symvers.splitlines():
        _, name, owner, _, *rest = line.split("\t")
        found[name] = owner.rpartition("/")[2].replace("-", "_"), rest[0] if rest else ""
    return found
