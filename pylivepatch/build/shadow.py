# SPDX-License-Identifier: MIT
"""A shadow of the source tree: links into it, but for what diffs change, and lines that keep their numbers."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from pylivepatch.build.diff import FileDiff
from pylivepatch.build.tree import Tree
from pylivepatch.build.units import Unit
from pylivepatch.lab import module as lab_module

_HUNK = re.compile(r"^@@ -(\d+)(?:,(\d+))? \+(\d+)(?:,(\d+))? @@", re.MULTILINE)

_KPATCH = ("kpatch-macros.h", "kpatch-syscall.h")
"""What diffs for kpatch-build include."""

_TOKEN = re.compile(
    r"""^[ \t]*\#(?:"(?:\\.|[^"\\\n])*"|/\*.*?\*/|\\\n|[^\n])*"""  # a directive, to its end
    r"""|/\*.*?(?:\*/|\Z)|//(?:\\\n|[^\n])*|"(?:\\.|[^"\\\n])*"|'(?:\\.|[^'\\\n])*'|\\\n|[()\n]|^\}""",
    re.DOTALL | re.MULTILINE)
_CONDITIONAL = re.compile(r"\s*#\s*(?:if|el|end)")


def make_shadow(tree: Tree, into: Path, files: Sequence[FileDiff], units: Sequence[Unit]) -> Path:
    """Make a shadow of *tree* at *into*, with *files* as they become; the tree stays as it is.

    Directories on the way to a changed file or to a unit are real ones, so that what the compiler reaches by
    relative paths is the shadow's; everything else is a link into the tree. A changed header may be reached from
    any directory, by `..`: then all directories are real that may have to do with it.
    """
    names = [file.path for file in files]
    real: set[PurePosixPath] = set()
    for name in (*names, *(unit.source for unit in units)):
        real.update(PurePosixPath(name).parents)
    real.add(PurePosixPath("include"))
    sources = {unit.source for unit in units if ".." not in unit.goal}
    if not sources.issuperset(names):
        for top in {"include", "arch/x86", *(name.partition("/")[0] for name in names)} - {"arch"}:
            real.update(PurePosixPath(top).parents)
            real.update(PurePosixPath(os.path.relpath(folder, tree.path))
                        for folder, _, _ in os.walk(tree.path / top))
    for folder in sorted(real):
        _mirror(tree.path, into, folder, real, set(names))
    headers = lab_module.klpctl_source()
    if headers is not None and not (into / "include/klpctl").exists():
        (into / "include").mkdir(exist_ok=True)
        (into / "include/klpctl").symlink_to(headers / "include/klpctl")
        for name in _KPATCH:
            (into / "include" / name).symlink_to("klpctl/kpatch-macros.h")
    for file in files:
        with open(into / file.path, "xb") as made:  # never through a link
            made.write(file.after)
        if file.path.endswith((".c", ".h")) and not file.is_new:
            _keep_lines(tree.path / file.path, into / file.path)
    return into


def _mirror(tree: Path, into: Path, folder: PurePosixPath, real: set[PurePosixPath], files: set[str]) -> None:
    """Fill a real directory of the shadow with links, but for real directories and changed files."""
    (into / folder).mkdir(exist_ok=True)
    if not (tree / folder).is_dir():
        return
    for item in os.scandir(tree / folder):
        name = folder / item.name
        if name not in real and str(name) not in files:
            (into / name).symlink_to(item.path)


def _keep_lines(original: Path, changed: Path) -> None:
    """Give the lines after each change the numbers that they had, so that __LINE__ stays in untouched functions.

    They are told again behind each #if, #else and #endif: what stands in a part that is left out has no effect, but for
    the line that it takes.
    """
    said = subprocess.run(["diff", "-aU0", original, changed], capture_output=True, text=True,
                          errors="surrogateescape", check=False).stdout
    text = changed.read_text(errors="surrogateescape")
    unsafe, conditional = _lines(text)
    moved: dict[int, int | None] = {}  # from which line on by how many; None where there was none
    for found in _HUNK.findall(said):
        old, removed, new, added = (int(number) if number else 1 for number in found)
        # a hunk without lines names the line before it
        start, end = new + (not added), new + added + (not added)
        moved[start] = None
        moved[end] = old + removed + (not removed) - end
    by: int | None = 0
    wanted = shifted = False
    out = []
    lines = text.split("\n")
    for number, line in enumerate(lines, 1):
        if number in moved:
            by, wanted = moved[number], True
        if wanted and by is not None and number not in unsafe and number < len(lines):
            shifted |= by != 0
            if shifted:
                out.append(f"#line {number + by}")
            wanted = False
        out.append(line)
        wanted |= number in conditional and number >= min(moved, default=number + 1)
    changed.write_text("\n".join(out), errors="surrogateescape")


def _lines(text: str) -> tuple[set[int], set[int]]:
    """Return the lines of C that no #line can stand before, and those that decide what is left out.

    It cannot stand in a comment, in the definition of a macro, or among the arguments of its call.
    """
    unsafe, conditional = set(), set()
    line, depth = 1, 0
    for found in _TOKEN.finditer(text):
        token = found[0]
        if token == "\n":
            line += 1
            if depth:
                unsafe.add(line)
        elif token in "()":
            depth = max(depth + (1 if token == "(" else -1), 0)
        elif token == "}":
            depth = 0  # whatever the branches of an #if have opened
            unsafe.discard(line)
        else:
            inside = token.count("\n")
            unsafe.update(range(line + 1, line + inside + 1))
            line += inside
            if _CONDITIONAL.match(token):
                conditional.add(line)
    return unsafe, conditional
