# SPDX-License-Identifier: MIT
"""What changed in the sources from one version of the distribution's package to the next, file by file."""

from __future__ import annotations

import filecmp
import functools
import hashlib
import os
import re
import subprocess
from collections.abc import Iterable, Iterator, Mapping, Set
from pathlib import Path
from typing import NamedTuple

FOREIGN = re.compile(r"arch/(?!x86(/|$)).|(tools|samples|scripts|Documentation|usr|debian)(/|$)")
"""What no amd64 kernel is made of."""

MOST_HELPERS = 12
"""Files that change what an error message names: where there are more, it names nothing in particular."""

_WORD = re.compile(r"[A-Za-z_]\w+")
_SHOWN = re.compile(r"^ +\d+ \|(.*)", re.MULTILINE)
_MEMBER = re.compile(r"^\s*\.(\w+)\s*=", re.MULTILINE)
_QUOTED = re.compile("[\u2018'`\"]([^\u2019'`\"\\n]+)[\u2019'`\"]")


class Hunk(NamedTuple):
    """A piece of a file's diff.

    Attributes:
        text: As it is in the diff.
        words: The identifiers in the lines that change.
        new: Those that the file has not had.
    """

    text: str
    words: frozenset[str]
    new: frozenset[str]


class Step:
    """Two source trees of one series, the second one newer.

    Attributes:
        older: The sources of the kernel that is to be patched.
        newer: Those with the fixes.
        changed: The C files and headers that both have, and that differ.
    """

    def __init__(self, older: Path, newer: Path, known: list[str] | None = None) -> None:
        self.older, self.newer = older, newer
        self.changed = known if known is not None else sorted(_changed(older, newer))
        self.sources = [name for name in self.changed if name.endswith(".c")]

    def diff(self, have: Mapping[str, Set[int] | None]) -> str:
        """Return the unified diff of files: of all their hunks, or of those with the numbers given."""
        return "".join(self._of(name, numbers) for name, numbers in have.items())

    def _of(self, name: str, numbers: Set[int] | None) -> str:
        head = f"--- a/{name}\n+++ b/{name}\n"
        return head + "".join(hunk.text for number, hunk in enumerate(self.hunks(name))
                              if numbers is None or number in numbers)

    @functools.cache  # noqa: B019
    def hunks(self, name: str) -> tuple[Hunk, ...]:
        """Return the hunks that the step changes *name* by."""
        argv = ["diff", "-U3", "-p", str(self.older / name), str(self.newer / name)]
        done = subprocess.run(argv, check=False, capture_output=True)
        if done.returncode > 1:
            raise OSError(done.stderr.decode())
        before = set(_WORD.findall((self.older / name).read_text(errors="replace")))
        found = []
        for text in re.split(r"^(?=@@ )", done.stdout.decode(errors="surrogateescape"), flags=re.MULTILINE)[1:]:
            words = frozenset(_WORD.findall("\n".join(re.findall(r"^[-+](.*)", text, re.MULTILINE))))
            found.append(Hunk(text, words, words - before))
        return tuple(found)

    def helpers(self, message: str, have: Mapping[str, Set[int] | None], ending: str = ".h") -> dict[str, set[int]]:
        """Return the hunks that an error message is about: those that change what it names.

        Args:
            message: What the compiler, or the builder, said.
            have: What is in the diff already.
            ending: ".h" or ".c".

        Returns:
            The numbers of the hunks by file; none when there are too many files for them to belong together.
        """
        shown = "\n".join(_SHOWN.findall(message))
        named = {word for quoted in _QUOTED.findall(message) for word in _WORD.findall(quoted)}
        if "error: void value" in message:
            # such an error quotes no name, and shows the line
            named |= set(_WORD.findall(shown))
        named = (named | set(_MEMBER.findall(shown))) - _KEYWORDS
        found = [(name, number, hunk) for name in self.changed if name.endswith(ending)
                 for number, hunk in enumerate(self.hunks(name)) if named & hunk.words]
        # a name that is new there says more than one that stands beside a change
        found = [row for row in found if named & row[2].new] or found
        result: dict[str, set[int]] = {}
        for name, number, _ in found:
            taken = have.get(name, set())
            if taken is not None and number not in taken:
                result.setdefault(name, set()).add(number)
        return result if len(result) <= MOST_HELPERS else {}


_KEYWORDS = frozenset(("struct", "union", "enum", "const", "static", "inline", "void", "int", "long", "short", "char",
                       "unsigned", "signed", "bool", "u8", "u16", "u32", "u64", "size_t", "error", "return"))


def _changed(older: Path, newer: Path) -> Iterator[str]:
    for folder, folders, names in os.walk(older):
        place = Path(folder).relative_to(older)
        folders[:] = [name for name in folders if not FOREIGN.match(str(place / name))]
        for name in names:
            path = str(place / name)
            if path.endswith((".c", ".h")):
                mine, theirs = older / path, newer / path
                if theirs.is_file() and not mine.is_symlink() and not filecmp.cmp(mine, theirs, shallow=False):
                    yield path


def sample(names: Iterable[str], limit: int | None) -> list[str]:
    """Choose *limit* files by a hash of their names: a longer choice begins with a shorter one."""
    return sorted(names, key=lambda name: hashlib.sha256(name.encode()).digest())[:limit]
