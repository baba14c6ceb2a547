# SPDX-License-Identifier: MIT
"""Instructions, decoded by capstone."""

from __future__ import annotations

from bisect import bisect_right
from functools import lru_cache
from typing import NamedTuple

import capstone

_BRANCH = ("j", "call", "loop", "xbegin")


class Insn(NamedTuple):
    """An instruction: offset and size in bytes, and its words."""

    offset: int
    size: int
    mnemonic: str
    operands: str

    @property
    def end(self) -> int:
        """Offset of what follows."""
        return self.offset + self.size

    @property
    def branches(self) -> bool:
        """Whether it may go elsewhere: a jump, or a call."""
        return self.mnemonic.startswith(_BRANCH) or self.mnemonic.startswith(("notrack j", "bnd j", "notrack call"))

    def target(self) -> int | None:
        """Return the offset that it goes to; None when that is not in the instruction."""
        if not self.branches or not self.operands.startswith("0x"):
            return int(self.operands) if self.branches and self.operands.isdigit() else None
        value = int(self.operands, 16)
        return value - (1 << 64) if value >> 63 else value


def _decoder() -> capstone.Cs:
    decoder = capstone.Cs(capstone.CS_ARCH_X86, capstone.CS_MODE_64)
    decoder.skipdata = True
    return decoder


_DECODER = _decoder()


class Code:
    """A piece of code.

    Attributes:
        insns: Its instructions, in their order.
    """

    def __init__(self, data: bytes) -> None:
        self.insns: tuple[Insn, ...] = _decoded(data)
        self._starts = [insn.offset for insn in self.insns]

    @property
    def idle(self) -> bool:
        """Whether it does nothing: what the assembler puts between functions."""
        return all(insn.mnemonic.removeprefix("data16 ") in ("nop", "int3") for insn in self.insns)

    def at(self, offset: int) -> Insn | None:
        """Return the instruction that has the byte at *offset*."""
        place = bisect_right(self._starts, offset) - 1
        if place < 0 or offset >= self.insns[place].end:
            return None
        return self.insns[place]


@lru_cache(maxsize=4096)
def _decoded(data: bytes) -> tuple[Insn, ...]:
    return tuple(Insn(*row) for row in _DECODER.disasm_lite(data, 0))
