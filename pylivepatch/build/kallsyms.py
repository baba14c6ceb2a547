# SPDX-License-Identifier: MIT
"""The names and addresses of a kernel's symbols, decoded from its image.

Distributions strip the symbol table from the image that boots, and ship no System.map. What is left is what the
kernel itself uses: the tables that scripts/kallsyms.c compiles into it, found here by their own structure. The
livepatch core resolves names through the same tables, in the same order.
"""

from __future__ import annotations

import struct
from collections import defaultdict
from itertools import pairwise
from typing import NamedTuple

from pylivepatch.errors import BadDataError

_DIGITS = b"".join(bytes((digit, 0)) for digit in b"0123456789")
_TOKENS = 256
_PER_MARKER = 256
_KERNEL = 0x1FFFFFFFF
"""The upper bits of each address of the kernel's image."""

_ORDER_MOST = 3 << 20
"""Bytes that the order of the names takes at most: three for each symbol."""


class KernelSymbol(NamedTuple):
    """A symbol of the kernel's own table.

    Attributes:
        address: Where it is, as linked: without KASLR. For per-CPU data the offset in the per-CPU area.
        type: The letter that nm has for it.
        name: Its name.
    """

    address: int
    type: str
    name: str


class Kallsyms:
    """The symbol table of a kernel image, in the kernel's own order.

    Attributes:
        symbols: All of them, by address.
    """

    def __init__(self, symbols: list[KernelSymbol]) -> None:
        self.symbols = symbols
        self._named: dict[str, list[int]] = defaultdict(list)
        self._placed: dict[int, list[str]] = defaultdict(list)
        self._global = {(name, address) for address, type_, name in symbols if type_.isupper() and type_ != "A"}
        self._static = {(name, address) for address, type_, name in symbols if type_.islower() and type_ != "a"}
        for address, _, name in symbols:
            self._named[name].append(address)
            self._placed[address].append(name)

    def addresses(self, name: str) -> list[int]:
        """Return where symbols called *name* are, in the order in which sympos counts them."""
        return self._named.get(name, [])

    def names(self, address: int) -> list[str]:
        """Return what is at *address*."""
        return self._placed.get(address, [])

    def is_global(self, name: str, address: int) -> bool:
        """Tell whether the symbol *name* at *address* is visible to other sources: nm's letter is a capital then."""
        return (name, address) in self._global

    def is_static(self, name: str, address: int) -> bool:
        """Tell whether only one source can see the symbol *name* at *address*; of per-CPU data, nothing tells."""
        return (name, address) in self._static

    def sympos(self, name: str, address: int) -> int:
        """Return which of the symbols called *name* is the one at *address*: 0 when there is no other.

        Raises:
            LookupError: *name* is not at *address*.
        """
        places = self.addresses(name)
        if address not in places:
            raise LookupError(f"no {name} at {address:#x}")
        return 0 if len(places) == 1 else places.index(address) + 1

    @classmethod
    def decode(cls, rodata: bytes, name: str = "image", base: int = 0) -> Kallsyms:
        """Find and decode the tables in the kernel's read-only data.

        Args:
            rodata: The data.
            name: What they are of, for the message of an error.
            base: Their address.

        Raises:
            BadDataError: They are not there: no CONFIG_KALLSYMS_ALL, or a layout that is not known.
        """
        tables = _Tables(rodata, name, base)
        return cls([KernelSymbol(address, chr(text[0]), text[1:].decode(errors="replace"))
                    for address, text in zip(tables.addresses(), tables.names(), strict=True)])


class _Tables:
    """Where the tables are.

    Before 6.4 the addresses stand before the names, since then behind the tokens. They are offsets from an address
    that follows them; since 7.0 (a081b5789255) each is relative to its own place, and tables are aligned to four
    bytes instead of eight.
    """

    def __init__(self, rodata: bytes, name: str, base: int) -> None:
        self.rodata = rodata
        self._base = base
        self._error = BadDataError(f"{name}: no symbol tables (CONFIG_KALLSYMS_ALL) found in it")
        self._find_tokens()
        self._find_markers()
        self._find_names()

    def _find_tokens(self) -> None:
        at = -1
        while (at := self.rodata.find(_DIGITS, at + 1)) >= 0:
            end = at
            for _ in range(_TOKENS - ord("0")):
                end = self.rodata.find(b"\0", end) + 1
            for index in range(end, end + 16):
                offsets = struct.unpack_from(f"<{_TOKENS}H", self.rodata, index)
                start = at - offsets[ord("0")]
                if offsets[0] == 0 and offsets[-1] < end - start and self._tokens_fit(start, end, offsets):
                    self.start, self.end = start, index + 2 * _TOKENS
                    self.tokens = self.rodata[start:end].split(b"\0")[:_TOKENS]
                    return
        raise self._error

    def _tokens_fit(self, start: int, end: int, offsets: tuple[int, ...]) -> bool:
        place = 0
        for token, offset in zip(self.rodata[start:end].split(b"\0"), offsets, strict=False):
            if place != offset:
                return False
            place += len(token) + 1
        return True

    def _find_markers(self) -> None:
        """They count up from 0, and stand before the tokens, or before the sorted order of names between."""
        for last in range((self.start & ~3) - 4, max(0, self.start - _ORDER_MOST), -4):
            if markers := self._markers_before(last):
                self.markers, self._markers_at = markers, last + 4 - 4 * len(markers)
                return
        raise self._error

    def _markers_before(self, last: int) -> list[int]:
        """Return the row of offsets whose last one is at *last*, or nothing when there is no such row."""
        row = [value := self._word(last)]
        while value and last >= 4:
            last -= 4
            below = self._word(last)
            if not _PER_MARKER * 2 < value - below < _PER_MARKER * 128:
                return []
            row.append(value := below)
        return row[::-1] if len(row) > 1 else []

    def _find_names(self) -> None:
        """The number of symbols stands before the names, whose length the last marker tells nearly."""
        most = self._markers_at - self.markers[-1]
        for at in range(most & ~3, max(0, most - _PER_MARKER * 80), -4):
            count = self._word(at)
            if -(-count // _PER_MARKER) != len(self.markers):
                continue
            for names in (at + 8, at + 4):  # with padding, and without
                if self._names_fit(names):
                    self.count, self._names_at, self._count_at = count, names, at
                    return
        raise self._error

    def _names_fit(self, at: int) -> bool:
        if len(self.markers) < 2:
            return True
        place = at
        for _ in range(_PER_MARKER):
            place += sum(self._length(place))
        return place - at == self.markers[1]

    def _length(self, at: int) -> tuple[int, int]:
        """Return the size of a name's length, and the length; long names have two bytes of it since 6.1."""
        first = self.rodata[at]
        return (2, first & 0x7F | self.rodata[at + 1] << 7) if first & 0x80 else (1, first)

    def names(self) -> list[bytes]:
        rodata, tokens, at = self.rodata, self.tokens, self._names_at
        names = []
        for _ in range(self.count):
            size, length = self._length(at)
            at += size
            names.append(b"".join([tokens[byte] for byte in rodata[at:at + length]]))
            at += length
        return names

    def addresses(self) -> list[int]:
        size = -(-self.count * 4 // 8) * 8
        behind = -(-self.end // 8) * 8
        for offsets, base in ((self._count_at - 8 - size, self._count_at - 8), (behind, behind + size)):
            found = self._from_base(offsets, base)
            if found and _ascend(found):
                return found
        found = self._from_own_places(-(-self.end // 4) * 4)
        if found and found[0] >> 31 == _KERNEL == found[-1] >> 31 and _ascend(found):
            return found
        raise self._error

    def _row(self, at: int) -> tuple[int, ...]:
        fits = 0 <= at <= len(self.rodata) - 4 * self.count
        return struct.unpack_from(f"<{self.count}i", self.rodata, at) if fits else ()

    def _from_base(self, offsets: int, base: int) -> list[int]:
        if not 0 <= base <= len(self.rodata) - 8:
            return []
        start = struct.unpack_from("<Q", self.rodata, base)[0]
        row = self._row(offsets)
        if start >> 31 != _KERNEL or not row:
            return []
        if min(row) >= 0:  # since 6.15 per-CPU data has ordinary addresses, and no sign tells it apart
            return [start + offset for offset in row]
        return [offset if offset >= 0 else start - 1 - offset for offset in row]

    def _from_own_places(self, offsets: int) -> list[int]:
        start = self._base + offsets
        return [start + 4 * place + offset for place, offset in enumerate(self._row(offsets))]

    def _word(self, at: int) -> int:
        return int(struct.unpack_from("<I", self.rodata, at)[0])


def _ascend(addresses: list[int]) -> bool:
    return all(low <= high for low, high in pairwise(addresses))
