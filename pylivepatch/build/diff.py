# SPDX-License-Identifier: MIT
"""Diffs of the kernel's source: the files that they change, judged by their paths, and what these become."""

from __future__ import annotations

import os
import re
import shutil
import stat
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Self

from pylivepatch.build import paths, series, unified
from pylivepatch.build.source import Source
from pylivepatch.build.tree import Tree
from pylivepatch.build.unified import NULL, Change
from pylivepatch.errors import BadDataError, BuildError
from pylivepatch.lab.sandbox import Done, Sandbox

_NAME = re.compile(r"[\w.,+@=:#~-][\w.,+@=:#~/-]*")


@dataclass(frozen=True, slots=True)
class FileDiff:
    """A file that diffs change.

    Attributes:
        path: From the top of the kernel's source.
        before: What is in it; None when the diffs create it.
        after: What it becomes.
    """

    path: str
    before: bytes | None
    after: bytes

    @property
    def is_new(self) -> bool:
        """Whether the source does not have it."""
        return self.before is None

    @property
    def texts(self) -> tuple[str, str]:
        """What is in it, and what it becomes, as text."""
        return (self.before or b"").decode(errors="replace"), self.after.decode(errors="replace")


@dataclass(frozen=True, slots=True)
class Applied:
    """What diffs make of a source.

    Attributes:
        files: The files of this kernel's code that they change.
        ignored: Other files that they change: documentation, tools, other architectures.
        notes: What a person should know: hunks that were moved, modes that change.
    """

    files: tuple[FileDiff, ...]
    ignored: tuple[str, ...]
    notes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Diff:
    """Unified diffs, which are applied one after the other.

    Attributes:
        texts: As they were given.
        parts: What each changes, by its own words.
    """

    texts: tuple[series.Text, ...]
    parts: tuple[unified.Unified, ...]

    @classmethod
    def read(cls, given: Sequence[str | os.PathLike[str]], strip: int | None = None) -> Self:
        """Read diffs as `series.read` does.

        Args:
            given: Files, directories, and "-" for standard input.
            strip: How many leading parts of the names in them to leave out; by default what the source has decides.

        Raises:
            PatchNotFoundError: There is no such file.
            BadDataError: It is no unified diff, or has more than its hunks that looks like a change.
        """
        texts = [text if strip is None else replace(text, strip=strip) for text in series.read(given)]
        return cls(tuple(texts), tuple(unified.read(text.text, text.name) for text in texts))

    @property
    def text(self) -> str:
        """All of it, as one text."""
        return "".join(text.text if text.text.endswith("\n") else text.text + "\n" for text in self.texts)

    @property
    def cves(self) -> tuple[str, ...]:
        """The CVE names in the headers of their mails."""
        return tuple(dict.fromkeys(cve for text in self.texts for cve in text.cves))

    def against(self, tree: Tree, fuzz: int = 0) -> Applied:
        """Find the files that the diffs change in a source, and what these become.

        Args:
            tree: The source, which stays as it is.
            fuzz: How many lines at the ends of a hunk's context may differ.

        Raises:
            BadDataError: A name in a diff is outside of the source, or fits it in several ways.
            BuildError: A diff changes what no patch can; names a file that the source does not have; does not apply;
                or nothing of it is code of the kernel.
        """
        source = Source(tree)
        ignored: list[str] = []
        notes = [note for part in self.parts for note in part.notes]
        with tempfile.TemporaryDirectory(prefix="pylivepatch-build-") as folder:
            bench = _Bench(source, Path(folder), fuzz, notes)
            for text, part in zip(self.texts, self.parts, strict=True):
                places = source.places(text, part.changes)
                ignored += [path for _, path in places if paths.ignored(path, is_kernel=tree.is_kernel)]
                bench.apply(text.name, [(change, path) for change, path in places if path not in ignored])
            files = bench.files()
        _check_new(files)
        if not files:
            names = ", ".join(text.name for text in self.texts)
            words = ", ".join(dict.fromkeys((*ignored, *notes))) or "what it changes, it changes back"
            raise BuildError(f"{names} changes no code of the kernel: {words}", kind="nothing",
                             remedy="there is nothing to patch")
        return Applied(tuple(files), tuple(dict.fromkeys(ignored)), tuple(notes))


class _Bench:
    """A directory with the files that diffs change, and nothing else, where patch works on them."""

    def __init__(self, source: Source, folder: Path, fuzz: int, notes: list[str]) -> None:
        self.source, self.folder, self.fuzz, self.notes = source, folder, fuzz, notes
        self.box = Sandbox(write=(folder,), confined=source.tree.confined)

    def apply(self, name: str, places: Sequence[tuple[Change, str]]) -> None:
        """Apply a diff, written anew, to the files that it means."""
        written = "".join([self._written(change, path, name) for change, path in places])
        if not written:
            return
        with tempfile.TemporaryDirectory(prefix="pylivepatch-build-") as folder:
            before = Path(folder) / "before"  # patch puts other files in the place of these
            shutil.copytree(self.folder, before, copy_function=os.link)
            done = self._patch(written, name, self.folder, self.fuzz)
            if done.status == 0:
                self.notes += (f"hunk {number} of {file} was applied at line {words}" for file, line in _said(done)
                               for number, words in re.findall(r"Hunk #(\d+) succeeded at (\d+ .*)\.", line))
                return
            error = _failure(done, name)
            if not self.fuzz and "does not apply" in error.message and not self._patch(written, name, before, 2).status:
                error.remedy += ", or see whether it is right where lines of the context differ (--fuzz 2)"
            raise error

    def _written(self, change: Change, path: str, name: str) -> str:
        """Return a change written anew for patch, and lay the file ready that it changes."""
        source = self.source
        if not _NAME.fullmatch(path):
            raise BadDataError(f"{name}, line {change.line}: {path!r} is no name of a file of the kernel",
                               after="nothing was written")
        _judge(source, change, path, name)
        creates = not source.has(path)
        if path not in source.changed and not creates:
            place = self.folder / path
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_bytes(source.read(path) or b"")
        source.changed[path] = change.new != NULL
        return change.written(path, creates=creates)

    def _patch(self, text: str, name: str, folder: Path, fuzz: int) -> Done:
        argv = ["patch", "-u", "-p1", "--batch", "--forward", f"--fuzz={fuzz}", "--no-backup-if-mismatch",
                "--reject-file=-"]  # fmt: skip
        box = replace(self.box, write=(folder,))
        return box.run(argv, cwd=folder, data=text.encode(errors="surrogateescape"), what=f"applying {name}")

    def files(self) -> list[FileDiff]:
        """Return what the files became, and make sure that nothing else is there."""
        found = {str(path.relative_to(self.folder)) for path in _walk(self.folder)}
        changed = self.source.changed
        if odd := found ^ {path for path, exists in changed.items() if exists}:
            raise BuildError(f"patch made something else than the diff says: {', '.join(sorted(odd))}", kind="apply",
                             file=min(odd), remedy="make it anew, with git diff")
        files = [FileDiff(path, self.source.read(path), (self.folder / path).read_bytes())
                 for path, exists in changed.items() if exists]
        return [file for file in files if file.before != file.after]


def _judge(source: Source, change: Change, path: str, name: str) -> None:
    """Refuse what no patch can change."""
    rule = paths.refused(path, is_kernel=source.tree.is_kernel)
    if rule is not None:
        raise BuildError(f"{path} cannot be patched: {rule.reason}", kind=rule.kind, file=path, remedy=rule.remedy)
    if change.new == NULL and source.read(path) is not None:
        raise BuildError(f"the diff removes {path}, and its code runs", kind="build-system", file=path,
                         remedy="change the functions that should not run any more")
    if change.old == NULL and source.has(path):
        raise BuildError(f"{name} adds {path}, which the source of this kernel has already", kind="apply", file=path,
                         remedy="is it in this kernel already?")


def _check_new(files: Sequence[FileDiff]) -> None:
    """Refuse a new file that would have to be compiled by itself."""
    for file in files:
        name = re.escape(file.path.rpartition("/")[2])
        include = re.compile(rf'^[ \t]*#[ \t]*include[ \t]*["<](?:[^">]*/)?{name}[">]', re.MULTILINE)
        if file.is_new and not file.path.endswith(".h") and not any(include.search(other.texts[1]) for other in files):
            raise BuildError(f"the diff adds {file.path}, which no Makefile of the running kernel knows",
                             kind="build-system", file=file.path,
                             remedy="put the new functions into a file that exists, or #include it there")


def _walk(top: Path) -> Iterator[Path]:
    """Yield the files below a directory, of which all are regular ones."""
    for path in sorted(top.iterdir()):
        mode = path.lstat().st_mode
        if stat.S_ISDIR(mode):
            yield from _walk(path)
        elif not stat.S_ISREG(mode):
            raise BuildError(f"patch made {path.name}, which is not a regular file", kind="apply", file=path.name)
        else:
            yield path


def _said(done: Done) -> Iterator[tuple[str, str]]:
    """Yield the lines that patch wrote, each with the file that it is about."""
    file = ""
    for line in (done.stdout + done.stderr).decode(errors="replace").splitlines():
        if found := re.match(r"patching file '?(.*?)'?$", line):
            file = found[1]
        else:
            yield file, line


def _failure(done: Done, name: str) -> BuildError:
    """Return the error that says why patch failed."""
    file, line = next(((file, line) for file, line in _said(done)
                       if re.search("FAILED|previously applied|already exists", line)), ("", ""))
    if line and "FAILED" not in line:
        return BuildError(f"{name} is in the source of this kernel already ({file})", kind="apply", file=file,
                          remedy="there is nothing to patch")
    hunk = re.search(r"Hunk #(\d+) FAILED at (\d+)", line)
    words = f": hunk {hunk[1]} of {file}, at line {hunk[2]}" if hunk else f":\n{done.output()}"
    return BuildError(f"{name} does not apply to the source of this kernel{words}", kind="apply", file=file,
                      remedy="make it for this very version of the source")
