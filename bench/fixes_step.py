# SPDX-License-Identifier: MIT
"""What changed in the sources from one version of the distribution's package to the next, file by file."""

from __future__ import annotations

import filecmp
import functools
import hashlib
import os
import re
import subprocess
from collections.abc import Iterable, Iterator
from pathlib import Path

FOREIGN = re.compile(r"arch/(?!x86(/|$)).|(tools|samples|scripts|Documentation|usr|debian)(/|$)")
"""What no amd64 kernel is made of."""

MOST_HELPERS = 12
"""Files that change what an error message names: where there are more, it names nothing in particular."""

_WORD = re.compile(r"[A-Za-z_]\w+")
_SHOWN = re.compile(r"^ +\d+ \|(.*)", re.MULTILINE)
_QUOTED = re.compile("[\u2018'`\"]([^\u2019'`\"\\n]+)[\u2019'`\"]")


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

    def diff(self, names: Iterable[str]) -> str:
        """Return the unified diff of the files *names*."""
        return "".join(self._diff(name) for name in names)

    @functools.cache  # noqa: B019
    def _diff(self, name: str) -> str:
        argv = ["diff", "-U3", "-p", "--label", f"a/{name}", "--label", f"b/{name}",
                str(self.older / name), str(self.newer / name)]
        done = subprocess.run(argv, check=False, capture_output=True)
        if done.returncode > 1:
            raise OSError(done.stderr.decode())
        return done.stdout.decode(errors="surrogateescape")

    @functools.cache  # noqa: B019
    def words(self, name: str) -> frozenset[str]:
        """Return the identifiers in the lines of *name* that the step changes."""
        lines = [line[1:] for line in self._diff(name).split("\n")[2:] if line[:1] in ("+", "-")]
        return frozenset(_WORD.findall("\n".join(lines)))

    @functools.cache  # noqa: B019
    def new_words(self, name: str) -> frozenset[str]:
        """Return the identifiers that *name* has since the step."""
        return self.words(name) - set(_WORD.findall((self.older / name).read_text(errors="replace")))

    def helpers(self, message: str, have: Iterable[str], ending: str = ".h") -> list[str]:
        """Return the changed files that an error message is about: those that change what it names.

        Args:
            message: What the compiler, or the builder, said.
            have: Files that are in the diff already.
            ending: ".h" or ".c".

        Returns:
            The files; none when there are too many for them to belong together.
        """
        named = {word for quoted in _QUOTED.findall(message) for word in _WORD.findall(quoted)} - _KEYWORDS
        if "error: void value" in message:
            # such an error quotes no name, and shows the line
            named |= {word for line in _SHOWN.findall(message) for word in _WORD.findall(line)} - _KEYWORDS
        taken = set(have)
        found = [name for name in self.changed
                 if name.endswith(ending) and name not in taken and named & self.words(name)]
        # a name that is new there says more than one that stands beside a change
        found = [name for name in found if named & self.new_words(name)] or found
        return found if len(found) <= MOST_HELPERS else []


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
