# SPDX-License-Identifier: MIT
"""The kernel's symbol tables, and names that are not unique."""

from __future__ import annotations

import struct

import pytest

from pylivepatch import BadDataError
from pylivepatch.build.kallsyms import Kallsyms, KernelSymbol

BASE = 0xFFFFFFFF81000000


RODATA = 0xFFFFFFFF82000000


def tables(symbols: list[tuple[int, str]], layout: str) -> bytes:
    """Make the tables of scripts/kallsyms.c, without compression, as a release lays them out."""
    names, markers = b"", []
    for number, (_, name) in enumerate(symbols):
        if number % 256 == 0:
            markers.append(len(names))
        names += bytes((len(name),)) + name.encode()
    tokens, index = b"", []
    for byte in range(256):
        index.append(len(tokens))
        tokens += bytes((byte or 1, 0))
    table = [struct.pack("<I", len(symbols)), names, b"".join(struct.pack("<I", mark) for mark in markers), tokens,
             b"".join(struct.pack("<H", place) for place in index)]
    if layout == "7.0":
        made = bytes(60) + b"".join(part + bytes(-len(part) % 4) for part in table)
        for address, _ in symbols:
            made += struct.pack("<i", address - RODATA - len(made))
        return made + b"".join(number.to_bytes(3, "big") for number in range(len(symbols)))
    sign = layout != "6.15"
    offsets = b"".join(struct.pack("<i", -1 - (address - BASE) if sign else address - BASE) for address, _ in symbols)
    addresses = [offsets, struct.pack("<Q", BASE)]
    parts = [*addresses, *table] if layout == "6.1" else [*table, *addresses]
    return bytes(64) + b"".join(part + bytes(-len(part) % 8) for part in parts) + bytes(64)


@pytest.mark.parametrize("count", [700, 701, 702, 703])
@pytest.mark.parametrize("layout", ["6.1", "6.4", "6.15", "7.0"])
def test_decoding(layout: str, count: int) -> None:
    """Names and addresses come out as they went in, for all orders, encodings and paddings of the tables."""
    symbols = [(BASE + 16 * n, f"{'tTdD'[n % 4]}symbol_{n}") for n in range(count)]
    found = Kallsyms.decode(tables(symbols, layout), base=RODATA)
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
