# SPDX-License-Identifier: MIT
"""The kernel's symbol tables, and names that are not unique."""

from __future__ import annotations

import struct

import pytest

from pylivepatch import BadDataError
from pylivepatch.build.kallsyms import Kallsyms, KernelSymbol

BASE = 0xFFFFFFFF81000000


def tables(symbols: list[tuple[int, str]], *, late: bool) -> bytes:
    """Make the tables of scripts/kallsyms.c, without compression; *late* as since 6.4."""
    names, markers = b"", []
    for number, (_, name) in enumerate(symbols):
        if number % 256 == 0:
            markers.append(len(names))
        names += bytes((len(name),)) + name.encode()
    offsets = b"".join(struct.pack("<i", -1 - (address - BASE)) for address, _ in symbols)
    count = struct.pack("<Q", len(symbols))
    tokens, index = b"", []
    for byte in range(256):
        index.append(len(tokens))
        tokens += bytes((byte or 1, 0))
    table = [count, names, b"".join(struct.pack("<I", mark) for mark in markers), tokens,
             b"".join(struct.pack("<H", place) for place in index)]
    addresses = [offsets, struct.pack("<Q", BASE)]
    parts = [*table, *addresses] if late else [*addresses, *table]
    return bytes(64) + b"".join(part + bytes(-len(part) % 8) for part in parts) + bytes(64)


@pytest.mark.parametrize("late", [False, True])
def test_decoding(late: bool) -> None:
    """Names and addresses come out as they went in, for both orders of the tables."""
    symbols = [(BASE + 16 * n, f"{'tTdD'[n % 4]}symbol_{n}") for n in range(700)]
    found = Kallsyms.decode(tables(symbols, late=late))
    assert [(each.address, each.type + each.name) for each in found.symbols] == symbols


def test_an_image_without_tables() -> None:
    """It is said to have none."""
    with pytest.raises(BadDataError, match="no symbol tables"):
        Kallsyms.decode(bytes(4096), "image")


def test_sympos() -> None:
    """Equal names are counted in the order of the table; a name that is unique has none."""
    found = Kallsyms([KernelSymbol(1, "t", "one"), KernelSymbol(2, "t", "twice"), KernelSymbol(3, "T", "twice")])
    assert [found.sympos("one", 1), found.sympos("twice", 2), found.sympos("twice", 3)] == [0, 1, 2]
    assert (found.is_global("twice", 2), found.is_global("twice", 3)) == (False, True)
    with pytest.raises(LookupError):
        found.sympos("one", 2)
