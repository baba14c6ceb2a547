# SPDX-License-Identifier: MIT
"""Relocatable objects: read into sections, symbols and relocations that refer to each other, and written back.

Reading leaves the ELF header and the section table to pyelftools. What the linker may know only by number
(symbol and section indexes) is a reference between Python objects here, so that sections and symbols can be
taken out, added and renamed freely; numbers are given again by `Object.write`.
"""

from __future__ import annotations

import io
import struct
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from elftools.common.exceptions import ELFError
from elftools.elf.elffile import ELFFile

from pylivepatch.errors import BadDataError

SHT_PROGBITS, SHT_SYMTAB, SHT_STRTAB, SHT_RELA, SHT_NOTE, SHT_NOBITS = 1, 2, 3, 4, 7, 8
SHF_WRITE, SHF_ALLOC, SHF_EXECINSTR = 0x1, 0x2, 0x4
SHF_MERGE, SHF_STRINGS, SHF_INFO_LINK, SHF_LINK_ORDER = 0x10, 0x20, 0x40, 0x80
SHF_RELA_LIVEPATCH = 0x00100000
SHN_UNDEF, SHN_ABS, SHN_COMMON, SHN_XINDEX = 0, 0xFFF1, 0xFFF2, 0xFFFF
SHN_LIVEPATCH = 0xFF20
STB_LOCAL, STB_GLOBAL, STB_WEAK = 0, 1, 2
STT_NOTYPE, STT_OBJECT, STT_FUNC, STT_SECTION, STT_FILE = 0, 1, 2, 3, 4

R_X86_64_NONE, R_X86_64_64, R_X86_64_PC32, R_X86_64_PLT32 = 0, 1, 2, 4
R_X86_64_32, R_X86_64_32S, R_X86_64_PC64 = 10, 11, 24
PC_RELATIVE = frozenset({R_X86_64_PC32, R_X86_64_PLT32, R_X86_64_PC64})
WIDTH = {R_X86_64_64: 8, R_X86_64_PC64: 8, R_X86_64_PC32: 4, R_X86_64_PLT32: 4, R_X86_64_32: 4, R_X86_64_32S: 4}
"""Bytes that a relocation writes, by its type."""

_LIVEPATCH = ".klp.rela."
_EHDR = struct.Struct("<16sHHIQQQIHHHHHH")
_SHDR = struct.Struct("<IIQQQQIIQQ")
_SYM = struct.Struct("<IBBHQQ")
_RELA = struct.Struct("<QQq")


@dataclass(eq=False, slots=True)
class Section:
    """A section, with the relocations that apply to it.

    Attributes:
        name: Its name.
        type: SHT_PROGBITS and so on.
        flags: SHF_ALLOC and so on.
        data: Its bytes; empty for SHT_NOBITS.
        size: Its size in memory.
        align: Alignment, in bytes.
        entsize: Size of an entry, for tables and merged strings.
        relocs: What the linker has to write into it, in the order of their offsets.
        link: With SHF_LINK_ORDER, the section that this one belongs to.
        livepatch: What the livepatch core has to write into it, by the object that must be loaded before it can:
            the rows of `.klp.rela.OBJECT.NAME`.
    """

    name: str
    type: int = SHT_PROGBITS
    flags: int = 0
    data: bytearray = field(default_factory=bytearray, repr=False)
    size: int = 0
    align: int = 1
    entsize: int = 0
    relocs: list[Reloc] = field(default_factory=list, repr=False)
    link: Section | None = field(default=None, repr=False)
    livepatch: dict[str, list[Reloc]] = field(default_factory=dict, repr=False)

    @property
    def allocated(self) -> bool:
        """Whether it is there at run time."""
        return bool(self.flags & SHF_ALLOC)

    @property
    def executable(self) -> bool:
        """Whether it holds code."""
        return bool(self.flags & SHF_EXECINSTR)

    @property
    def writable(self) -> bool:
        """Whether it holds data that can change."""
        return bool(self.flags & SHF_WRITE)

    @property
    def merged(self) -> bool:
        """Whether the linker merges equal constants of several objects in it."""
        return bool(self.flags & SHF_MERGE)


@dataclass(eq=False, slots=True)
class Symbol:
    """A symbol.

    Attributes:
        name: Its name; "" for the symbol of a section.
        value: Offset in its section, or an absolute value.
        size: Bytes, or 0 when it does not say.
        bind: STB_LOCAL and so on.
        type: STT_FUNC and so on.
        other: Visibility.
        section: Where it is defined; None when it is not, or is absolute.
        shndx: SHN_UNDEF, SHN_ABS, SHN_LIVEPATCH when `section` is None.
    """

    name: str
    value: int = 0
    size: int = 0
    bind: int = STB_LOCAL
    type: int = STT_NOTYPE
    other: int = 0
    section: Section | None = field(default=None, repr=False)
    shndx: int = SHN_UNDEF

    @property
    def undefined(self) -> bool:
        """Whether another object has to define it."""
        return self.section is None and self.shndx == SHN_UNDEF

    @property
    def is_section(self) -> bool:
        """Whether it stands for a whole section."""
        return self.type == STT_SECTION

    @property
    def is_func(self) -> bool:
        """Whether it names code."""
        return self.type == STT_FUNC


@dataclass(eq=False, slots=True)
class Reloc:
    """A relocation: what is to be written at *offset* of the section that has it.

    Attributes:
        offset: Bytes from the beginning of the section.
        type: R_X86_64_PC32 and so on.
        symbol: What it refers to.
        addend: What is added to the symbol's address.
    """

    offset: int
    type: int
    symbol: Symbol
    addend: int

    @property
    def pc_relative(self) -> bool:
        """Whether the distance is written, not the address."""
        return self.type in PC_RELATIVE

    @property
    def target(self) -> int:
        """Offset from the symbol to the byte that is meant, whatever the instruction adds to it.

        A field that is relative to the end of an instruction has the distance from the field to there in its
        addend: 4 when the field ends the instruction, as it nearly always does.
        """
        return self.addend + 4 if self.type in (R_X86_64_PC32, R_X86_64_PLT32) else self.addend


class Object:
    """A relocatable object or module file."""

    def __init__(self, sections: Iterable[Section] = (), symbols: Iterable[Symbol] = ()) -> None:
        self.sections: list[Section] = list(sections)
        self.symbols: list[Symbol] = list(symbols)

    @classmethod
    def open(cls, path: Path) -> Self:
        """Read the object file *path*.

        Raises:
            BadDataError: It is not a relocatable x86-64 ELF object, or damaged.
        """
        return cls.parse(path.read_bytes(), str(path))

    @classmethod
    def parse(cls, data: bytes, name: str = "object") -> Self:
        """Read an object from memory; *name* is what errors call it."""
        try:
            elf = ELFFile(io.BytesIO(data))
            if elf["e_type"] != "ET_REL" or elf["e_machine"] != "EM_X86_64":
                raise BadDataError(f"{name} is not a relocatable x86-64 object")
            headers = [elf._get_section_header(number) for number in range(elf.num_sections())]
            names = [elf._get_section_name(header) for header in headers]
        except ELFError as error:
            raise BadDataError(f"{name} is not an ELF object: {error}") from error
        raw = [struct.unpack_from("<I", data, elf["e_shoff"] + n * elf["e_shentsize"] + 4)[0]
               for n in range(len(headers))]
        made = cls()
        by_index: dict[int, Section] = {}
        for index, (header, kind) in enumerate(zip(headers, raw, strict=True)):
            if kind in (0, SHT_SYMTAB, SHT_STRTAB, SHT_RELA):
                continue
            start, size = header["sh_offset"], header["sh_size"]
            content = bytearray() if kind == SHT_NOBITS else bytearray(data[start:start + size])
            section = Section(names[index], kind, header["sh_flags"], content, size,
                              header["sh_addralign"] or 1, header["sh_entsize"])
            by_index[index] = section
            made.sections.append(section)
        for index, section in by_index.items():
            if section.flags & SHF_LINK_ORDER:
                section.link = by_index.get(headers[index]["sh_link"])
        table = next((n for n, kind in enumerate(raw) if kind == SHT_SYMTAB), None)
        symbols = made._parse_symbols(data, headers, table, by_index) if table is not None else []
        for index, kind in enumerate(raw):
            header = headers[index]
            target = by_index.get(header["sh_info"]) if kind == SHT_RELA else None
            if target is None:
                continue
            start = header["sh_offset"]
            relocs = [
                Reloc(offset, info & 0xFFFFFFFF, symbols[info >> 32], addend)
                for offset, info, addend in _RELA.iter_unpack(data[start:start + header["sh_size"]])
            ]
            relocs.sort(key=lambda reloc: reloc.offset)
            if header["sh_flags"] & SHF_RELA_LIVEPATCH:
                target.livepatch[names[index].removeprefix(_LIVEPATCH).removesuffix(f".{target.name}")] = relocs
            else:
                target.relocs = relocs
        made.symbols = symbols[1:]
        return made

    def _parse_symbols(
        self, data: bytes, headers: list[Any], table: int, by_index: dict[int, Section],
    ) -> list[Symbol]:
        header = headers[table]
        strings = headers[header["sh_link"]]
        names = data[strings["sh_offset"]:strings["sh_offset"] + strings["sh_size"]]
        start = header["sh_offset"]
        symbols = []
        for name, info, other, shndx, value, size in _SYM.iter_unpack(data[start:start + header["sh_size"]]):
            section = by_index.get(shndx)
            text = names[name:names.index(b"\0", name)].decode(errors="surrogateescape")
            symbols.append(Symbol(text, value, size, info >> 4, info & 15, other, section,
                                  shndx if section is None else SHN_UNDEF))
        return symbols

    def section(self, name: str) -> Section | None:
        """Return the section *name*, or None."""
        return next((section for section in self.sections if section.name == name), None)

    def write(self, path: Path) -> None:
        """Write the object: the same object gives the same bytes."""
        path.write_bytes(self.pack())

    def pack(self) -> bytes:
        """Return the bytes of the object file."""
        headers: list[tuple[str, Section | None, bytes, tuple[int, ...]]] = []
        index = {id(section): number for number, section in enumerate(self.sections, 1)}
        # local symbols come first, as the format wants them
        ordered = sorted(self.symbols, key=lambda symbol: symbol.bind != STB_LOCAL)
        locals_ = 1 + sum(symbol.bind == STB_LOCAL for symbol in ordered)
        number = {id(symbol): n for n, symbol in enumerate(ordered, 1)}
        tables = [*((section, f".rela{section.name}", 0, section.relocs)
                    for section in self.sections if section.relocs),
                  *((section, f"{_LIVEPATCH}{target}.{section.name}", SHF_ALLOC | SHF_RELA_LIVEPATCH, relocs)
                    for section in self.sections for target, relocs in sorted(section.livepatch.items()) if relocs)]
        symtab = len(self.sections) + len(tables) + 1
        strings = _Strings()
        table = bytearray(_SYM.size)
        for symbol in ordered:
            shndx = index[id(symbol.section)] if symbol.section is not None else symbol.shndx
            table += _SYM.pack(strings.add(symbol.name), symbol.bind << 4 | symbol.type, symbol.other,
                               shndx, symbol.value, symbol.size)
        for section in self.sections:
            link = index[id(section.link)] if section.link is not None else 0
            headers.append((section.name, section, bytes(section.data),
                            (section.type, section.flags, link, 0, section.align, section.entsize)))
        for section, name, flags, relocs in tables:
            rows = b"".join(
                _RELA.pack(reloc.offset, number[id(reloc.symbol)] << 32 | reloc.type, reloc.addend)
                for reloc in relocs)
            headers.append((name, None, rows,
                            (SHT_RELA, SHF_INFO_LINK | flags, symtab, index[id(section)], 8, _RELA.size)))
        headers.append((".symtab", None, bytes(table), (SHT_SYMTAB, 0, symtab + 1, locals_, 8, _SYM.size)))
        headers.append((".strtab", None, bytes(strings.data), (SHT_STRTAB, 0, 0, 0, 1, 0)))
        return _layout(headers)


class _Strings:
    """A string table under construction."""

    def __init__(self) -> None:
        self.data = bytearray(b"\0")
        self._known = {"": 0}

    def add(self, text: str) -> int:
        if text not in self._known:
            self._known[text] = len(self.data)
            self.data += text.encode(errors="surrogateescape") + b"\0"
        return self._known[text]


def _layout(headers: list[tuple[str, Section | None, bytes, tuple[int, ...]]]) -> bytes:
    names = _Strings()
    for name, *_ in headers:
        names.add(name)
    shstrtab = names.add(".shstrtab")
    headers = [*headers, (".shstrtab", None, bytes(names.data), (SHT_STRTAB, 0, 0, 0, 1, 0))]
    out = bytearray(_EHDR.size)
    rows = [bytes(_SHDR.size)]
    for name, section, data, (kind, flags, link, info, align, entsize) in headers:
        out += bytes(-len(out) % align)
        size = section.size if section is not None and kind == SHT_NOBITS else len(data)
        at = shstrtab if name == ".shstrtab" else names.add(name)
        rows.append(_SHDR.pack(at, kind, flags, 0, len(out), size, link, info, align, entsize))
        out += data
    out += bytes(-len(out) % 8)
    ident = b"\x7fELF\x02\x01\x01" + bytes(9)
    _EHDR.pack_into(out, 0, ident, 1, 62, 1, 0, 0, len(out), 0, _EHDR.size, 0, 0, _SHDR.size, len(rows), len(rows) - 1)
    return bytes(out + b"".join(rows))
