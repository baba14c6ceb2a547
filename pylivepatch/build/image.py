# SPDX-License-Identifier: MIT
"""Images: the code that runs, byte by byte, with the names that the kernel has for it.

The kernel's image has addresses. A module's file has none yet: it is laid out here the way the module loader
does, at addresses of our own, so that both can be looked at in the same way.
"""

from __future__ import annotations

import re
import struct
from bisect import bisect_right
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

from elftools.common.exceptions import ELFError
from elftools.elf.elffile import ELFFile

from pylivepatch.build.elf import (
    R_X86_64_32,
    R_X86_64_32S,
    SHN_ABS,
    STT_FILE,
    WIDTH,
    Object,
    Section,
)
from pylivepatch.build.kallsyms import Kallsyms, KernelSymbol
from pylivepatch.elf.file import unpacked
from pylivepatch.errors import BadDataError

VMLINUX = "vmlinux"

_MODULES = 0xFFFFFFFFC0000000
_IMPORTS = 0xFFFFFFFFE0000000
_IMPORT = 64
_MASK = (1 << 64) - 1


@dataclass(frozen=True, slots=True)
class Image:
    """What runs under one name: the kernel, or a module.

    Attributes:
        name: "vmlinux", or the name of a module.
        path: The file.
        symbols: Its symbols, in the order in which the livepatch core counts them.
        imports: For a module, the names of what it takes from elsewhere, by the addresses made up for them.
        initial: For a module, the symbols of what is there at init only; the kernel's own are among the others.
    """

    name: str
    path: Path
    symbols: Kallsyms
    imports: dict[int, str] = field(default_factory=dict, repr=False)
    initial: Kallsyms = field(default_factory=lambda: Kallsyms([]), repr=False)
    _starts: list[int] = field(default_factory=list, repr=False)
    _parts: list[tuple[int, bytes]] = field(default_factory=list, repr=False)

    @classmethod
    def vmlinux(cls, path: Path) -> Self:
        """Read the kernel's image: the ELF file that is inside a vmlinuz.

        Raises:
            BadDataError: It is none, or has no symbol tables.
        """
        try:
            with path.open("rb") as file:
                elf = ELFFile(file)
                parts = [(section["sh_addr"], section["sh_size"], section) for section in elf.iter_sections()
                         if section["sh_flags"] & 2 and section["sh_size"]]
                loaded = [(address, size, b"" if section["sh_type"] == "SHT_NOBITS" else section.data())
                          for address, size, section in parts]
                rodata = elf.get_section_by_name(".rodata")
                symbols = Kallsyms.decode(rodata.data() if rodata else b"", str(path),
                                          rodata["sh_addr"] if rodata else 0)
        except ELFError as error:
            raise BadDataError(f"{path} is no kernel image: {error}") from error
        loaded.sort(key=lambda part: part[0])
        return cls(VMLINUX, path, symbols, {}, Kallsyms([]), [address for address, _, _ in loaded],
                   [(size, data) for _, size, data in loaded])

    @classmethod
    def module(cls, name: str, path: Path) -> Self:
        """Read a module's file, plain or compressed, and lay it out.

        Raises:
            BadDataError: It is none.
            OSError: It cannot be read or unpacked.
        """
        file = Object.parse(unpacked(path.read_bytes()), str(path))
        base: dict[int, int] = {}
        at = _MODULES
        for section in file.sections:
            if section.allocated and section.size:
                at = -(-at // section.align) * section.align
                base[id(section)] = at
                at += section.size
        imports: dict[int, str] = {}
        address: dict[int, int] = {}
        symbols: list[KernelSymbol] = []
        initial: list[KernelSymbol] = []
        for symbol in file.symbols:
            if symbol.section is not None and id(symbol.section) in base:
                address[id(symbol)] = place = base[id(symbol.section)] + symbol.value
                if symbol.name and symbol.type != STT_FILE:
                    letter = "t" if symbol.section.executable else "d"
                    known = KernelSymbol(place, letter.upper() if symbol.bind else letter, symbol.name)
                    (initial if _init(symbol.section) else symbols).append(known)
            elif symbol.undefined and symbol.name:
                address[id(symbol)] = place = _IMPORTS + _IMPORT * len(imports)
                imports[place] = symbol.name
            elif symbol.shndx == SHN_ABS:
                address[id(symbol)] = symbol.value
        for section in file.sections:
            if id(section) in base and section.data:
                _relocate(section, base[id(section)], address)
        parts = sorted((base[id(section)], section.size, bytes(section.data))
                       for section in file.sections if id(section) in base)
        return cls(name, path, Kallsyms(symbols), imports, Kallsyms(initial), [start for start, _, _ in parts],
                   [(size, data) for _, size, data in parts])

    def release(self) -> str:
        """Return the release that a kernel's image says it is of; "" when it does not say."""
        for place in self.symbols.addresses("linux_banner"):
            found = re.match(rb"Linux version (\S+) ", self.read(place, 200))
            if found:
                return found[1].decode(errors="replace")
        return ""

    def read(self, address: int, size: int) -> bytes:
        """Return *size* bytes at *address*; fewer, or none, where the image ends."""
        at = bisect_right(self._starts, address) - 1
        if at < 0 or size <= 0:
            return b""
        length, data = self._parts[at]
        offset = address - self._starts[at]
        if offset >= length:
            return b""
        found = data[offset:offset + size]
        return found + bytes(min(size, length - offset) - len(found))

    def places(self, name: str) -> list[int]:
        """Return where what is called *name* is, at init too."""
        return self.symbols.addresses(name) + self.initial.addresses(name)

    def gone(self, address: int) -> bool:
        """Tell whether the kernel frees what is at *address* when it has booted.

        Since 6.15 the first values of per-CPU variables are among that, and their addresses still name the variables.
        """
        return self._between("__init_begin", address, "__init_end") and not self._between(
            "__per_cpu_start", address, "__per_cpu_end")

    def _between(self, begin: str, address: int, end: str) -> bool:
        start, stop = (self.symbols.addresses(name) for name in (begin, end))
        return bool(start and stop) and start[0] <= address < stop[0]

    def version(self) -> str:
        """Return what the kernel's ``uname -v`` says; "" when its image does not tell."""
        for place in self.symbols.addresses("linux_banner"):
            found = re.match(rb"[^\n]*\) (#\d[^\n]*)\n", self.read(place, 400))
            if found:
                return found[1].decode(errors="replace")
        return ""

    def names(self, address: int) -> list[str]:
        """Return the names of what is at *address*, of its own or imported."""
        if address in self.imports:
            return [self.imports[address]]
        return self.symbols.names(address) or self.initial.names(address)


def _init(section: Section) -> bool:
    """Tell whether the module loader frees *section* after init: the kernel forgets its symbols then."""
    return section.name.startswith(".init")


def _relocate(section: Section, base: int, address: dict[int, int]) -> None:
    """Write the relocations of *section* as the module loader does."""
    for reloc in section.relocs:
        width = WIDTH.get(reloc.type)
        target = address.get(id(reloc.symbol))
        if width is None or target is None or reloc.offset + width > len(section.data):
            continue
        value = target + reloc.addend
        if reloc.pc_relative:
            value -= base + reloc.offset
        if width == 8:
            struct.pack_into("<Q", section.data, reloc.offset, value & _MASK)
        else:
            struct.pack_into("<I", section.data, reloc.offset, value & 0xFFFFFFFF)


def field_value(data: bytes, offset: int, type_: int, at: int) -> int:
    """Return the address plus addend that a relocated field of the image holds.

    Args:
        data: Bytes of the image.
        offset: Where the field is in them.
        type_: The relocation's type.
        at: Address of the field, for those that hold a distance.
    """
    width = WIDTH[type_]
    if width == 8:
        value = struct.unpack_from("<Q", data, offset)[0]
    elif type_ == R_X86_64_32:
        value = struct.unpack_from("<I", data, offset)[0]
    else:
        value = struct.unpack_from("<i", data, offset)[0]
    if type_ in (R_X86_64_32, R_X86_64_32S, 1):
        return int(value) & _MASK
    return int(value + at) & _MASK
