# SPDX-License-Identifier: MIT
"""Module files as ELF: read, unpacked, and taken apart without trusting them."""

from __future__ import annotations

import contextlib
import functools
import gzip
import io
import lzma
import re
import struct
import zlib
from typing import TYPE_CHECKING, NamedTuple, Self

from pylivepatch.errors import ModuleFileError, PatchNotFoundError, UnsupportedError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from elftools.elf.sections import Section

SUFFIXES = (".ko", ".ko.xz", ".ko.zst", ".ko.gz")

_SIGNATURE = b"~Module signature appended~\n"
_BUILD_ID_TYPE = 3
_BITS = 64
_UNDEFINED = 0
_WEAK = 2
_REMEDY = "build it anew"


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
        data: All of it, unpacked.
        elf: The same, as pyelftools reads it.
    """

    def __init__(self, path: Path, data: bytes) -> None:
        self.path = path
        self.data = data
        # a quarter of the time that a command takes to start, and few read a file
        from elftools.elf.elffile import ELFFile

        self.elf = ELFFile(io.BytesIO(data))
        self.order = "<" if self.elf.little_endian else ">"

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read a file: plain, or compressed as .xz, .zst or .gz.

        Raises:
            PatchNotFoundError: There is no such file.
            ModuleFileError: It cannot be read, or it is no kernel module.
            UnsupportedError: It is compressed with zstd, and zstandard is missing.
        """
        try:
            data = path.read_bytes()
        except FileNotFoundError:
            raise PatchNotFoundError(
                f"there is no module file {path}",
                after="nothing has changed",
                remedy="check the path",
            ) from None
        except (OSError, ValueError) as error:
            raise ModuleFileError(f"it cannot be read: {error}", filename=str(path)) from error
        if not data:
            raise ModuleFileError("it is empty", filename=str(path), remedy=_REMEDY)
        data = _decompressed(data, str(path))
        if not data.startswith(b"\x7fELF"):
            raise ModuleFileError("it is not an ELF file", filename=str(path), remedy="give a .ko file")
        with damage(path):
            image = cls(path, data)
            if image.elf["e_type"] != "ET_REL" or image.section(".modinfo") is None:
                raise ModuleFileError("it is not a kernel module", filename=str(path), remedy="give a .ko file")
        return image

    def section(self, name: str) -> Section | None:
        """Find a section."""
        return self.elf.get_section_by_name(name)

    def content(self, name: str) -> bytes:
        """Read a section; nothing when it is not there."""
        section = self.section(name)
        return b"" if section is None else bytes(section.data())

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
        symbols = []
        for name, info, _, section, value, size in struct.iter_unpack(f"{self.order}IBBHQQ", table):
            text = names[name : names.index(b"\0", name)].decode(errors="replace")
            symbols.append(Symbol(text, section, value, size, info >> 4 == _WEAK))
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
        return self.data.endswith(_SIGNATURE)


def build_id(note: bytes, order: str = "<") -> str:
    """Read the build ID from an ELF note, in hexadecimal; "" when it is none."""
    with contextlib.suppress(struct.error):
        name, size, kind = struct.unpack_from(f"{order}III", note)
        if kind == _BUILD_ID_TYPE and note[12 : 12 + name] == b"GNU\0":
            return note[12 + name : 12 + name + size].hex()
    return ""


@contextlib.contextmanager
def damage(path: Path) -> Iterator[None]:
    """Report what goes wrong in taking a file apart as damage of the file."""
    try:
        yield
    except ModuleFileError:
        raise
    except Exception as error:  # pyelftools trusts what it reads: any error is damage
        raise ModuleFileError(f"it is damaged: {error}", filename=str(path), remedy=_REMEDY) from error


def module_name(path: str) -> str:
    """A module's name after its file, as the kernel spells it."""
    return re.sub(r"\.ko(\.\w+)?\Z", "", path.rpartition("/")[2]).partition(".")[0].replace("-", "_")


def unpacked(data: bytes) -> bytes:
    """Unpack what is compressed as .xz, .zst or .gz; anything else is returned as it is.

    Raises:
        OSError: It is damaged.
        UnsupportedError: It is compressed with zstd, and zstandard is missing.
    """
    try:
        if data.startswith(b"\xfd7zXZ\0"):
            return lzma.decompress(data)
        if data.startswith(b"\x1f\x8b"):
            return gzip.decompress(data)
        if data.startswith(b"\x28\xb5\x2f\xfd"):
            return _zstd(data)
    except (lzma.LZMAError, zlib.error, EOFError) as error:
        raise OSError(str(error)) from error
    return data


def _decompressed(data: bytes, filename: str) -> bytes:
    try:
        return unpacked(data)
    except OSError as error:
        raise ModuleFileError(f"its compression is damaged: {error}", filename=filename, remedy=_REMEDY) from error


def _zstd(data: bytes) -> bytes:
    try:
        import zstandard
    except ImportError:
        raise UnsupportedError(
            "reading .zst modules needs the package zstandard",
            feature="zstd",
            remedy="install zstandard, or unpack the file with zstd -d",
        ) from None
    try:
        return zstandard.ZstdDecompressor().decompressobj().decompress(data)
    except zstandard.ZstdError as error:
        raise OSError(str(error)) from error


def _text(name: bytes) -> str:
    return name.partition(b"\0")[0].decode(errors="replace")
