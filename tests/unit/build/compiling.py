# SPDX-License-Identifier: MIT
"""Compile a few lines as the builder compiles a source of the kernel."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import NamedTuple

from pylivepatch.build import agreement, assembly
from pylivepatch.build.elf import Object

FLAGS = ("-O2", "-fno-pic", "-fno-asynchronous-unwind-tables", "-fcf-protection=none", "-mcmodel=kernel",
         "-fno-jump-tables", "-fno-common")  # fmt: skip


class Made(NamedTuple):
    """What the compiler and the assembler make of a text.

    Attributes:
        text: The assembler's input.
        plain: Assembled as it is.
        named: Assembled with a section of its own for each function and variable.
        types: The types.
    """

    text: str
    plain: Object
    named: Object
    types: Object


def assembled(folder: Path, text: str, name: str) -> Object:
    """Assemble a text."""
    (folder / f"{name}.s").write_text(text)
    subprocess.run(["as", "-o", folder / f"{name}.o", folder / f"{name}.s"], check=True)
    return Object.open(folder / f"{name}.o")


def made(folder: Path, source: str, name: str = "x", *flags: str) -> Made:
    """Compile a source."""
    (folder / f"{name}.c").write_text(source)
    subprocess.run(["gcc", *FLAGS, *flags, "-gbtf", "-S", "-o", folder / f"{name}.s", folder / f"{name}.c"], check=True)
    text, types = assembly.without_debug((folder / f"{name}.s").read_text())
    plain, named, described = (assembled(folder, content, f"{name}-{kind}") for kind, content in (
        ("plain", text), ("named", assembly.split(text)), ("types", types)))
    agreement.check(f"{name}.c", plain, named)
    return Made(text, plain, named, described)
