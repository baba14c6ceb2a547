# SPDX-License-Identifier: MIT
"""ELF objects as the checker reads them: sections, symbols and relocations by their numbers, nothing made of them."""

from __future__ import annotations

import io
import struct
from bisect import bisect_left
from dataclasses import dataclass, field
from typing import NamedTuple, Self

from elftools.common.exceptions import ELFError
from elftools.elf.elffile import ELFFile

from pylivepatch.errors import BadDataError

PROGBITS, SYMTAB, RELA, NOTE, NOBITS = 1, 2, 4, 7, 8
WRITE, ALLOC, EXEC, MERGE, STRINGS, LIVEPATCH = 0x1, 0x2, 0x4, 0x10, 0x20, 0x00100000
UNDEF, ABS, COMMON, KLP = 0, 0xFFF1, 0xFFF2, 0xFF20
FUNC, SECTION, FILE = 2, 3, 4
NONE, ABS64, PC32, PLT32, ABS32, ABS32S, PC64 = 0, 1, 2, 4, 10, 11, 24
WIDTHS = {ABS64: 8, PC64: 8, PC32: 4, PLT32: 4, ABS32: 4, ABS32S: 4}
RELATIVE = frozenset({PC32, PLT32, PC64})

_SYM = struct.Struct("<IBBHQQ")
_RELA = struct.Struct("<QQq")


class Sym(NamedTuple):
    """A symbol, as the file has it."""

    name: str
    value: int
    size: int
    bind: int
    type: int
    shndx: int


class Rel(NamedTuple):
    """A relocation: what its table says, and for which object the livepatch core writes it, or ""."""

    offset: int
    type: int
    symbol: int
    addend: int
    object: str = ""


@dataclass(slots=True)
class Sec:
    """A section.

    Attributes:
        index: Its number.
        name: Its name.
        type: Its type.
        flags: Its flags.
        data: Its bytes; zeros for what has none in the file.
        size: Its size.
        align: Its alignment, in bytes.
        entsize: Size of an entry.
        link: The number of the section that it belongs to.
        info: What the type makes of it.
        relocs: What is to be written into it, by offset.
    """

    index: int
    name: str
    type: int
    flags: int
    data: bytes = field(repr=False)
    size: int
    align: int
    entsize: int
    link: int
    info: int
    relocs: list[Rel] = field(default_factory=list, repr=False)

    def within(self, start: int, end: int) -> list[Rel]:
        """Return the relocations from *start* to *end*."""
        low = bisect_left(self.relocs, (start,))
        high = bisect_left(self.relocs, (end,))
        return self.relocs[low:high]


class ObjectFile:
    """A relocatable object, or a module.

    Attributes:
        sections: Its sections, by number.
        symbols: Its symbols, by number.
    """

    def __init__(self, sections: list[Sec], symbols: list[Sym]) -> None:
        self.sections = sections
        self.symbols = symbols

    @classmethod
    def parse(cls, data: bytes, name: str) -> Self:
        """Read an object.

        Raises:
            BadDataError: It is not a relocatable x86-64 object, or damaged.
        """
        try:
            elf = ELFFile(io.BytesIO(data))
            if elf["e_type"] != "ET_REL" or elf["e_machine"] != "EM_X86_64":
                raise BadDataError(f"{name} is not a relocatable x86-64 object")
            names = [section.name for section in elf.iter_sections()]
            start, each, count = elf["e_shoff"], elf["e_shentsize"], len(names)
        except ELFError as error:
            raise BadDataError(f"{name} is not an ELF object: {error}") from error
        sections = []
        for number in range(count):
            _, kind, flags, _, offset, size, link, info, align, entsize = struct.unpack_from(
                "<IIQQQQIIQQ", data, start + number * each)
            content = bytes(size) if kind == NOBITS else data[offset:offset + size] if kind else b""
            sections.append(Sec(number, names[number], kind, flags, content, size, align or 1, entsize, link, info))
        symbols: list[Sym] = []
        for section in sections:
            if section.type == SYMTAB:
                strings = sections[section.link].data
                symbols = [Sym(strings[at:strings.index(b"\0", at)].decode(errors="surrogateescape"), value, size,
                               info >> 4, info & 15, shndx)
                           for at, info, _, shndx, value, size in _SYM.iter_unpack(section.data)]
        for section in sections:
            if section.type != RELA or not section.info < count:
                continue
            target = sections[section.info]
            for_object = ""
            if section.flags & LIVEPATCH:
                for_object = section.name.removeprefix(".klp.rela.").removesuffix(f".{target.name}")
            target.relocs += [Rel(at, info & 0xFFFFFFFF, info >> 32, addend, for_object)
                              for at, info, addend in _RELA.iter_unpack(section.data)]
        for section in sections:
            section.relocs.sort()
        return cls(sections, symbols)

    def named(self, name: str) -> Sec | None:
        """Return the first section called *name*."""
        return next((section for section in self.sections if section.name == name), None)
