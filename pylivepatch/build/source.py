# SPDX-License-Identifier: MIT
"""Which file of the source each name in a diff means: by what the source has, and by what earlier diffs made of it."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from pylivepatch.build import paths
from pylivepatch.build.series import Text
from pylivepatch.build.tree import Tree
from pylivepatch.build.unified import NULL, Change
from pylivepatch.errors import BadDataError, BuildError

_MOST_PARTS = 12
"""Leading parts of a name that may have to be left out."""


class Source:
    """The files of a source.

    Attributes:
        tree: The source.
        changed: The files that diffs change, each with whether it exists after them.
    """

    def __init__(self, tree: Tree) -> None:
        self.tree = tree
        self.top: Path = tree.path.resolve()
        self.changed: dict[str, bool] = {}

    def has(self, path: str) -> bool:
        """Tell whether there is such a file now, which is no link, and not below one."""
        if path in self.changed:
            return self.changed[path]
        place = self.top / path
        return place.is_file() and place.resolve() == place

    def read(self, path: str) -> bytes | None:
        """Return what was in a file before any diff; None when there was none."""
        place = self.top / path
        if not place.is_file() or place.resolve() != place:
            return None
        with open(os.open(place, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC), "rb") as file:
            return file.read()

    def places(self, text: Text, changes: Sequence[Change]) -> list[tuple[Change, str]]:
        """Return the changes of a diff, each with the file that it means."""
        for change in changes:
            for name in (change.old, change.new):
                if ".." in name.split("/"):
                    raise BadDataError(f"{text.name}, line {change.line}: {name!r} is outside of the kernel's source",
                                       after="nothing was written", remedy="make it from the top of the source")
        levels = range(_MOST_PARTS) if text.strip is None else [text.strip]
        tried = {level: self._places(changes, level) for level in levels}
        fitting = {level: found for level, found in tried.items() if None not in found}
        usual = self._usual(changes)
        level = usual if usual in fitting else min(fitting, default=None)
        if level is None:
            raise self._missing(text, changes, tried, usual)
        if level != usual and len({tuple(found) for found in fitting.values()}) > 1:
            raise BadDataError(
                f"{text.name}: its names fit the source in several ways: "
                + ", ".join(f"{found[0]} (-p {level})" for level, found in fitting.items()),
                after="nothing was written", remedy="tell how many leading parts of its names to leave out (-p N)")
        return [(change, path) for change, path in zip(changes, fitting[level], strict=True) if path is not None]

    def _places(self, changes: Sequence[Change], level: int) -> list[str | None]:
        """Return the files that the changes mean when *level* leading parts are left out; None where there is none."""
        made: set[str] = set()
        return [self._place(change, level, made) for change in changes]

    def _place(self, change: Change, level: int, made: set[str]) -> str | None:
        names = [name for name in (_stripped(change.new, level), _stripped(change.old, level)) if name]
        there = [name for name in dict.fromkeys(names) if name in made or self.has(name)]
        if there:
            return there[0] if len(there) == 1 else None
        if not names:
            return None
        first, _, rest = names[0].partition("/")
        if change.may_create and ((self.top / first).is_dir() if rest else not self.tree.is_kernel):
            made.add(names[0])
            return names[0]
        return names[0] if paths.ignored(names[0], is_kernel=self.tree.is_kernel) else None

    def _usual(self, changes: Sequence[Change]) -> int | None:
        """Return the level at which the old and the new names are equal, as nearly all programs make them."""
        pairs = [(change.old, change.new) for change in changes if NULL not in (change.old, change.new)]
        for level in range(_MOST_PARTS):
            if pairs and all(_stripped(old, level) == _stripped(new, level) is not None for old, new in pairs):
                return level
        made = [change.new for change in changes if change.old == NULL]
        return 1 if made and not pairs and all(re.match(r"[abciow12]/", name) for name in made) else None

    def _missing(
        self, text: Text, changes: Sequence[Change], tried: Mapping[int, Sequence[str | None]], usual: int | None
    ) -> BadDataError | BuildError:
        """Return the error that says which file is not in the source."""
        most = max(tried, key=lambda level: (sum(path is not None for path in tried[level]), level == usual, -level))
        change = changes[tried[most].index(None)]
        names = [name for name in (_stripped(change.new, most), _stripped(change.old, most)) if name]
        where = f"{text.name}, line {change.line}"
        level = "" if text.strip is None else f" (-p {text.strip})"
        if len([name for name in dict.fromkeys(names) if self.has(name)]) > 1:
            return BadDataError(f"{where}: it names two files that both exist: {names[1]} and {names[0]}",
                                after="nothing was written", remedy="make it with git diff, or diff -Nup")
        name = names[0] if names else change.new if change.new != NULL else change.old
        if name.startswith("/") or (text.strip is None and change.new.startswith("/") and change.new != NULL):
            return BadDataError(f"{where}: {change.new!r} is outside of the kernel's source",
                                after="nothing was written", remedy="make it from the top of the source")
        if (self.top / name).is_symlink() or (self.top / name).is_file():
            return BuildError(f"{where}: {name} is a link in the kernel's source", kind="not-in-source", file=name,
                              remedy="name the file that it leads to")
        return BuildError(
            f"{where}: {self.tree.label} has no file {name}{level}", kind="not-in-source",
            file=name, remedy="is it for this version of the kernel? -p N leaves out N leading parts of its names")


def _stripped(name: str, level: int) -> str | None:
    """Return a name without *level* leading parts, as patch counts them; None when that is no path of a source."""
    parts = re.split("/+", name)
    if name == NULL or len(parts) <= level or not parts[level]:
        return None
    rest = [part for part in parts[level:] if part != "."]
    return "/".join(rest) or None
