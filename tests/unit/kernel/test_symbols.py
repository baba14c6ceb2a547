# SPDX-License-Identifier: MIT
"""The kernel's symbol table, and its exports as its memory has them."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

import pytest

from pylivepatch.kernel.symbols import Kallsyms, Memory, wanted

if TYPE_CHECKING:
    from pathlib import Path

START, CRCS = 0xFFFFFFFF82000000, 0xFFFFFFFF82000100
SYMBOLS = f"""\
ffffffff81000000 T show
ffffffff81000010 t show
ffffffff81000020 t show_more
ffffffff81000030 D vermagic
{START:x} R __start___ksymtab
{START:x} r __ksymtab_alpha
{START + 12:x} r __ksymtab_beta
{START + 24:x} R __start___ksymtab_gpl
{START + 24:x} R __stop___ksymtab
{START + 24:x} r __ksymtab_gamma
{START + 36:x} R __stop___ksymtab_gpl
{CRCS:x} R __start___kcrctab
{CRCS + 8:x} R __start___kcrctab_gpl
{CRCS + 8:x} R __stop___kcrctab
{CRCS + 12:x} R __stop___kcrctab_gpl
ffffffffc0000000 t show	[ext4]
ffffffffc0001000 r __ksymtab_delta	[ext4]
"""


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A tree with the tables above, and a kernel's memory with CRCs 1 to 4 and a vermagic."""
    for name, text in {
        "proc/kallsyms": SYMBOLS,
        "sys/module/ext4/sections/__ksymtab": "0xffffffffc0001000\n",
        "sys/module/ext4/sections/__kcrctab": f"0x{CRCS + 12:x}\n",
    }.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    parts = [(0xFFFFFFFF81000030, b"6.1.0-1 SMP\0" + bytes(256)), (CRCS, struct.pack("=4I", 1, 2, 3, 4))]
    head = b"\x7fELF" + bytes(28) + struct.pack("=QQIHHHHHH", 64, 0, 0, 64, 56, len(parts), 0, 0, 0)
    table = data = b""
    for address, content in parts:
        offset = 64 + 56 * len(parts) + len(data)
        table += struct.pack("=IIQQQQQQ", 1, 7, offset, address, 0, len(content), len(content), 4096)
        data += content
    (tmp_path / "proc/kcore").write_bytes(head + table + data)
    return tmp_path


def test_counts(root: Path) -> None:
    """Symbols are counted by their whole name, each in its own object."""
    table = Kallsyms(root, ["show", "gone", "show_more"])
    assert [table.count(name, "") for name in ("show", "show_more", "gone")] == [2, 1, 0]
    assert table.count("show", "ext4") == 1
    assert table.find("gone") is None
    assert table.address("gone") == 0


def test_crcs(root: Path) -> None:
    """CRCs are read from memory, of all tables of the kernel and of modules; what is not exported is left out."""
    names = ["alpha", "beta", "gamma", "delta", "epsilon"]
    table = Kallsyms(root, wanted(names))
    with Memory(root) as memory:
        assert memory.crcs(root, table, names) == {"alpha": 1, "beta": 2, "gamma": 3, "delta": 4}
        assert memory.vermagic(table) == "6.1.0-1 SMP"
        with pytest.raises(OSError, match="does not have"):
            memory.read(START, 4)


def test_hidden_addresses(root: Path) -> None:
    """Without addresses there are no CRCs, and that is said."""
    kallsyms = root / "proc/kallsyms"
    kallsyms.write_text("".join("0" * 16 + line[16:] for line in SYMBOLS.splitlines(keepends=True)))
    table = Kallsyms(root, wanted(["alpha"]))
    with Memory(root) as memory:
        assert memory.vermagic(table) == ""
        with pytest.raises(OSError, match="does not show"):
            memory.crcs(root, table, ["alpha"])


@pytest.mark.parametrize("content", [b"", b"\x7fELF", bytes(64), b"\x7fELF" + b"\xff" * 60])
def test_damaged_memory(root: Path, content: bytes) -> None:
    """A core file that is none reads as one that has nothing, or cannot be read."""
    (root / "proc/kcore").write_bytes(content)
    table = Kallsyms(root, wanted(["alpha"]))
    with pytest.raises(OSError, match="kcore"), Memory(root) as memory:
        memory.crcs(root, table, ["alpha"])
