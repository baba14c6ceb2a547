# SPDX-License-Identifier: MIT
"""Compile single files of a prepared tree as the kernel's own build does, once: to prove, to compare and to take out.

The compiler is given the kernel's own command with ``-S`` instead of ``-c``. Its output is assembled twice: as it is,
which gives what the kernel's build makes, and taken apart (see `assembly`). So what is compared is what was matched
with the code that runs.
"""

from __future__ import annotations

import hashlib
import json
import mmap
import os
import re
import shlex
import shutil
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from pathlib import Path

from pylivepatch.build import agreement, assembly
from pylivepatch.build.elf import Object
from pylivepatch.build.tree import Tree
from pylivepatch.build.units import Unit
from pylivepatch.errors import BuildError
from pylivepatch.lab.sandbox import Sandbox
from pylivepatch.lab.toolchain import Toolchain

_TYPES = "-gbtf"
"""Has the compiler describe the types. That it changes no code is shown each time: the result is what runs."""

_FORMAT = "3"
"""What the entries of the cache look like."""


@dataclass(frozen=True)
class Compiled:
    """What the kernel's own command makes of a unit.

    Attributes:
        unit: What was compiled.
        root: Of which source: the tree, or a shadow of it with the diff applied.
        where: Where the compiler was run.
        command: What was run there, for a shell; it writes the assembler's input.
        assemble: What makes an object of an assembler's input, for a shell: with OUTPUT and INPUT to be replaced.
        box: Where that is run.
        folder: Has ``text.s``, the assembler's input without debug information; ``plain.o``, which is that assembled
            as it is; ``named.o``, with a section of its own for each function and variable; for a patched unit
            ``module.o``, when a module needs other code than vmlinux has (see `assembly.for_module`); ``types.s``
            or ``types.o``, its types as BTF.
    """

    unit: Unit
    root: Path
    where: Path
    command: str
    assemble: str
    box: Sandbox = field(repr=False)
    folder: Path

    @property
    def text(self) -> Path:
        """The assembler's input."""
        return self.folder / "text.s"

    @cached_property
    def plain(self) -> Object:
        """What the kernel's build makes, before objtool."""
        return Object.open(self.folder / "plain.o")

    @cached_property
    def named(self) -> Object:
        """The same code, in which every reference names what it leads to."""
        return Object.open(self.folder / "named.o")

    @cached_property
    def module(self) -> Object:
        """The same as `named`, with what a module needs where it cannot have what vmlinux has."""
        path = self.folder / "module.o"
        return Object.open(path) if path.exists() else self.named

    @cached_property
    def types_digest(self) -> str:
        """Tells whether two have the same types."""
        return (self.folder / "types").read_text()

    @cached_property
    def types(self) -> Object:
        """An object with the types."""
        path = self.folder / "types.o"
        if not path.exists():
            _assemble(self, "types")
        return Object.open(path)


class Compiler:
    """Compiles units of a tree."""

    def __init__(self, tree: Tree) -> None:
        self.tree = tree
        self._commands: dict[Unit, str] = {}

    def as_built(self, units: Sequence[Unit]) -> None:
        """Let the kernel's own build make units that it has not made yet, and so the headers that it makes for them.

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

    def original(self, unit: Unit) -> Compiled:
        """Return a unit as it is in the tree; `as_built` has been called for it.

        It is kept in the tree, as long as the command, the compiler and all that was read are the same.

        Raises:
            BuildError: It does not compile.
        """
        place = self.tree.path / ".compiled" / unit.goal
        key = _digest(self._compile_command(unit), identity(self.tree.target.toolchain), _FORMAT)
        index = place.with_name(f"{place.name}.{key}.json")
        try:
            known = json.loads(index.read_text())
            made = self._compiled(unit, self.tree.path, index.parent / known["folder"])
            if known["facts"] == _facts(made.where, known["facts"]):
                return made
        except (OSError, ValueError, KeyError):
            pass
        place.parent.mkdir(parents=True, exist_ok=True)
        folder = Path(tempfile.mkdtemp(prefix=f"{place.name}.", dir=place.parent))
        try:
            made = self._compile(unit, self.tree.path, folder)
            _assemble(made, "types")
            facts = _facts(made.where, _dependencies(folder / "depends"))
            fresh = folder / "index.json"
            fresh.write_text(json.dumps({"folder": folder.name, "facts": facts}))
            fresh.rename(index)
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            raise
        return made

    def patched(self, unit: Unit, root: Path, folder: Path) -> Compiled:
        """Compile a unit of a shadow of the tree, into a folder that is made.

        Raises:
            BuildError: It does not compile, with the compiler's own words.
        """
        folder.mkdir(parents=True)
        return self._compile(unit, root, folder, module=True)

    def objtool(self, unit: Unit) -> list[str] | None:
        """Return the objtool command for an object of a module; None where kbuild has it look at whole modules."""
        found = re.search(r";\s*(\./tools/objtool/objtool [^;]*?)\s+\S+\.o\s*(?:;|\Z)", self._saved(unit))
        if found is None or "--link" in found[1]:
            return None  # the only object of its module, shown as the whole module
        program, *options = found[1].split()
        return [str(self.tree.where / program), *dict.fromkeys([*options, "--module"])]

    def _compile(self, unit: Unit, root: Path, folder: Path, *, module: bool = False) -> Compiled:
        made = self._compiled(unit, root, folder)
        done = made.box.run(["bash", "-c", made.command], cwd=made.where, what=f"compiling {unit.source}")
        if done.status:
            words = done.stderr.decode(errors="replace").splitlines()
            said = "\n".join(line for line in words if ": warning:" not in line)
            said = "\n".join(said.strip().splitlines()[:20])
            raise BuildError(f"{unit.source} does not compile:\n{said}", kind="compile", file=unit.source)
        raw = folder / "raw.s"
        text, types = assembly.without_debug(raw.read_text(errors="surrogateescape"))
        raw.unlink()
        if not types:
            raise BuildError(f"the compiler does not describe the types of {unit.source}, so that nothing can tell "
                             "whether the diff changes them", kind="compile", file=unit.source,
                             remedy="use the compiler of CONFIG_CC_VERSION_TEXT: a gcc that knows -gbtf")
        texts = {"text": text, "types": types, "named": assembly.split(text)}
        wanted = {"text": "plain", "named": "named"}
        if module and (modular := assembly.for_module(text)) != text:
            texts["module"], wanted["module"] = assembly.split(modular), "module"
        for name, content in texts.items():
            (folder / f"{name}.s").write_text(content, errors="surrogateescape")
        (folder / "types").write_text(_digest(types))
        _assemble(made, *wanted, into=wanted)
        agreement.check(unit.source, made.plain, made.named)
        return made

    def _compiled(self, unit: Unit, root: Path, folder: Path) -> Compiled:
        command, where = self.tree.relocated(self._compile_command(unit), root)
        found = re.search(r" -c -o \S+ (\S+\.c)\s*\Z", command)
        if found is None:
            raise BuildError(f"the kernel's build compiles {unit.source} in a way that is not known: {command}",
                             kind="build-system", file=unit.source)
        start = re.sub(r" ?-Wp,-MMD,\S+", "", command[:found.start()])
        if not self.tree.is_kernel:
            start += f" -I{shlex.quote(str(root))}/include"  # klpctl's, for callbacks
        box = self.tree.sandbox(folder).seeing(root)
        outputs = f"-Wp,-MMD,{folder}/depends -S -o {folder}/raw.s"
        return Compiled(unit, root, where, f"{start} {_TYPES} {outputs} {found[1]}", f"{start} -c -o OUTPUT INPUT",
                        box, folder)

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
        command = self._saved(unit).partition(" ; ")[0]
        if not self.tree.is_kernel or "-prefix-map=" in command or self._names_begin_with_dot:
            return command
        return re.sub(r"(?= -c -o \S+ \S+\Z)", " -fmacro-prefix-map=./=", command.rstrip())

    @cached_property
    def _names_begin_with_dot(self) -> bool:
        """Whether the kernel was built in its source: __FILE__ has "./" in headers then, since 7.x."""
        with self.tree.target.image.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as image:
            return image.find(b"\0./include/linux/") >= 0


@lru_cache
def identity(toolchain: Toolchain) -> str:
    """Return what tells one version of a compiler and its assembler from another, however they are called."""
    words, compiler = [toolchain.key], toolchain.compiler
    if "/" in compiler or toolchain.root == Path("/"):
        words.append(_output([compiler, "--version"]))
        for program in (compiler, *(_output([compiler, f"-print-prog-name={name}"]).strip() for name in ("cc1", "as"))):
            path = shutil.which(program)
            if path is not None:
                stat = Path(path).stat()
                words += [os.path.realpath(path), str(stat.st_size), str(stat.st_mtime_ns)]
    return _digest(*words)


def _assemble(made: Compiled, *names: str, into: Mapping[str, str] | None = None) -> None:
    """Make objects of the assembler's inputs *names*, which are called by the same name, or as *into* says."""
    commands = [made.assemble.replace("OUTPUT", shlex.quote(str(made.folder / f"{(into or {}).get(name, name)}.o")))
                .replace("INPUT", shlex.quote(str(made.folder / f"{name}.s"))) for name in names]
    done = made.box.run(["bash", "-c", " && ".join(commands)], cwd=made.where, what=f"assembling {made.unit.source}")
    if done.status:
        raise BuildError(f"what the compiler made of {made.unit.source} cannot be assembled:\n{done.output()}",
                         kind="compile", file=made.unit.source)
    for name in names:
        if name != "text":
            (made.folder / f"{name}.s").unlink()


def _dependencies(path: Path) -> list[str]:
    """Return the files that the compiler says it has read."""
    return path.read_text().partition(":")[2].replace("\\\n", " ").split()


def _facts(top: Path, names: Sequence[str] | dict[str, list[int]]) -> dict[str, list[int]]:
    """Return sizes and times of files, which tell whether they have changed."""
    return {name: [(stat := (top / name).stat()).st_size, stat.st_mtime_ns] for name in names}


def _digest(*words: str) -> str:
    total = hashlib.sha256()
    for word in words:
        total.update(word.encode(errors="surrogateescape") + b"\0")
    return total.hexdigest()[:16]


def _output(argv: Sequence[str]) -> str:
    return subprocess.run(argv, capture_output=True, text=True, errors="replace", check=False,
                          env={"PATH": os.environ.get("PATH", ""), "LC_ALL": "C"}).stdout
