# SPDX-License-Identifier: MIT
"""Names that macros paste together (``get_##name``), so that no text has them as they are."""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from pylivepatch.build.tree import Tree

_MEMO = ".pasted.json"
_DEFINE = re.compile(r"^[ \t]*#[ \t]*define[ \t]+(\w+)\(([^)]*)\)((?:[^\n\\]|\\.|\\\n)*)", re.MULTILINE)
_PASTE = re.compile(r"\w+(?:[ \t]*##[ \t]*\w+)+")
_WORD = re.compile(r"[A-Za-z_]\w*")
_LEAST, _MOST = 2, 2000
"""Characters of each piece where macros paste nothing of their own; ways to take a name apart that are looked at."""


@dataclass(slots=True)
class Pasted:
    """A way in which macros may make a name of their arguments.

    Attributes:
        macros: The macros that add a piece of their own, and those that use them; none where the arguments are all.
        pieces: Sets of arguments, of which one has to be there.
        inside: Words that stand in the definitions of these macros, and may be arguments.
    """

    macros: set[str]
    pieces: list[frozenset[str]]
    inside: set[str] = field(default_factory=set)

    @property
    def traces(self) -> set[str]:
        """Words of which a text has at least one that makes the name."""
        return self.macros or {max(piece, key=len) for piece in self.pieces}

    def may_be_in(self, text: str) -> bool:
        """Tell whether a text may make the name, quickly; `is_in` tells it exactly."""
        if self.macros:
            return any(macro in text for macro in self.macros)
        return any(all(word in text for word in sorted(piece, key=len, reverse=True)) for piece in self.pieces)

    def is_in(self, words: set[str]) -> bool:
        """Tell whether a text with these words may make the name."""
        if not self.macros:
            return any(piece <= words for piece in self.pieces)
        return not self.macros.isdisjoint(words) and any(
            piece <= words | self.inside and not piece.isdisjoint(words) for piece in self.pieces)

    def follow(self, macro: str, body: set[str]) -> bool:
        """Note a macro that uses one of these, and tell whether it was not known."""
        if macro in self.macros or self.macros.isdisjoint(body):
            return False
        self.macros.add(macro)
        self.inside |= body
        return True


def words(text: str) -> set[str]:
    """Return the identifiers of a text."""
    return set(_WORD.findall(text))


def pasted(tree: Tree, files: Iterable[str], names: Iterable[str]) -> Iterator[Pasted]:
    """Yield the ways in which macros of a source may make one of some names.

    Args:
        tree: The source.
        files: Its files that have a ``##``; they are read once.
        names: The names.
    """
    known = _known(tree, files)
    for name in names:
        for parts, macros in known:
            ways = [frozenset(way) for way in _ways(name, parts)][:_MOST]
            if ways:
                yield Pasted(set() if _is_open(parts) else set(macros), ways)


def _is_open(parts: Sequence[str]) -> bool:
    """Tell whether it is two arguments that are pasted, and nothing: macros that do so are used by all others."""
    return parts.count("") == 2 and not any(part.strip("_") for part in parts)


def _known(tree: Tree, files: Iterable[str]) -> list[tuple[list[str], list[str]]]:
    """Return what is pasted, with "" for each argument, and the macros that do so; kept in the tree."""
    memo = tree.path / _MEMO
    try:
        return [(parts, macros) for parts, macros in json.loads(memo.read_text())]
    except (OSError, ValueError):
        pass
    found: dict[tuple[str, ...], set[str]] = defaultdict(set)
    for file in files:
        text = (tree.path / file).read_text(errors="replace")
        for macro, parameters, body in _DEFINE.findall(text):
            own = {name.strip().removesuffix("...") for name in parameters.split(",")} | {"__VA_ARGS__"}
            for pieces in _PASTE.findall(body.replace("\\\n", " ")):
                parts = ("" if word in own else word for word in re.split(r"[ \t]*##[ \t]*", pieces))
                found[tuple(parts)].add(macro)
    known = [(list(parts), sorted(macros)) for parts, macros in sorted(found.items()) if "" in parts]
    with tree.lock():
        fresh = memo.with_suffix(".new")
        fresh.write_text(json.dumps(known))
        fresh.rename(memo)
    return known


def _ways(name: str, parts: Sequence[str]) -> Iterator[list[str]]:
    """Yield the arguments of which a paste makes *name*."""
    least = _LEAST if _is_open(parts) else 1
    if parts[0]:
        rest = name.removeprefix(parts[0])
        if len(parts) == 1:
            if name == parts[0]:
                yield []
        elif rest != name:
            yield from _ways(rest, parts[1:])
    elif len(parts) == 1:
        if len(name) >= least:
            yield [name]
    else:
        for cut in range(least, len(name)):
            for others in _ways(name[cut:], parts[1:]):
                yield [name[:cut], *others]
