# SPDX-License-Identifier: MIT
"""Values that the kernel writes into the code of vmlinux when it boots, and cannot write into a module's.

Since 6.11 (94a2bc0f611c). What a patch takes of such code has to read the variable instead: that is the only difference
that there may be between the code of a module and what the kernel's own build makes.
"""

from __future__ import annotations

import re

from pylivepatch.errors import BuildError

_SECTION = re.compile(r'\s*\.pushsection runtime_(\w+?)_(\w+),"a"\s*\Z')
_POINTER = re.compile(r"\s*mov \$81985529216486895,(%r\w+)\Z")
_SHIFT = re.compile(r"\s*shrl \$12,(%\w+)\Z")


def read(text: str) -> str:
    """Return the compiler's text with code that reads what the kernel would have written into it.

    The tables that tell the kernel where to write stay, so that there are as many atoms as before.

    Raises:
        BuildError: It has a value of a kind that is not known.
    """
    if ".pushsection runtime_" not in text:
        return text
    lines = text.split("\n")
    for number, line in enumerate(lines):
        section = _SECTION.match(line)
        if section is None:
            continue
        kind, name = section[1], section[2]
        found = {"ptr": _POINTER, "shift": _SHIFT}.get(kind, _POINTER).match(lines[number - 2])
        if found is None or kind not in ("ptr", "shift") or lines[number - 1].strip() != "1:":
            raise BuildError(f"the kernel writes {name} into its code in a way that is not known ({kind})",
                             kind="proof", symbol=name)
        lines[number - 2] = _pointer(name, found[1]) if kind == "ptr" else _shift(name, found[1])
    return "\n".join(lines)


def _pointer(name: str, into: str) -> str:
    return f"\tmovq {name}(%rip), {into}"


def _shift(name: str, value: str) -> str:
    """Return a shift of 32 bits by a variable; only %cl can hold the count."""
    if value == "%ecx":
        steps = ["pushq %rax", "movl %ecx, %eax", f"movl {name}(%rip), %ecx", "shrl %cl, %eax", "movl %eax, %ecx",
                 "popq %rax"]
    else:
        steps = ["pushq %rcx", f"movl {name}(%rip), %ecx", f"shrl %cl, {value}", "popq %rcx"]
    return "\n".join(f"\t{step}" for step in steps)
