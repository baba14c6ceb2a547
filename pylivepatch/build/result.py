# SPDX-License-Identifier: MIT
"""What a build came to."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from pylivepatch.module.verdict import Verdict


@dataclass(frozen=True, slots=True)
class BuiltFunc:
    """A function that the patch replaces.

    Attributes:
        object: "vmlinux", or the name of a module.
        name: Its name in the running kernel.
        sympos: Which of several of that name, from 1; 0 when there is one.
        source: The source file, from the top of the kernel's tree.
        first_change: Offset in bytes of the first instruction of the new code that differs.
        original: The instruction there in the code that runs, as objdump writes it; "" when it was not asked for.
        patched: The instruction there in the new code; "" when it was not asked for.
    """

    object: str
    name: str
    sympos: int
    source: str
    first_change: int
    original: str = ""
    patched: str = ""


@dataclass(frozen=True, slots=True)
class BuildResult:
    """A patch module that was built, or would be.

    Attributes:
        name: Name of the patch, which is its module's name.
        path: The module file; None after a dry run.
        release: The kernel release that it is for.
        functions: What it replaces.
        added: Names of functions that it brings along.
        proved: How many functions were found, byte for byte, in the code that runs.
        replace: Whether it replaces all patches before it.
        standalone: Whether it is a standalone patch, which is enabled by being loaded.
        units: The source files that were compiled.
        notes: What a person should know before using it.
        seconds: How long each step took, in seconds.
        verdict: What was proved of the finished module; None after a dry run.
    """

    name: str
    path: Path | None
    release: str
    functions: tuple[BuiltFunc, ...]
    added: tuple[str, ...]
    proved: int
    replace: bool
    standalone: bool
    units: tuple[str, ...]
    notes: tuple[str, ...]
    seconds: dict[str, float]
    verdict: Verdict | None
