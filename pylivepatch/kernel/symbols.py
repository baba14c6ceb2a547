# SPDX-License-Identifier: MIT
"""The running kernel's symbol table, and what its memory tells of the symbols that it exports.

The kernel shows its table of exports, with the CRC of each, nowhere as text. Root can
read it from the kernel's memory, which is the truth; the next best is
`pylivepatch.module.versions`.
"""

from __future__ import annotations

import contextlib
import os
import struct
from typing import TYPE_CHECKING, NamedTuple, Self

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

LAYOUT = "module_layout"
"""Exported by every kernel that checks versions; its CRC covers ``struct module``."""

_TABLES = ("", "_gpl")
_CRC = 4
_PT_LOAD = 1
_EHDR = 64
_PHDR = "=IIQQQQQQ"
_LONGEST_TEXT = 256
_CHUNK = 1 << 20


class Found(NamedTuple):
    """A symbol; `module` is "" for the kernel image, `address` 0 for those who may not see it."""

    address: int
    module: str


class Kallsyms:
    """What the kernel's symbol table says about some names.

    Args:
        root: Where /proc is found.
        names: The names.

    Raises:
        OSError: The table cannot be read.

    Source: /proc/kallsyms; the addresses are for root alone.
    """

    def __init__(self, root: Path, names: Iterable[str]) -> None:
        data = _all(root / "proc/kallsyms")
        self._found = {name: list(_find(data, name.encode())) for name in names}

    def count(self, name: str, module: str) -> int:
        """Count symbols of a name in a module, or in the kernel image ("")."""
        return sum(found.module == module for found in self._found.get(name, ()))

    def find(self, name: str) -> Found | None:
        """Find a symbol by name: that of the kernel image, or else the first of a module."""
        found = self._found.get(name)
        if not found:
            return None
        return next((each for each in found if not each.module), found[0])

    def address(self, name: str) -> int:
        """Find the address of a symbol of the kernel image; 0 when it is not known."""
        found = self.find(name)
        return found.address if found and not found.module else 0


def _all(path: Path) -> bytes:
    data = bytearray()
    with path.open("rb", buffering=0) as file:
        while chunk := file.read(_CHUNK):
            data += chunk
    return bytes(data)


def _find(data: bytes, name: bytes) -> Iterator[Found]:
    wanted = b" " + name
    at = data.find(wanted)
    while at >= 0:
        end = data.find(b"\n", at)
        fields = data[data.rfind(b"\n", 0, at) + 1 : end if end >= 0 else len(data)].split()
        if fields[2] == name:
            yield Found(int(fields[0], 16), fields[3].strip(b"[]").decode() if len(fields) > 3 else "")
        at = data.find(wanted, at + 1)


def wanted(names: Iterable[str]) -> Iterator[str]:
    """Name what must be known of the symbol table for `Memory.crcs`."""
    yield from (f"__ksymtab_{name}" for name in names)
    yield f"__ksymtab_{LAYOUT}"
    yield "vermagic"
    for table in _TABLES:
        for end in ("start", "stop"):
            yield from (f"__{end}___ksymtab{table}", f"__{end}___kcrctab{table}")


class Memory:
    """The kernel's own memory. For root, without lockdown of confidentiality.

    Raises:
        OSError: It cannot be read.

    Source: /proc/kcore (CONFIG_PROC_KCORE), an ELF core file.
    """

    def __init__(self, root: Path) -> None:
        self._file = os.open(root / "proc/kcore", os.O_RDONLY | os.O_CLOEXEC)
        try:
            self._parts = list(self._headers())
        except (OSError, OverflowError, struct.error) as error:
            os.close(self._file)
            raise OSError(f"/proc/kcore cannot be read: {error}") from error

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        os.close(self._file)

    def read(self, address: int, length: int) -> bytes:
        """Read at an address of the kernel; raises OSError when that cannot be read."""
        for start, size, offset in self._parts:
            if start <= address < start + size:
                data = os.pread(self._file, length, offset + address - start)
                if len(data) == length:
                    return data
        raise OSError(f"/proc/kcore does not have {length} bytes there")

    def _headers(self) -> Iterator[tuple[int, int, int]]:
        head = os.pread(self._file, _EHDR, 0)
        start, count = *struct.unpack_from("=Q", head, 32), *struct.unpack_from("=H", head, 56)
        table = os.pread(self._file, struct.calcsize(_PHDR) * count, start)
        for kind, _, offset, address, _, size, _, _ in struct.iter_unpack(_PHDR, table):
            if kind == _PT_LOAD:
                yield address, size, offset

    def vermagic(self, symbols: Kallsyms) -> str:
        """Read what modules must say about the kernel they were built for; "" when it is not found.

        Source: ``vermagic`` of ``kernel/module``.
        """
        address = symbols.address("vermagic")
        if not address:
            return ""
        return self.read(address, _LONGEST_TEXT).partition(b"\0")[0].decode(errors="replace")

    def crcs(self, root: Path, symbols: Kallsyms, names: Iterable[str]) -> dict[str, int]:
        """Read the CRCs of exported symbols, by name; what is not exported is left out.

        Raises:
            OSError: They cannot be read.

        Source: the sections __ksymtab and __kcrctab of the kernel and of each module.
        """
        width = self._width(symbols)
        return {
            name: struct.unpack("=I", self.read(crc, _CRC))[0]
            for name in names
            if (crc := self._place(root, symbols, name, width))
        }

    @staticmethod
    def _width(symbols: Kallsyms) -> int:
        # An entry of __ksymtab has 12 bytes, or 24 without CONFIG_HAVE_ARCH_PREL32_RELOCATIONS.
        entries, crcs = (
            symbols.address(f"__stop___{kind}") - symbols.address(f"__start___{kind}")
            for kind in ("ksymtab", "kcrctab")
        )
        if entries <= 0 or crcs <= 0:
            raise OSError("/proc/kallsyms does not show where the exported symbols are")
        return entries * _CRC // crcs

    @staticmethod
    def _place(root: Path, symbols: Kallsyms, name: str, width: int) -> int:
        found = symbols.find(f"__ksymtab_{name}")
        if found is None:
            return 0
        sections = root / "sys/module" / found.module / "sections"
        for table in _TABLES:
            if found.module:
                starts = [_number(sections / f"__{kind}{table}") for kind in ("ksymtab", "kcrctab")]
            else:
                starts = [symbols.address(f"__start___{kind}{table}") for kind in ("ksymtab", "kcrctab")]
                if found.address >= symbols.address(f"__stop___ksymtab{table}"):
                    continue
            index, rest = divmod(found.address - starts[0], width)
            if all(starts) and index >= 0 and not rest:
                return starts[1] + index * _CRC
        return 0


def _number(path: Path) -> int:
    with contextlib.suppress(OSError, ValueError):
        return int(path.read_text(), 16)
    return 0
