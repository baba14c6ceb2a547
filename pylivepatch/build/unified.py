# SPDX-License-Identifier: MIT
"""Unified diffs, read strictly: what is found is all that is applied, and nothing else in the text looks like a change.

Libraries and patch(1) take what they find, and pass over the rest. That is the gap between what a person reads, what is
judged and what is applied. Here hunks are read by their counts, patch gets them written anew, and a text that has
anything outside of them which patch(1) could take for a change is refused.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import NamedTuple, NoReturn

from pylivepatch.errors import BadDataError

NULL = "/dev/null"
_DAMAGED = "the diff is damaged, or hides a change: leave that out"

_OLD, _NEW, _GIT = "--- ", "+++ ", "diff --git "
_HUNK = re.compile(r"@@ -(\d{1,9})(?:,(\d{1,9}))? \+(\d{1,9})(?:,(\d{1,9}))? @@")
_EXTENDED = re.compile(
    r"(old mode|new mode|deleted file mode|new file mode|copy from|copy to|rename from|rename to|rename old|rename new"
    r"|similarity index|dissimilarity index|index|Binary files|GIT binary patch)\b")  # fmt: skip
_EPOCH = re.compile(r"\t(?:1970-01-01|1969-12-31|Thu Jan +1 \d\d:\d\d:\d\d 1970|Wed Dec 31 \d\d:\d\d:\d\d 1969)")
_ESCAPE = re.compile(r'\\([abfnrtv"\\]|[0-7]{3})')
_ESCAPES = dict(zip('abfnrtv"\\', '\a\b\f\n\r\t\v"\\', strict=True))

# What patch(1) skips before what it looks for, and what that is (intuit_diff_type() of its pch.c).
_INDENT = r"^(?:- )*[ \tX]*"
_HIDDEN = (
    (re.compile(_INDENT + r"@@ -.*", re.MULTILINE), "the beginning of a hunk"),
    (re.compile(_INDENT + r"\*{8}[^\n]*\n[ \tX]*\*\*\* .*", re.MULTILINE), "a context diff"),
    (re.compile(_INDENT + r"\d+(?:,\d+)?[acd]\d*(?:,\d+)?[ \t]*\n[ \tX]*[<>] .*", re.MULTILINE), "a normal diff"),
    (re.compile(r"^(?:(?:- )+|[ \tX]+)diff --git .*", re.MULTILINE), "a header of git"),
)  # fmt: skip
_ALONE = re.compile(_INDENT + _EXTENDED.pattern)
_ED, _ED_END = (re.compile(_INDENT + words, re.MULTILINE) for words in (r"\d+(?:,\d+)?[acdis][ \t]*$", r"\.$"))


class Hunk(NamedTuple):
    """A piece of a file that is changed.

    Attributes:
        old: First line and number of lines in the file as it was.
        new: First line and number of lines in the file as it becomes.
        lines: The lines with their marks, and what tells that a file ends without a line break.
    """

    old: tuple[int, int]
    new: tuple[int, int]
    lines: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Change:
    """What a diff does to a file.

    Attributes:
        old: The file's name as it was, as it is written there, prefix and all; "/dev/null" when the diff creates it.
        new: Its name as it becomes; "/dev/null" when the diff removes it.
        hunks: What changes.
        line: Line of the text where it begins, from 1.
        may_create: Whether the old file may be one that does not exist, by what the diff says.
    """

    old: str
    new: str
    hunks: tuple[Hunk, ...]
    line: int
    may_create: bool = False

    def written(self, path: str, *, creates: bool) -> str:
        """Return it as a diff of the file *path*, with one line of `---` and `+++` each, and nothing else."""
        old, new = NULL if creates else f"a/{path}", NULL if self.new == NULL else f"b/{path}"
        heads = (f"@@ -{hunk.old[0]},{hunk.old[1]} +{hunk.new[0]},{hunk.new[1]} @@\n" for hunk in self.hunks)
        hunks = (head + "".join(hunk.lines) for head, hunk in zip(heads, self.hunks, strict=True))
        return f"--- {old}\n+++ {new}\n" + "".join(hunks)


@dataclass(frozen=True, slots=True)
class Unified:
    """What a text changes.

    Attributes:
        changes: The changes, in their order; a file may occur more than once.
        notes: What it says that is of no effect here: file modes.
    """

    changes: tuple[Change, ...]
    notes: tuple[str, ...]


def read(text: str, name: str) -> Unified:
    """Read a diff.

    Args:
        text: Its text, with line breaks as on Unix.
        name: What it is called, for messages.

    Raises:
        BadDataError: It is none; it is damaged; it changes what is no text, or names of files; or it has what
            patch(1) could take for a change where there is none.
    """
    return _Reader(text, name).read()


class _Reader:
    def __init__(self, text: str, name: str) -> None:
        self.name = name
        self.lines = text.split("\n")
        if self.lines[-1] == "":
            self.lines.pop()
        self.at = 0
        self.changes: list[Change] = []
        self.notes: list[str] = []
        self.outside = list(self.lines)  # what is no part of a change: emptied where it is

    def read(self) -> Unified:
        open_header = False  # git began to tell of a file, and its hunks are still to come, for patch(1)
        while self.at < len(self.lines):
            if self._line().startswith(_GIT):
                count = len(self.changes)
                self._git()
                open_header = len(self.changes) == count
            elif open_header and (self._is_header() or _ALONE.match(self._line())):
                self._refuse(self.at, f"other lines stand between git's header and this: {_shown(self._line())}",
                             _DAMAGED)
            elif self._is_header():
                self._file(self.at, may_create=False)
            else:
                self.at += 1
        self._refuse_hidden()
        if not self.changes and not self.notes:
            self._refuse_other()
        return Unified(tuple(self.changes), tuple(self.notes))

    def _line(self, after: int = 0) -> str:
        return self.lines[self.at + after] if self.at + after < len(self.lines) else ""

    def _is_header(self) -> bool:
        return (self._line().startswith(_OLD) and self._line(1).startswith(_NEW)
                and _HUNK.match(self._line(2)) is not None)  # fmt: skip

    def _git(self) -> None:
        """Read what git says of a file, and its hunks if there are any."""
        start = self.at
        says: dict[str, str] = {}
        self.at += 1
        while (found := _EXTENDED.match(self._line())) and not self._is_header():
            says.setdefault(found[1], self._line())
            self.at += 1
        for word in says:
            if word.startswith(("rename", "copy", "similarity")):
                self._refuse(start, f"{says[word]!r}: it renames or copies files",
                             "a patch replaces functions: make the diff without renaming (git diff --no-renames)")
            if word in ("Binary files", "GIT binary patch"):
                self._refuse(start, "it changes binary files", "leave them out")
        modes = {words.split()[-1] for word, words in says.items() if "mode" in word}
        modes |= {words.split()[2] for word, words in says.items() if word == "index" and len(words.split()) > 2}
        if odd := sorted(mode for mode in modes if not mode.startswith("100")):
            kind = {"120": "a symbolic link", "160": "a submodule"}.get(odd[0][:3], f"a file of mode {odd[0]}")
            self._refuse(start, f"it changes {kind}", "a patch replaces functions: leave it out")
        for number in range(start, self.at):
            self.outside[number] = ""
        if "new mode" in says:
            self.notes.append(f"{self.lines[start].removeprefix(_GIT)}: it changes the mode of a file")
        if self._is_header():
            self._file(start, may_create="new file mode" in says)
            self._refuse_contradiction(says, start)
        elif "deleted file mode" in says:
            self._refuse(start, "it removes a file and does not tell what is in it",
                         "a patch replaces functions: leave it out")
        elif "new file mode" in says:
            self.notes.append(f"{self.lines[start].removeprefix(_GIT)}: it adds an empty file")

    def _refuse_contradiction(self, says: dict[str, str], start: int) -> None:
        """Refuse the last change if its hunks are not of the kind that *says* tells: patch(1) goes by the header."""
        hunks = self.changes[-1].hunks
        kinds = ("new file mode", hunks[0].old, "adds"), ("deleted file mode", hunks[0].new, "removes")
        for word, lines, what in kinds:
            if word in says and (len(hunks) > 1 or lines != (0, 0)):
                self._refuse(start, f"its header {what} a file, and its hunks change lines of one that stays",
                             "it was changed by hand: make it again")

    def _file(self, start: int, *, may_create: bool) -> None:
        old, new = self._line(), self._line(1)
        first = self.at
        self.at += 2
        hunks = []
        while found := _HUNK.match(self._line()):
            hunks.append(self._hunk(found))
        for number in range(first, self.at):
            self.outside[number] = ""
        names = self._filename(old, first), self._filename(new, first + 1)
        if names == (NULL, NULL):
            self._refuse(first, "a file without a name", "name the file")
        may_create = may_create or NULL in names[:1] or bool(_EPOCH.search(old)) or hunks[0].old == (0, 0)
        removes = _EPOCH.search(new) and hunks[0].new == (0, 0)
        self.changes.append(Change(names[0], NULL if removes else names[1], tuple(hunks), start + 1, may_create))

    def _hunk(self, found: re.Match[str]) -> Hunk:
        """Read a hunk, whose first line is the one at hand, as long as that says."""
        start = self.at
        counts = [int(found[1]), int(found[2] or 1), int(found[3]), int(found[4] or 1)]
        old, new = counts[1], counts[3]
        self.at += 1
        lines: list[str] = []
        while old or new:
            if self.at >= len(self.lines):
                self._refuse(start, "the text ends before this hunk does", "was it cut off? get it again")
            line = self._line() or " "  # some mailers take the blank off
            mark = line[0]
            if mark == "\r" and line == "\r":
                mark, line = " ", " \r"
            old, new = old - (mark in " -"), new - (mark in " +")
            if mark not in " +-" or old < 0 or new < 0:
                self._refuse(self.at, f"this is not line {self.at - start} of the hunk that begins in line {start + 1}",
                             "it was changed by hand, or its lines were wrapped by a mailer: make it again")
            lines.append(line + "\n")
            self.at += 1
            if self._line().startswith("\\ "):
                if (old and mark in " -") or (new and mark in " +"):
                    self._refuse(self.at, "it says that a file ends here, and more lines of it follow", "make it again")
                lines.append("\\ No newline at end of file\n")
                self.at += 1
        return Hunk((counts[0], counts[1]), (counts[2], counts[3]), tuple(lines))

    def _filename(self, line: str, number: int) -> str:
        text = line[len(_OLD):]
        if text.startswith('"'):
            quoted = re.match(r'"((?:[^"\\]|\\.)*)"', text)
            if quoted is None:
                self._refuse(number, "a name in quotes that does not end", "make it again")
            raw = _ESCAPE.sub(lambda found: _ESCAPES.get(found[1]) or chr(int(found[1], 8)), quoted[1])
            return raw.encode("latin-1", errors="replace").decode(errors="surrogateescape")
        name = text.partition("\t")[0].rstrip()
        # Some programs put a date behind a blank; names in the kernel have no blank.
        return re.split(r" +(?=\d{4}-\d\d-\d\d |\w{3} \w{3} +\d)", name)[0]

    def _refuse(self, number: int, words: str, remedy: str) -> NoReturn:
        raise BadDataError(f"{self.name}, line {number + 1}: {words}", after="nothing was written", remedy=remedy)

    def _refuse_hidden(self) -> None:
        """Refuse a text that has more than what was read as a change."""
        text = "\n".join(self.outside)
        for pattern, what in (*_HIDDEN, (_ED, "a script for ed")):
            found = pattern.search(text)
            if found and (pattern is not _ED or _ED_END.search(text, found.end())):
                number = text.count("\n", 0, found.start())
                self._refuse(number, "outside of the hunks there is what patch(1) could take for "
                             f"{what}: {_shown(self.lines[number])}", _DAMAGED)

    def _refuse_other(self) -> NoReturn:
        """Say what a text is that changes nothing."""
        kind = next((kind for pattern, kind in _OTHERS if re.search(pattern, "\n".join(self.lines), re.MULTILINE)), "")
        words = f": it is {kind}" if kind else ": no `--- FILE`, `+++ FILE` and `@@` in it"
        raise BadDataError(f"{self.name} is no unified diff{words}", after="nothing was written",
                           remedy="make it with git diff, or diff -Nup")


_OTHERS = (
    (r"^@@@+ -", "a combined diff of a merge (git diff -m, or git show --first-parent, makes others)"),
    (r"^diff --(?:cc|combined) ", "a combined diff of a merge (git diff -m, or git show --first-parent, makes others)"),
    (r"^Binary files .* differ$", "about binary files"),
    (r"^Only in .*: ", "a list of files that only one directory has (diff -N compares them, too)"),
    (r"^\s*<(?:!doctype|html)", "a web page"),
    (r"\A\s*\Z", "empty"),
)


def _shown(line: str) -> str:
    return repr(line if len(line) < 60 else line[:57] + "...")

