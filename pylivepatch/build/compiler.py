# SPDX-License-Identifier: MIT
"""Compile single files of a prepared tree exactly as the kernel's own build does, and in the way that patches need."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from pylivepatch.build.tree import Tree
from pylivepatch.build.units import Unit
from pylivepatch.errors import BuildError
from pylivepatch.lab.sandbox import Done

_SPLIT = "-ffunction-sections -fdata-sections -gbtf"

# Values that the kernel writes into vmlinux's code at boot (6.11, 94a2bc0f611c) cannot be written into a module's:
# there the code reads the variable.
_RUNTIME_CONST = "-include asm-generic/runtime-const.h"


class Compiler:
    """Compiles units of a tree."""

    def __init__(self, tree: Tree) -> None:
        self.tree = tree
        header = tree.path / "arch/x86/include/asm/runtime-const.h"
        self._extra = f"{_SPLIT} {_RUNTIME_CONST}" if header.exists() else _SPLIT
        self._commands: dict[Unit, str] = {}

    def as_built(self, units: Sequence[Unit]) -> dict[Unit, Path]:
        """Return the objects as the kernel's own build makes them; kept in the tree.

        Raises:
            BuildError: They do not compile.
        """
        missing = [unit for unit in units if not (self._object(unit).exists() and self._command(unit).exists())]
        if missing:
            self.tree.make([unit.goal for unit in missing], "compiling the kernel's source as it is")
        for unit in units:
            if not self._object(unit).exists():
                raise BuildError(f"the kernel's own build makes no object of {unit.source}", kind="not-built",
                                 file=unit.source)
        return {unit: self._object(unit) for unit in units}

    def compile(self, unit: Unit, root: Path, out: Path) -> None:
        """Compile a unit of the tree, or of a shadow of it, with a section for each function and variable.

        Args:
            unit: What to compile; `as_built` has been called for it.
            root: Top of the tree, or of the shadow.
            out: The object to write. It has the types as BTF.

        Raises:
            BuildError: It does not compile, with the compiler's own words.
        """
        command = re.sub(r"-Wp,-MMD,\S+", "", self._compile_command(unit))
        headers = f"-I{root}/include " if self.tree.where != self.tree.path else ""  # klpctl's, for callbacks
        command = re.sub(r" -o \S+ ", f" -o {out} {headers}{self._extra} ", command)
        done = self._shell(*self.tree.relocated(command, root), out)
        if done.status:
            words = done.stderr.decode(errors="replace").splitlines()
            said = "\n".join(line for line in words if ": warning:" not in line)
            said = "\n".join(said.strip().splitlines()[:20])
            raise BuildError(f"{unit.source} does not compile:\n{said}", kind="compile", file=unit.source)

    def objtool(self, unit: Unit) -> list[str] | None:
        """Return the objtool command for an object of a module; None where kbuild has it look at whole modules."""
        found = re.search(r";\s*(\./tools/objtool/objtool [^;]*?)\s+\S+\.o\s*(?:;|\Z)", self._saved(unit))
        if found is None or "--link" in found[1]:
            return None  # the only object of its module, shown as the whole module
        program, *options = found[1].split()
        return [str(self.tree.where / program), *dict.fromkeys([*options, "--module"])]

    def _object(self, unit: Unit) -> Path:
        return self.tree.path / unit.goal

    def _command(self, unit: Unit) -> Path:
        path = self._object(unit)
        return path.with_name(f".{path.name}.cmd")

    def _saved(self, unit: Unit) -> str:
        """Return what kbuild ran to make a unit's object."""
        if unit not in self._commands:
            first = self._command(unit).read_text().partition("\n")[0]
            self._commands[unit] = first.partition(":=")[2].strip()
        return self._commands[unit]

    def _compile_command(self, unit: Unit) -> str:
        return self._saved(unit).partition(" ; ")[0]

    def _shell(self, command: str, where: Path, out: Path) -> Done:
        box = self.tree.sandbox(out.parent)
        return box.run(["bash", "-c", command], cwd=where, what=f"compiling {out.name}")
