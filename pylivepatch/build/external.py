# SPDX-License-Identifier: MIT
"""Modules that are not of the kernel's own tree: their source, built by their own Kbuild, kept in the cache.

kbuild calls them external modules, and builds them with the kernel's headers alone. What it leaves behind says which
command compiles each source, which headers the source has, and which module it becomes a part of.
"""

from __future__ import annotations

import json
import os
import posixpath
import re
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from pylivepatch.build import units
from pylivepatch.build.target import Target, check_owner
from pylivepatch.build.tree import Tree, record, sandbox_for
from pylivepatch.elf.file import unpacked
from pylivepatch.errors import BadDataError, BuildError, MismatchError
from pylivepatch.lab import cache
from pylivepatch.lab import module as lab_module
from pylivepatch.lab.sandbox import Limits, Sandbox

_MODULES, _PREFIX = ".modules.json", re.compile(rb"[\w./+@:,~-]*")
_SYMVERS, _EXTRA = "Module.symvers", "KBUILD_EXTRA_SYMBOLS="


@dataclass(frozen=True, slots=True)
class External:
    """A module of its own source, as a target beside the kernel.

    Attributes:
        source: Directory of its source, with its Kbuild or Makefile; nothing is written there.
        files: The module files that are in use; those that are not named are looked for in /lib/modules.
        arguments: More arguments for its make: "CONFIG_FOO=m".
    """

    source: Path
    files: tuple[Path, ...] = ()
    arguments: tuple[str, ...] = ()

    @property
    def symvers(self) -> tuple[Path, ...]:
        """The lists of what other such modules export that its make is told of."""
        return tuple(Path(word) for argument in self.arguments if argument.startswith(_EXTRA)
                     for word in argument.removeprefix(_EXTRA).split())


@dataclass(frozen=True, slots=True)
class ExternalTree(Tree):
    """The source of external modules, built.

    Attributes:
        external: What it was made of.
        modules: Names of the modules that it makes.
    """

    external: External = field(kw_only=True)
    modules: tuple[str, ...] = field(kw_only=True)

    @property
    def is_kernel(self) -> bool:
        """It is not."""
        return False

    @property
    def label(self) -> str:
        """What to call it in a message."""
        return str(self.external.source)

    @property
    def folders(self) -> list[str]:
        """All of it: it is small."""
        return []

    @property
    def where(self) -> Path:
        """Where kbuild runs the compiler, and has its tools: the kernel's headers."""
        return self.target.headers

    @property
    def symvers(self) -> tuple[Path, ...]:
        """What the kernel exports, what these modules do, and what make is told of others that they use."""
        return self.target.headers / _SYMVERS, *self.external.symvers, self.path / _SYMVERS

    def in_use(self, name: str) -> Path:
        """Return the file of a module that is in use: the one given, or the one that modprobe would load.

        Raises:
            MismatchError: There is none, or nothing tells which.
        """
        given = [path for path in self.external.files if module_of(path) == name]
        return given[0] if given else find(self.target.modules, name)

    def make(self, goals: Sequence[str], what: str) -> None:
        """All has been made; what is missing cannot be."""
        raise BuildError(f"{what}: its own build does not make {', '.join(goals)}", kind="not-built")

    def relocated(self, command: str, root: Path) -> tuple[str, Path]:
        """Return a command of the tree for a shadow of it, which has *root* for its path, and where to run it."""
        moved = re.sub(rf"{re.escape(str(self.path))}(?=[/\s'\"]|\Z)", str(root), command)
        # since 6.13 (13b25489b6f8) kbuild compiles in the module's own directory, by relative paths
        return moved, self.where if moved.split()[-1].startswith("/") else root


def prepare(
    target: Target, external: External, *, say: Callable[[str], None] = cache.say, confined: bool = True,
) -> ExternalTree:
    """Return the source of external modules, built for *target*; built first when it or the headers have changed.

    ``__FILE__`` is in the code as the path that the source had when the module in use was built, which is learnt from
    the module.

    Raises:
        BuildError: It does not build, with the words of its make.
        MismatchError: A module that it makes is not to be found.
        BadDataError: It is no source of modules.
    """
    check_owner(external.source)
    tree = _built(target, external, "", say, confined=confined)
    learnt = _prefix(tree)
    return _built(target, external, learnt, say, confined=confined) if learnt else tree


def _built(
    target: Target, external: External, prefix: str, say: Callable[[str], None], *, confined: bool,
) -> ExternalTree:
    source = external.source.resolve()
    if not any((source / name).is_file() for name in ("Kbuild", "Makefile")):
        raise BadDataError(f"{external.source} has neither Kbuild nor Makefile: it is no source of modules",
                           remedy="name the directory that make is called with as M=")
    files = lab_module.sources(source)
    key = cache.digest([str(target.headers), cache.tree_digest(source, files), target.toolchain.key, prefix,
                        *external.arguments])

    def fill(into: Path) -> None:
        say(f"building {external.source} as it is, once")
        for path in files:
            copy = into / path.relative_to(source)
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, copy)
        _make(sandbox_for(target, confined=confined).seeing(*external.symvers, write=[into]), target, external, into,
              prefix)
        found, lines = _units(into, external)
        units.remember(into, found, lines)
        record(into)

    entry = cache.entry("external", f"{target.release}-{source.name}-{key}", fill, check=(_SYMVERS, _MODULES),
                        in_place=True)
    return ExternalTree(entry, target, confined, external=external,
                        modules=tuple(json.loads((entry / _MODULES).read_text())))


def _make(box: Sandbox, target: Target, external: External, into: Path, prefix: str) -> None:
    """Let the modules' own Kbuild make them, as the kernel's documentation says."""
    argv = ["make", "-C", str(target.headers), f"M={into}", f"-j{os.cpu_count() or 1}", f"CC={target.compiler}",
            "KBUILD_MODPOST_WARN=1", "CONFIG_DEBUG_INFO_BTF_MODULES=", *external.arguments,
            f"KCFLAGS=-g0 -fmacro-prefix-map={into}/={prefix}", "modules"]
    done = box.run(argv, cwd=into, what=f"building {external.source}", limits=Limits(seconds=4 * 3600.0))
    if done.status:
        raise BuildError(f"{external.source} does not build for {target.release}:\n{done.output(20)}", kind="compile",
                         remedy="what its make needs besides the kernel's headers goes into --module-make")


def _units(into: Path, external: External) -> tuple[dict[str, list[tuple[str, str]]], dict[str, list[str]]]:
    """Return what was made of each source, as `units` has it, and who includes each header."""
    found: dict[str, list[tuple[str, str]]] = {}
    lines: dict[str, list[str]] = {}
    names = []
    for listed in sorted(into.rglob("*.mod")):
        name = listed.stem.replace("-", "_")
        names.append(name)
        for word in listed.read_text().split():
            goal = posixpath.relpath(into / word, into)
            for source, deps in _compiled(into, goal):
                found.setdefault(source, []).append((name, goal))
                for dep in deps:
                    lines.setdefault(posixpath.relpath(dep, posixpath.dirname(source)), []).append(source)
    if not names:
        raise BadDataError(f"{external.source} makes no module", remedy="does its Kbuild say obj-m?")
    (into / _MODULES).write_text(json.dumps(names))
    return found, lines


def _compiled(into: Path, goal: str) -> Iterator[tuple[str, list[str]]]:
    """Yield the source of an object, and the files of its own that it includes; nothing for one that is not of C."""
    folder, name = posixpath.split(goal)
    try:
        text = (into / folder / f".{name}.cmd").read_text()
    except FileNotFoundError:
        return  # shipped as an object
    said = re.search(r"^source_\S+ := (\S+\.c)$", text, re.MULTILINE)
    if said is None:
        return
    known = re.search(r"^deps_\S+ := \\\n((?:.*\\\n)*)", text, re.MULTILINE)
    words = known[1].replace("\\\n", " ").split() if known else []
    paths = [posixpath.relpath(into / word, into) for word in words if not word.startswith("$(")]
    source = posixpath.relpath(into / said[1], into)
    yield source, [path for path in paths if not path.startswith("../") and (into / path).is_file()]


def module_of(path: Path) -> str:
    """Return the name of the module in a file."""
    return path.name.partition(".")[0].replace("-", "_")


def find(modules: Path, name: str) -> Path:
    """Return the file of the module *name* in a directory /lib/modules/RELEASE.

    Of several it is the one that depmod has chosen for modprobe.

    Raises:
        MismatchError: There is none, or nothing tells which.
    """
    found = [path for path in modules.rglob("*.ko*") if module_of(path) == name]
    if len(found) > 1:
        index = modules / "modules.dep"
        lines = index.read_text(errors="replace").splitlines() if index.is_file() else ()
        chosen = {line.partition(":")[0] for line in lines}
        found = [path for path in found if str(path.relative_to(modules)) in chosen] or found
    if len(found) > 1:
        raise MismatchError(f"{modules} has {len(found)} modules called {name}: {found[0]}, {found[1]}",
                            kind="mismatch", symbol=name, remedy="leave there the one that is in use (--modules)")
    if not found:
        raise MismatchError(f"{modules} has no module {name}", kind="mismatch", symbol=name,
                            remedy="name the directory of this kernel's modules (--modules), or the file of one "
                                   "that is not of its tree (--module-file)")
    return found[0]


def _prefix(tree: ExternalTree) -> str:
    """Return what stands before the names of sources in the modules that are in use; "" when nothing does."""
    owners = json.loads((tree.path / units.OWNERS).read_text())
    images = {name: unpacked(tree.in_use(name).read_bytes()) for name in tree.modules}
    for source, each in sorted(owners.items()):
        for name, _ in each:
            for said in re.finditer(rb"(?<=\0)([^\0]*/)" + re.escape(source.encode()) + rb"(?=\0)", images[name]):
                if _PREFIX.fullmatch(said[1]):
                    return said[1].decode()
    return ""
