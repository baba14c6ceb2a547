# SPDX-License-Identifier: MIT
"""Diffs of the kernel's source: read, judged by the paths they touch, and applied to a shadow of the source tree."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Self

from pylivepatch.build import paths
from pylivepatch.build.tree import Tree
from pylivepatch.build.units import Unit
from pylivepatch.errors import BadDataError, BuildError
from pylivepatch.lab import module as lab_module
from pylivepatch.lab.sandbox import Sandbox

_HUNK = re.compile(r"^@@ -(\d+)(?:,(\d+))? \+(\d+)(?:,(\d+))? @@", re.MULTILINE)
_FILE = re.compile(r"^--- (\S+)[^\n]*\n\+\+\+ (\S+)[^\n]*\n(?=@@ )", re.MULTILINE)
_NULL = "/dev/null"


@dataclass(frozen=True, slots=True)
class FileDiff:
    """A file that a diff changes.

    Attributes:
        path: From the top of the kernel's source.
        is_new: Whether the diff creates it.
        is_deleted: Whether the diff removes it.
    """

    path: str
    is_new: bool = False
    is_deleted: bool = False


@dataclass(frozen=True, slots=True)
class Diff:
    """One or more unified diffs, which are applied one after the other.

    Attributes:
        texts: The diffs.
        names: What they are called, for messages.
        files: The files of this kernel's code that they change.
        ignored: Other files that they change: documentation, tools, other architectures.
    """

    texts: tuple[str, ...]
    names: tuple[str, ...]
    files: tuple[FileDiff, ...]
    ignored: tuple[str, ...]

    @property
    def text(self) -> str:
        """All of it, as one text."""
        return "".join(text if text.endswith("\n") else text + "\n" for text in self.texts)

    @classmethod
    def parse(cls, text: str, name: str = "diff", *, is_kernel: bool = True) -> Self:
        """Read a unified diff.

        Args:
            text: The diff.
            name: What to call it.
            is_kernel: Whether it is of the kernel's own source, whose paths tell what cannot be patched.

        Raises:
            BadDataError: It is none, or changes more than text: binary files, names, modes.
            BuildError: It changes what no patch can.
        """
        if re.search(r"^(?:Binary files |GIT binary patch)", text, re.MULTILINE):
            raise BadDataError(f"{name} changes binary files", remedy="leave them out")
        if re.search(r"^(?:rename|copy) (?:from|to) ", text, re.MULTILINE):
            raise BadDataError(f"{name} renames files", remedy="a patch replaces functions: leave the renaming out")
        found: dict[str, FileDiff] = {}
        for old, new in _FILE.findall(text):
            if old == new == _NULL:
                raise BadDataError(f"{name} has a file without a name")
            path = _stripped(new if new != _NULL else old, name)
            found[path] = FileDiff(path, old == _NULL, new == _NULL)
        if not found:
            raise BadDataError(f"{name} is no unified diff: no `--- a/FILE`, `+++ b/FILE` and `@@` in it",
                               remedy="make it with git diff or diff -up")
        ignored = tuple(path for path in found if paths.ignored(path, is_kernel=is_kernel))
        kept = [file for path, file in found.items() if path not in ignored]
        for file in kept:
            _judge(file, is_kernel=is_kernel)
        return cls((text,), (name,), tuple(kept), ignored)

    @classmethod
    def joined(cls, diffs: Sequence[Diff]) -> Self:
        """Return several diffs as one.

        Raises:
            BuildError: They change nothing that a patch could.
        """
        files = {file.path: file for diff in diffs for file in diff.files}
        ignored = dict.fromkeys(path for diff in diffs for path in diff.ignored)
        if not files:
            names = ", ".join(name for diff in diffs for name in diff.names)
            raise BuildError(f"{names} changes no code of the kernel: {', '.join(ignored)}", kind="nothing")
        return cls(tuple(text for diff in diffs for text in diff.texts),
                   tuple(name for diff in diffs for name in diff.names), tuple(files.values()), tuple(ignored))

    def apply(self, tree: Tree, into: Path, units: Sequence[Unit]) -> Path:
        """Make a shadow of *tree* at *into*, with the diffs applied; the tree stays as it is.

        Directories on the way to a changed file or to a unit are real ones, so that what the compiler reaches by
        relative paths is the shadow's; everything else is a link into the tree. A changed header may be reached from
        any directory, by `..`: then all directories are real that may have to do with it.

        Raises:
            BuildError: A diff does not apply.
        """
        names = [file.path for file in self.files]
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
        for name in names:
            if (tree.path / name).is_file():
                shutil.copyfile(tree.path / name, into / name)
        headers = lab_module.klpctl_source()
        if headers is not None and not (into / "include/klpctl").exists():
            (into / "include").mkdir(exist_ok=True)
            (into / "include/klpctl").symlink_to(headers / "include/klpctl")
        self._patch(tree, into)
        for name in names:
            if name.endswith((".c", ".h")) and (tree.path / name).is_file() and (into / name).is_file():
                _keep_lines(tree.path / name, into / name)
        return into

    def contents(self, tree: Tree) -> dict[str, tuple[str, str]]:
        """Return each file that the diffs change, as it is and as it becomes.

        Raises:
            BuildError: A diff does not apply.
        """
        with tempfile.TemporaryDirectory(prefix="pylivepatch-build-") as folder:
            into = Path(folder)
            names = [file.path for file in self.files if not file.is_new]
            for name in names:
                (into / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(tree.path / name, into / name)
            self._patch(tree, into)
            return {name: ((tree.path / name).read_text(errors="replace"), (into / name).read_text(errors="replace"))
                    for name in names}

    def _patch(self, tree: Tree, into: Path) -> None:
        for text, name in zip(self.texts, self.names, strict=True):
            self._patch_one(text, name, tree.sandbox(into), into)

    def _patch_one(self, text: str, name: str, box: Sandbox, into: Path) -> None:
        text = "".join(part for path, part in _split(text) if path not in self.ignored)
        level = 1 if all(path.startswith(("a/", "b/")) or path == _NULL
                         for pair in _FILE.findall(text) for path in pair) else 0
        argv = ["patch", f"-p{level}", "--batch", "--forward", "--fuzz=0", "--no-backup-if-mismatch", "--reject-file=-"]
        done = box.run(argv, cwd=into, data=text.encode(errors="surrogateescape"), what=f"applying {name}")
        if done.status == 0:
            return
        said = (done.stdout + done.stderr).decode(errors="replace")
        file = re.search(r"^patching file '?([^'\n]+)'?\n(?:(?!patching file)[^\n]*\n)*?"
                         r"[^\n]*(?:FAILED|previously applied)", said, re.MULTILINE)
        where = file[1] if file else ""
        if "previously applied" in said:
            raise BuildError(f"{name} is in the source of this kernel already ({where})", kind="apply", file=where,
                             remedy="there is nothing to patch")
        hunk = re.search(r"Hunk #(\d+) FAILED at (\d+)", said)
        words = f": hunk {hunk[1]} of {where}, at line {hunk[2]}" if hunk else f":\n{said.strip()}"
        raise BuildError(f"{name} does not apply to the source of this kernel{words}", kind="apply", file=where,
                         remedy="make it for this very version of the source")


def _stripped(path: str, name: str) -> str:
    """Return a path from the top of the tree, without the a/ or b/ of git."""
    bare = path[2:] if path.startswith(("a/", "b/")) else path
    if bare.startswith("/") or ".." in bare.split("/") or not bare:
        raise BadDataError(f"{name} changes {path}, which is outside of the kernel's source")
    return bare


def _judge(file: FileDiff, *, is_kernel: bool) -> None:
    """Refuse what no patch can change."""
    rule = paths.refused(file.path, is_kernel=is_kernel)
    if rule is not None:
        raise BuildError(f"{file.path} cannot be patched: {rule.reason}", kind=rule.kind, file=file.path,
                         remedy=rule.remedy)
    if file.is_deleted:
        raise BuildError(f"the diff removes {file.path}, and its code runs", kind="build-system", file=file.path,
                         remedy="change the functions that should not run any more")
    if file.is_new and not file.path.endswith(".h"):
        raise BuildError(f"the diff adds {file.path}, which no Makefile of the running kernel knows",
                         kind="build-system", file=file.path,
                         remedy="put the new functions into a file that exists, or into a header")


def _split(text: str) -> list[tuple[str, str]]:
    """Return the parts of a diff, file by file."""
    starts = [(match.start(), match[2] if match[2] != _NULL else match[1]) for match in _FILE.finditer(text)]
    ends = [start for start, _ in starts[1:]] + [len(text)]
    return [(path[2:] if path.startswith(("a/", "b/")) else path, text[start:end])
            for (start, path), end in zip(starts, ends, strict=True)]


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
