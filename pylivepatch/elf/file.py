# SPDX-License-Identifier: MIT
"""Module files as ELF: read, unpacked, and taken apart without trusting them."""

from __future__ import annotations

import contextlib
import functools
import io
import lzma
import os
import re
import stat
import struct
import zlib
from typing import TYPE_CHECKING, NamedTuple, Protocol, Self

from pylivepatch.errors import ModuleFileError, PatchNotFoundError, UnsupportedError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from elftools.elf.sections import Section

SUFFIXES = (".ko", ".ko.xz", ".ko.zst", ".ko.gz")

LARGEST = 512 << 20
"""Bytes of a module, packed or not, that are read; the largest of Debian's has 30 MB."""

SIGNATURE = b"~Module signature appended~\n"
_BUILD_ID_TYPE = 3
_BITS = 64
_UNDEFINED = 0
_WEAK = 2
_REMEDY = "build it again"
_ALLOC, _COMPRESSED = 0x2, 0x800
# KSYM_NAME_LEN
_LONGEST_NAME = 512
# What the kernel looks for by its name, and finds once.
_THIS_MODULE = ".gnu.linkonce.this_module"
_ONCE = (".modinfo", ".symtab", ".strtab", "__versions", "__version_ext_names", ".klpctl.diff", _THIS_MODULE)
# struct module { enum module_state state; struct list_head list; char name[MODULE_NAME_LEN]; …: so since 2.6
_NAME_AT, _NAME_LENGTH = 24, 56


class Symbol(NamedTuple):
    """An entry of the symbol table; `section` is its index, 0 for an undefined one."""

    name: str
    section: int
    value: int
    size: int
    weak: bool


class Image:
    """A module file's content.

    Attributes:
        path: The file.
        raw: All of it, as it was read.
        data: The same, unpacked.
        elf: The same, as pyelftools reads it.
    """

    def __init__(self, path: Path, raw: bytes, data: bytes) -> None:
        self.path = path
        self.raw = raw
        self.data = data
        # a quarter of the time that a command takes to start, and few read a file
        from elftools.elf.elffile import ELFFile

        self.elf: ELFFile = ELFFile(io.BytesIO(data))
        self.order = "<" if self.elf.little_endian else ">"

    @classmethod
    def read(cls, path: Path, opened: int | None = None) -> Self:
        """Read a file: plain, or compressed as .xz, .zst or .gz.

        Args:
            path: The file.
            opened: A descriptor of it, to be read in its place.

        Raises:
            PatchNotFoundError: There is no such file.
            ModuleFileError: It cannot be read, is not a kernel module, or one that would not be read as the
                kernel reads it.
            UnsupportedError: It is compressed with zstd, and zstandard is missing.
        """
        name = str(path)
        try:
            raw = _regular(path) if opened is None else _regular(opened)
        except FileNotFoundError:
            raise PatchNotFoundError(
                f"there is no module file {path}", after="nothing has changed", remedy="check the path"
            ) from None
        except (OSError, ValueError) as error:
            raise ModuleFileError(f"it cannot be read: {error}", filename=name, remedy="give a .ko file") from error
        if not raw:
            raise ModuleFileError("it is empty", filename=name, remedy=_REMEDY)
        try:
            data = unpacked(raw)
        except OSError as error:
            raise ModuleFileError(f"its compression is damaged: {error}", filename=name, remedy=_REMEDY) from error
        if not data.startswith(b"\x7fELF"):
            raise ModuleFileError("it is not an ELF file", filename=name, remedy="give a .ko file")
        with damage(path):
            image = cls(path, raw, data)
            if image.elf["e_type"] != "ET_REL" or image.section(".modinfo") is None:
                raise ModuleFileError("it is not a kernel module", filename=name, remedy="give a .ko file")
            image._insist_on_one_reading()
        return image

    def section(self, name: str) -> Section | None:
        """Find a section: the first of that name, which is the one that the kernel takes."""
        return next((section for section in self.sections if section.name == name), None)

    def bytes_of(self, section: Section) -> bytes:
        """The bytes of a section as they are in the file, as the kernel reads them: nothing is unpacked."""
        if section["sh_type"] == "SHT_NOBITS":
            return b""
        start, size = section["sh_offset"], section["sh_size"]
        if start + size > len(self.data):
            raise ValueError(f"section {section.name} ends beyond the file")
        return self.data[start : start + size]

    def content(self, name: str) -> bytes:
        """Read a section; nothing when it is not there."""
        section = self.section(name)
        return b"" if section is None else self.bytes_of(section)

    def _insist_on_one_reading(self) -> None:
        """Refuse what tools and the kernel would read differently."""
        seen = set()
        for section in self.sections:
            if section["sh_flags"] & _ALLOC and section["sh_flags"] & _COMPRESSED:
                raise ValueError(f"section {section.name} is compressed, which the kernel does not unpack")
            if section.name in _ONCE and section.name in seen:
                raise ValueError(f"it has several sections {section.name}, of which the kernel takes one")
            seen.add(section.name)
        name = dict(reversed(self.modinfo)).get("name")
        module = self.content(_THIS_MODULE)[_NAME_AT : _NAME_AT + _NAME_LENGTH].partition(b"\0")[0]
        if self.elf.elfclass == _BITS and name and module and module.decode(errors="replace") != name:
            raise ValueError(f"its modinfo names it {name!r}, and the kernel would name it {module!r}")

    @functools.cached_property
    def modinfo(self) -> tuple[tuple[str, str], ...]:
        """Every key=value of .modinfo, in the order of the file."""
        entries = self.content(".modinfo").split(b"\0")
        pairs = (entry.decode(errors="replace").partition("=") for entry in entries if entry)
        return tuple((key, value) for key, _, value in pairs)

    @functools.cached_property
    def sections(self) -> tuple[Section, ...]:
        """All sections, by index."""
        return tuple(self.elf.iter_sections())

    @functools.cached_property
    def symbols(self) -> tuple[Symbol, ...]:
        """The symbol table, by index; empty for a machine of 32 bits."""
        if self.elf.elfclass != _BITS:
            return ()
        names, table = self.content(".strtab"), self.content(".symtab")
        symbols, texts = [], dict[int, str]()
        for name, info, _, section, value, size in struct.iter_unpack(f"{self.order}IBBHQQ", table):
            if name not in texts:
                end = names.find(b"\0", name, name + _LONGEST_NAME + 1)
                if end < 0:
                    raise ValueError(f"a symbol's name has more than {_LONGEST_NAME} characters, or no end")
                texts[name] = names[name:end].decode(errors="replace")
            symbols.append(Symbol(texts[name], section, value, size, info >> 4 == _WEAK))
        return tuple(symbols)

    @property
    def undefined(self) -> Iterator[Symbol]:
        """Symbols that the module takes from others."""
        return (symbol for symbol in self.symbols if symbol.section == _UNDEFINED and symbol.name)

    @property
    def versions(self) -> dict[str, int]:
        """CRCs of the symbols it takes, as it was built with.

        Source: ``struct modversion_info``; sections of their own since 6.14.
        """
        entries = struct.iter_unpack(f"{self.order}Q56s", self.content("__versions"))
        found = {_text(name): crc for crc, name in entries}
        names = self.content("__version_ext_names").split(b"\0")
        crcs = struct.iter_unpack(f"{self.order}I", self.content("__version_ext_crcs"))
        return found | {_text(name): crc for name, (crc,) in zip(names, crcs, strict=False)}

    @property
    def build_id(self) -> str:
        """What the linker named this build, in hexadecimal; "" without it."""
        return build_id(self.content(".note.gnu.build-id"), self.order)

    @property
    def signed(self) -> bool:
        """Whether a signature is appended; it is not verified."""
        return self.data.endswith(SIGNATURE)


def build_id(notes: bytes, order: str = "<") -> str:
    """Read the build ID among ELF notes, in hexadecimal; "" when there is none."""
    at = 0
    with contextlib.suppress(struct.error):
        while True:
            name, size, kind = struct.unpack_from(f"{order}III", notes, at)
            text = at + 12 + -(-name // 4) * 4
            if kind == _BUILD_ID_TYPE and notes[at + 12 : at + 12 + name] == b"GNU\0":
                return notes[text : text + size].hex()
            at = text + -(-size // 4) * 4
    return ""


@contextlib.contextmanager
def damage(path: Path) -> Iterator[None]:
    """Report what goes wrong in taking a file apart as damage of the file."""
    try:
        yield
    except ModuleFileError:
        raise
    except MemoryError:
        raise
    except Exception as error:  # pyelftools trusts what it reads: any error is damage
        raise ModuleFileError(f"it is damaged: {error}", filename=str(path), remedy=_REMEDY) from error


def module_name(path: str) -> str:
    """A module's name after its file, as the kernel spells it."""
    return re.sub(r"\.ko(\.\w+)?\Z", "", path.rpartition("/")[2]).partition(".")[0].replace("-", "_")


def unpacked(data: bytes) -> bytes:
    """Unpack what is compressed as .xz, .zst or .gz, up to `LARGEST`; anything else is returned as it is.

    Raises:
        OSError: It is damaged, or too large.
        UnsupportedError: It is compressed with zstd, and zstandard is missing.
    """
    try:
        if data.startswith(b"\xfd7zXZ\0"):
            return _bounded(lzma.LZMADecompressor(memlimit=LARGEST), data)
        if data.startswith(b"\x1f\x8b"):
            return _bounded(zlib.decompressobj(_GZIP), data)
        if data.startswith(b"\x28\xb5\x2f\xfd"):
            return _zstd(data)
    except (lzma.LZMAError, zlib.error, EOFError) as error:
        raise OSError(str(error)) from error
    return data


_GZIP = 31
_TOO_LARGE = f"it has more than {LARGEST >> 20} MiB"


def _bounded(unpacker: _Unpacker, data: bytes) -> bytes:
    text = unpacker.decompress(data, LARGEST + 1)
    if len(text) > LARGEST:
        raise OSError(f"unpacked {_TOO_LARGE}")
    if not unpacker.eof:
        raise EOFError("it ends too early")
    return text


class _Unpacker(Protocol):
    @property
    def eof(self) -> bool: ...

    def decompress(self, data: bytes, max_length: int, /) -> bytes: ...


def _zstd(data: bytes) -> bytes:
    try:
        import zstandard
    except ImportError:
        raise UnsupportedError(
            "reading .zst modules needs the package zstandard",
            feature="zstd",
            remedy="install zstandard, or unpack the file with zstd -d",
        ) from None
    found = bytearray()
    try:
        with zstandard.ZstdDecompressor(max_window_size=LARGEST).stream_reader(data) as stream:
            while piece := stream.read(_CHUNK):
                found += piece
                if len(found) > LARGEST:
                    raise OSError(f"unpacked {_TOO_LARGE}")
    except zstandard.ZstdError as error:
        raise OSError(str(error)) from error
    return bytes(found)


_CHUNK = 1 << 20


def _regular(path: Path | int) -> bytes:
    """Read a file, which must be a regular one: a device or a FIFO would never end."""
    descriptor = path if isinstance(path, int) else os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        about = os.fstat(descriptor)
        if not stat.S_ISREG(about.st_mode):
            raise OSError("it is not a regular file")
        if about.st_size > LARGEST:
            raise OSError(_TOO_LARGE)
        with open(descriptor, "rb", closefd=False) as file:
            file.seek(0)
            return file.read(LARGEST + 1)
    finally:
        if descriptor is not path:
            os.close(descriptor)


def _text(name: bytes) -> str:
    return name.partition(b"\0")[0].decode(errors="replace")
