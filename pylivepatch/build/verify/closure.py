# SPDX-License-Identifier: MIT
"""What differs between two assemblies of one source, by their text: which old code must not run any more.

Functions are compared line by line. A label of the compiler's is known by where it stands, a string by what is in it, a
variable that the compiler numbered by who refers to it: what is the same thing for all functions that did not change is
the same thing.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from pylivepatch.build.verify.assembly import Assembly, Atom

_WORD = re.compile(r'"(?:[^"\\]|\\.)*"|[A-Za-z_.][\w.]*')
_NUMBER = re.compile(r"\.\d+(?=\.|\Z)")
_UNIQUE = re.compile(r"(__UNIQUE_ID_\w*?)\d+(?=\Z|\.)|(__initcall__\w+?__)\d+_\d+(?=_)")
_SPACE = re.compile(r"\s+")

NOTES = re.compile(
    r"\.discard|__mcount_loc|__patchable_function_entries|\.printk_index|\.note|\.comment|\.orc|\.debug|\.export_symbol"
    r"|___ksymtab|__ksymtab|___kcrctab|__kcrctab|__tracepoint_check")
"""Sections whose references to code never make it run."""

INIT = re.compile(r"\.init\.|\.meminit\.|\.init_array|\.initcall|\.con_initcall")
"""Sections of what is done when the patch is loaded."""


def base(name: str) -> str:
    """Return *name* without the numbers that the compiler or the preprocessor's __COUNTER__ gave to it."""
    return _UNIQUE.sub(r"\1\2", _NUMBER.sub("", name))


def bare(name: str) -> str:
    """Return the name that a function has in the source."""
    return base(name).partition(".")[0]


@dataclass(slots=True)
class _Text:
    """The lines of an atom: what they are apart from the names in them, and these."""

    shape: list[str] = field(default_factory=list)
    names: list[str] = field(default_factory=list)


class Closure:
    """Compares the texts of a source before and after the diff.

    Args:
        orig: The original.
        patched: The patched one.

    Attributes:
        same: Numbers of the atoms of the original whose content is the same after the diff.
        ambiguous: Numbers of those atoms of the patched text of which nothing tells whether the kernel has them.
    """

    def __init__(self, orig: Assembly, patched: Assembly) -> None:
        self.sides: tuple[Assembly, Assembly] = orig, patched
        self.same: set[int] = set()
        self.ambiguous: set[int] = set()
        self._pairs: dict[int, Atom] = {}
        self._texts: tuple[dict[int, _Text], dict[int, _Text]] = {}, {}
        self._users: tuple[dict[int, set[str]], dict[int, set[str]]] = {}, {}
        self._known: dict[tuple[int, int], frozenset[tuple[int, int]] | None] = {}
        self._pair_names()
        self._pair_numbered()
        self._compare()

    def original(self, atom: Atom) -> Atom | None:
        """Return the atom of the original that *atom* of the patched text is; None when it is new."""
        return self._pairs.get(atom.number)

    def number(self, atom: Atom) -> int | None:
        """Return the number of the original of *atom* of the patched text; None when it is new."""
        old = self._pairs.get(atom.number)
        return old.number if old is not None else None

    # ---- who is who ----

    def _pair_names(self) -> None:
        for atom in self.sides[1].atoms:
            if atom.name and base(atom.name) == atom.name and atom.owner is None:
                old = self.sides[0].names.get(atom.name)
                if old is not None and old.code == atom.code:
                    self._pairs[atom.number] = old

    def _pair_numbered(self) -> None:
        """Pair what the compiler numbered as the functions that did not change have it."""
        orig, patched = self.sides
        taken: set[int] = set()
        fresh = list(self._pairs.items())
        while fresh:
            votes: Counter[tuple[int, int]] = Counter()
            for number, old in fresh:
                votes.update(self._match(old, patched.atoms[number]) or ())
            fresh = []
            for (a, b), _ in votes.most_common():
                if a not in taken and b not in self._pairs:
                    self._pairs[b] = orig.atoms[a]
                    taken.add(a)
                    fresh.append((b, orig.atoms[a]))
        groups: dict[str, tuple[list[Atom], list[Atom]]] = defaultdict(lambda: ([], []))
        for side, text in enumerate(self.sides):
            for atom in text.atoms:
                paired = atom.number in (self._pairs if side else taken)
                if atom.name and base(atom.name) != atom.name and atom.owner is None and not paired:
                    groups[base(atom.name)][side].append(atom)
        for olds, news in groups.values():
            self._pair_by_users(olds, news)

    def _pair_by_users(self, olds: list[Atom], news: list[Atom]) -> None:
        """Pair those to which only functions refer that changed, when one function refers to both, and to no other."""
        before = {old.number: self._used_by(0, old) for old in olds}
        after = {new.number: self._used_by(1, new) for new in news}
        for new in news:
            likely = [old for old in olds if before[old.number] & after[new.number]]
            rivals = [one for one in news for old in likely if before[old.number] & after[one.number]]
            if not after[new.number]:
                likely = [old for old in olds if not before[old.number] and self._match(old, new) is not None]
                rivals = likely[:1]
            if len(likely) == len(rivals) == 1:
                self._pairs[new.number] = likely[0]
            elif olds and after[new.number]:
                self.ambiguous.add(new.number)

    def _used_by(self, side: int, atom: Atom) -> set[str]:
        """Return the names of the functions that refer to *atom*."""
        users = self._users[side]
        if not users:
            users[-1] = set()
            for user in self.sides[side].atoms:
                if user.owner is None and user.code:
                    for target in self._targets(side, user):
                        users.setdefault(target.number, set()).add(bare(user.name))
        return users.get(atom.number, set())

    # ---- what is the same ----

    def _compare(self) -> None:
        for number, old in self._pairs.items():
            needed = self._match(old, self.sides[1].atoms[number])
            if needed is not None and all(self._pairs.get(b) is self.sides[0].atoms[a] for a, b in needed):
                self.same.add(old.number)

    def _text(self, side: int, atom: Atom) -> _Text:
        known = self._texts[side].get(atom.number)
        if known is None:
            known = self._texts[side][atom.number] = _Text()
            for line in atom.lines:
                _split(line, known)
        return known

    def _targets(self, side: int, atom: Atom) -> Iterator[Atom]:
        """Yield what the text of *atom* refers to, but for what it owns."""
        names = self.sides[side].names
        for word in self._text(side, atom).names:
            target = names.get(word)
            if target is not None:
                top = target.owner or target
                if top is not atom:
                    yield top

    def _match(self, old: Atom, new: Atom) -> frozenset[tuple[int, int]] | None:
        """Return which numbered things have to be one thing for two atoms to be alike; None when they are not."""
        key = old.number, new.number
        if key not in self._known:
            self._known[key] = None
            self._known[key] = self._matched(old, new)
        return self._known[key]

    def _matched(self, old: Atom, new: Atom) -> frozenset[tuple[int, int]] | None:
        a, b = self._text(0, old), self._text(1, new)
        if a.shape != b.shape or len(a.names) != len(b.names) or old.section != new.section:
            return None
        needed: set[tuple[int, int]] = set()
        there: dict[str, str] = {}
        back: dict[str, str] = {}
        for x, y in zip(a.names, b.names, strict=True):
            one, two = self.sides[0].names.get(x), self.sides[1].names.get(y)
            if one is None or two is None:
                if one is not two or x != y:
                    return None
            elif (one.owner or one) is old and (two.owner or two) is new:
                local = x.startswith(".L") and y.startswith(".L")
                if there.setdefault(x, y) != y or back.setdefault(y, x) != x or not (local or base(x) == base(y)):
                    return None
            elif x.startswith(".L") and y.startswith(".L"):
                more = self._match(one, two)
                if more is None or one.labels.index(x) != two.labels.index(y):
                    return None
                needed |= more
            elif base(x) != base(y) or (x != y and base(x) == x):
                return None
            elif base(x) != x:
                needed.add((one.number, two.number))
        return frozenset(needed)

    # ---- what runs ----

    def differing(self) -> Iterator[Atom]:
        """Yield the functions of the original that differ, or are gone."""
        for atom in self.sides[0].atoms:
            if atom.code and atom.owner is None and atom.name and atom.number not in self.same:
                yield atom

    def reached(self, replaced: Iterable[int]) -> dict[int, str]:
        """Return what old code leads to when the functions *replaced* do not run any more.

        Returns:
            Numbers of the original's functions, with who leads to each.
        """
        orig = self.sides[0]
        gone = set(replaced)
        leads: dict[int, str] = {}
        pending: list[Atom] = []
        for atom in orig.atoms:
            if atom.owner is not None or NOTES.match(atom.section) or INIT.match(atom.section):
                continue
            if atom.code and atom.name:
                if any(label in orig.binding for label in atom.labels):
                    leads[atom.number] = "other sources"
                if atom.number not in self.same and atom.number not in leads:
                    continue
            pending.append(atom)
        seen: set[int] = set()
        while pending:
            atom = pending.pop()
            if atom.number in seen or atom.number in gone:
                continue
            seen.add(atom.number)
            for target in self._targets(0, atom):
                leads.setdefault(target.number, atom.name or atom.section)
                pending.append(target)
        return leads


def _split(line: str, into: _Text) -> None:
    """Cut a line into its shape and the names in it."""
    at = 0
    shape = []
    for match in _WORD.finditer(line):
        before = line[match.start() - 1] if match.start() else ""
        if match[0][0] == '"' or before in ("%", "\\") or before.isalnum():
            continue
        shape.append(line[at:match.start()])
        at = match.end()
        into.names.append(match[0])
    shape.append(line[at:])
    into.shape.append(_SPACE.sub(" ", "\0".join(shape)).strip())
