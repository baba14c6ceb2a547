# SPDX-License-Identifier: MIT
"""The compiled extension, as the wheel has it."""

from __future__ import annotations

from pathlib import Path

from elftools.elf.elffile import ELFFile

from pylivepatch import _shim

NOW = 8
"""DF_BIND_NOW"""


def test_it_is_hardened() -> None:
    """No search path for libraries; nothing to overwrite when it is loaded; no executable stack; checked stacks."""
    with Path(_shim.__file__).open("rb") as file:
        elf = ELFFile(file)
        tags = {tag.entry.d_tag: tag.entry.d_val for tag in elf.get_section_by_name(".dynamic").iter_tags()}
        assert not {"DT_RPATH", "DT_RUNPATH", "DT_TEXTREL"} & set(tags)
        assert tags["DT_FLAGS"] & NOW
        segments = {segment.header.p_type: segment.header.p_flags for segment in elf.iter_segments()}
        assert "PT_GNU_RELRO" in segments
        assert segments["PT_GNU_STACK"] & 1 == 0
        symbols = {symbol.name for symbol in elf.get_section_by_name(".dynsym").iter_symbols()}
        assert "__stack_chk_fail" in symbols
