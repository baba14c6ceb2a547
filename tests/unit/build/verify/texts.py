# SPDX-License-Identifier: MIT
"""What the compiler and the assembler here make of a few lines, as the checker reads it."""

from __future__ import annotations

import subprocess
import tempfile
from pathlib import Path

from pylivepatch.build.verify.assembly import Assembly
from pylivepatch.build.verify.reference import Reference

FLAGS = ("-O2", "-S", "-fno-pic", "-fno-asynchronous-unwind-tables", "-fcf-protection=none", "-mcmodel=kernel",
         "-fno-jump-tables", "-fno-stack-protector", "-fno-common", "-ffreestanding", "-falign-functions=16")


def assembly(source: str, *flags: str) -> str:
    """Compile C, as the kernel does, into assembly."""
    return subprocess.run(["gcc", *FLAGS, *flags, "-x", "c", "-o", "-", "-"], input=source, text=True,
                          stdout=subprocess.PIPE, check=True).stdout


def assembled(text: str) -> bytes:
    """Assemble."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder, "x.o")
        subprocess.run(["as", "--64", "-o", out, "-"], input=text, text=True, check=True, stderr=subprocess.DEVNULL)
        return out.read_bytes()


def reference(source: str, *flags: str) -> Reference:
    """Return what the checker knows about a source."""
    text = Assembly(assembly(source, *flags))
    return Reference("x.c", text, [assembled(text.layout(factor)) for factor in (1, 2, 0)])


def leads(found: Reference, name: str) -> list[tuple[str, int]]:
    """Return what the code or data called *name* refers to: the name, and which byte."""
    atom = found.named(name)
    assert atom is not None
    return [(ref.target if isinstance(ref.target, str) else ref.target.name if ref.target else "", ref.delta)
            for ref in found.piece(atom).refs]
