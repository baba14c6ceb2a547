# SPDX-License-Identifier: MIT
"""The little that must be known about x86-64 instructions, and objdump for the eyes of people."""

from __future__ import annotations

import re
import subprocess
import tempfile
from pathlib import Path

from pylivepatch.build.elf import R_X86_64_PC32, R_X86_64_PLT32, Reloc, Section

NOP2, NOP5 = b"\x66\x90", b"\x0f\x1f\x44\x00\x00"
ENDBR = b"\xf3\x0f\x1e\xfa"
"""The mark of what an indirect branch may lead to."""

# Opcodes with an immediate operand behind an address: of one byte, or as wide as the operand.
_IMM8 = frozenset({0x6B, 0x80, 0x82, 0x83, 0xC0, 0xC1, 0xC6})
_IMMZ = frozenset({0x69, 0x81, 0xC7})
_TEST8, _TESTZ = 0xF6, 0xF7
_TWO_BYTE_IMM8 = frozenset({0x70, 0x71, 0x72, 0x73, 0xA4, 0xAC, 0xBA, 0xC2, 0xC4, 0xC5, 0xC6})
_REX = range(0x40, 0x50)


def is_branch(code: bytes | bytearray, offset: int) -> bool:
    """Tell whether the field at *offset* is the target of a call, jmp or jcc.

    An operand relative to the instruction pointer has a ModRM byte before it, which is never one of those opcodes.
    """
    if offset >= 1 and code[offset - 1] in (0xE8, 0xE9):
        return True
    return offset >= 2 and code[offset - 2] == 0x0F and code[offset - 1] & 0xF0 == 0x80


def trailing(code: bytes | bytearray, offset: int) -> int:
    """Return how many bytes of the instruction follow its 32-bit displacement at *offset*: its immediate operand.

    The assembler has the distance to the end of the instruction in the addend, so that what is meant can only be
    told when the immediate's size is known.
    """
    if offset < 2 or code[offset - 1] & 0xC7 != 0x05:
        return 0
    modrm, opcode = code[offset - 1], code[offset - 2]
    before = offset - 3
    if before >= 0 and code[before] == 0x0F and opcode in _TWO_BYTE_IMM8:
        return 1
    if opcode in _IMM8 or (opcode == _TEST8 and modrm >> 3 & 7 < 2):
        return 1
    if opcode in _IMMZ or (opcode == _TESTZ and modrm >> 3 & 7 < 2):
        if before >= 0 and code[before] in _REX:
            before -= 1
        return 2 if before >= 0 and code[before] == 0x66 else 4
    return 0


def meant(section: Section, reloc: Reloc) -> tuple[int, int]:
    """Return the offset from the symbol that *reloc* means, and the bias that its addend has."""
    bias = 0
    if section.executable and reloc.type in (R_X86_64_PC32, R_X86_64_PLT32):
        bias = 4 + trailing(section.data, reloc.offset)
    return reloc.addend + bias, bias


def jump_size(code: bytes | bytearray, offset: int) -> int:
    """Return the size of the jump or nop at a jump label: 2 or 5 bytes."""
    return 2 if code[offset] in (0xEB, 0x66) else 5


def disassemble(code: bytes, address: int, count: int = 3) -> list[str]:
    """Return the first instructions of *code* in words; nothing when objdump is not there."""
    with tempfile.NamedTemporaryFile() as file:
        Path(file.name).write_bytes(code)
        try:
            said = subprocess.run(
                ["objdump", "-D", "-b", "binary", "-m", "i386:x86-64", f"--adjust-vma={address:#x}", file.name],
                capture_output=True, text=True, check=False).stdout
        except OSError:
            return []
    lines = re.findall(r"^\s*[0-9a-f]+:\t([0-9a-f ]+)\t?(.*)$", said, re.MULTILINE)
    return [f"{' '.join(code.split())}  {' '.join(words.split())}".strip() for code, words in lines[:count]]


def boundaries(code: bytes) -> list[int]:
    """Return where the instructions of *code* begin; nothing when objdump is not there."""
    with tempfile.NamedTemporaryFile() as file:
        Path(file.name).write_bytes(code)
        try:
            said = subprocess.run(
                ["objdump", "-D", "-z", "-w", "-b", "binary", "-m", "i386:x86-64", file.name],
                capture_output=True, text=True, check=False).stdout
        except OSError:
            return []
    return [int(place, 16) for place in re.findall(r"^\s*([0-9a-f]+):\t", said, re.MULTILINE)]
