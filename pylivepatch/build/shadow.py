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
    """Give the lines after each change the numbers that they had, so that __LINE__ stays in untouched functions."""
    said = subprocess.run(["diff", "-U0", original, changed], capture_output=True, text=True, errors="surrogateescape",
                          check=False).stdout
    hunks = [tuple(int(number) if number else 1 for number in match) for match in _HUNK.findall(said)]
    lines = changed.read_text(errors="surrogateescape").splitlines(keepends=True)
    marks: dict[int, int] = {}
    for index, (old, removed, new, added) in enumerate(hunks):
        # a hunk without lines names the line before it
        after_old = old + removed - (0 if removed else -1)
        after_new = new + added - (0 if added else -1)
        limit = hunks[index + 1][2] if index + 1 < len(hunks) else len(lines) + 1
        place = _safe(lines, after_new - 1, limit - 1)
        if place is not None and after_old != after_new:
            marks[place] = after_old + place - (after_new - 1)
    if marks:
        out = []
        for number, line in enumerate(lines):
            if number in marks:
                out.append(f"#line {marks[number]}\n")
            out.append(line)
        changed.write_text("".join(out), errors="surrogateescape")


def _safe(lines: list[str], start: int, end: int) -> int | None:
    """Return the index of the first line from *start*, before *end*, that a #line can stand before.

    That is after the end of a function or declaration, or at the beginning of one: never in a comment, in a macro's
    definition or among the arguments of its call.
    """
    for index in range(max(start, 1), min(end, len(lines))):
        before, line = lines[index - 1], lines[index]
        if before.endswith("\\\n"):
            continue
        if before.startswith("}"):
            return index
        if not before.strip() and re.match(r"[A-Za-z_]", line) and not re.match(r"\w+:", line):
            return index
    return None
