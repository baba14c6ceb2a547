# SPDX-License-Identifier: MIT
"""How far a changed header reaches: which of the sources that include it can become other code by the change.

Too many sources include some headers. Only those are concerned that mention a name which the change declares or
defines, or one whose definition in another header mentions such a name, and so on. Headers are read as text,
declaration by declaration; what this cannot tell makes every source concerned that includes the header.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

from pylivepatch.build.tree import Tree
from pylivepatch.build.units import TOP, Unit, Units

MOST_HEADERS = 500
"""Headers that are read in search of a name; one that more of them mention has no meaning of its own."""

UNFINISHED = "#unfinished"
"""Last word of what a header begins and does not end."""

_PASTES = ".pastes.json"
_COMMENT = re.compile(r"""/\*.*?\*/|//[^\n]*|("(?:\\.|[^"\\\n])*"|'(?:\\.|[^'\\\n])*')""", re.DOTALL)
_TOKEN = re.compile(r"""[A-Za-z_]\w*|\d[\w.]*|"(?:\\.|[^"\\])*"|'(?:\\.|[^'\\])*'|##|\S""")
_NAME = re.compile(r"[A-Za-z_]\w*\Z")
_PASTE = re.compile(r"(\w+)\s*##|##\s*(\w+)")
_DEFINE = re.compile(r"^[ \t]*#[ \t]*define[ \t]+\w+\(([^)]*)\)([^\n]*##[^\n]*)", re.MULTILINE)
_TAGGED = frozenset({"struct", "union", "enum"})
_HARMLESS = frozenset({"static_assert", "_Static_assert"})
_ATTRIBUTES = frozenset({
    "__attribute__", "__printf", "__scanf", "__aligned", "__section", "__alloc_size", "__assume_aligned", "__acquires",
    "__releases", "__must_hold", "__cond_acquires", "__cond_lock", "__malloc", "__counted_by", "__realloc_size"})
_KEYWORDS = frozenset({
    "int", "long", "short", "char", "unsigned", "signed", "void", "bool", "static", "inline", "extern", "const",
    "volatile", "typedef", "return", "if", "while", "for", "switch", "sizeof", "do", *_TAGGED})


class UnclearError(Exception):
    """What a change declares cannot be told."""


class Declaration(NamedTuple):
    """A piece of a header: a directive, a declaration, or a definition.

    Attributes:
        conditions: The #if lines that it stands under.
        words: Its tokens, without comments.
    """

    conditions: tuple[str, ...]
    words: tuple[str, ...]

    @property
    def head(self) -> tuple[str, ...]:
        """The words before the first brace or initial value."""
        ends = [self.words.index(word) for word in ("{", "=") if word in self.words]
        return self.words[:min(ends)] if ends else self.words

    @property
    def tag(self) -> str:
        """What a struct, union or enum that is defined here is called; "" for anything else."""
        head = self.head
        if "{" in self.words and "(" not in head and head[:1] != ("typedef",) and len(head) > 1 and head[-2] in _TAGGED:
            return " ".join(head[-2:])
        return ""

    @property
    def is_function(self) -> bool:
        """Whether it is a function with its body."""
        return self.words[0] != "#" and self.words[-1] == "}" and "(" in self.head

    def declares(self) -> set[str]:
        """Return the names that it gives a meaning."""
        words = self.words
        while words[0] in _ATTRIBUTES and words[1:2] == ("(",):
            words = words[_closing(words, 1) + 1:]
        if words[0] == "#":
            if words[1:2] == ("define",):
                return {words[2]}
            raise UnclearError
        if words[0] in _HARMLESS or (len(words) == 3 and words[0] in _TAGGED):
            return set()
        if words[0] == "typedef" or words[1:2] == ("(",):
            raise UnclearError
        if self.tag:
            return {self.tag.partition(" ")[2]}
        if "(" in self.head:
            called = [word for word, after in pairwise(words)
                      if after == "(" and _NAME.match(word) and word not in _ATTRIBUTES]
            if not called or called[0] in _KEYWORDS:
                raise UnclearError
            return {called[0]}
        if "{" in self.head or words[-1] == "}" or (_TAGGED & set(words) and "{" in words and "=" not in words):
            raise UnclearError
        return {_declared(part) for part in _split(words, ",")}


def declarations(text: str) -> Iterator[Declaration]:
    """Yield the pieces of a header."""
    text = _COMMENT.sub(lambda found: found[1] or " ", text.replace("\\\n", " "))
    conditions: list[str] = []
    words: list[str] = []
    depth = 0
    for line in text.split("\n"):
        tokens = _TOKEN.findall(line)
        if tokens[:1] == ["#"] and len(tokens) > 1:
            if tokens[1] in ("if", "ifdef", "ifndef"):
                conditions.append(" ".join(tokens))
            elif tokens[1] in ("else", "elif") and conditions:
                conditions[-1] += " ".join(tokens)
            elif tokens[1] == "endif":
                del conditions[-1:]
            else:
                yield Declaration(tuple(conditions), tuple(tokens))
                continue
            words += tokens if words else []
            continue
        for token in tokens:
            words.append(token)
            depth += (token in "({[") - (token in ")}]") if len(token) == 1 else 0
            if depth == 0 and (token == ";" or token == "}"):
                piece = Declaration(tuple(conditions), tuple(words))
                if token == ";" or piece.is_function:
                    yield piece
                    words = []
    if words:
        yield Declaration(tuple(conditions), (*words, UNFINISHED))


def names(before: str, after: str) -> set[str]:
    """Return the names whose meaning differs between two texts of a header.

    Raises:
        UnclearError: That cannot be told.
    """
    old, new = Counter(declarations(before)), Counter(declarations(after))
    gone, fresh = list((old - new).elements()), list((new - old).elements())
    found: set[str] = set()
    for piece in list(gone):
        partner = next((other for other in fresh if piece.tag and (other.tag, other.conditions) ==
                        (piece.tag, piece.conditions)), None)
        if partner is not None:
            found |= _members(piece, partner)
            gone.remove(piece)
            fresh.remove(partner)
    for piece in (*gone, *fresh):
        found |= piece.declares()
    return found


def _members(old: Declaration, new: Declaration) -> set[str]:
    """Return the members that two definitions of a struct, or of an enum, do not have in common."""
    bodies = []
    for piece in (old, new):
        start, end = piece.words.index("{"), len(piece.words) - 1 - piece.words[::-1].index("}")
        bodies.append((piece.words[:start] + piece.words[end:], piece.words[start + 1:end]))
    if bodies[0][0] != bodies[1][0]:
        raise UnclearError
    if old.tag.startswith("enum"):
        values = [list(enumerate(_split(body, ","))) for _, body in bodies]
        return {words[0] for one, other in (values, values[::-1]) for place, words in one
                if words and (place, words) not in other}
    members = [Counter(part for part in _split(body, ";", deep=True) if part) for _, body in bodies]
    differing = [*(members[0] - members[1]).elements(), *(members[1] - members[0]).elements()]
    if not differing:
        raise UnclearError  # another order
    return {_declared(part) for words in differing for part in _split(words, ",")}


def _split(words: Sequence[str], at: str, *, deep: bool = False) -> list[tuple[str, ...]]:
    """Split at a token; unless *deep*, only outside of brackets."""
    parts: list[tuple[str, ...]] = []
    part: list[str] = []
    depth = 0
    for word in words:
        depth += (word in ("(", "[", "{")) - (word in (")", "]", "}"))
        if word == at and (deep or not depth):
            parts.append(tuple(part))
            part = []
        else:
            part.append(word)
    return [*parts, tuple(part)]


def _closing(words: Sequence[str], start: int) -> int:
    """Return the place of the parenthesis that closes the one at *start*."""
    depth = 0
    for place in range(start, len(words)):
        depth += (words[place] == "(") - (words[place] == ")")
        if not depth:
            return place
    raise UnclearError


def _declared(words: Sequence[str]) -> str:
    """Return the name of a variable or member: the last one, before its array bounds, width, value and attributes."""
    words = [word for word in words if word != ";"]
    for end in ("=", ":", "["):
        words = words[:words.index(end)] if end in words else words
    if "{" in words:
        words = words[len(words) - words[::-1].index("{"):]
    pointer = [words[n + 2] for n in range(len(words) - 2) if words[n:n + 2] == ["(", "*"]]
    if pointer:
        return pointer[0]
    while len(words) > 1 and (words[-1] == ")" or words[-1].startswith("__")):
        words = words[:words.index("(") - 1] if words[-1] == ")" else words[:-1]
    if not words or not _NAME.match(words[-1]) or words[-1] in _KEYWORDS:
        raise UnclearError
    return words[-1]


def concerned(
    tree: Tree, known: Units, path: str, texts: tuple[str, str], changed: Mapping[str, str],
) -> tuple[list[Unit], set[str]] | None:
    """Return the units that a change of a header concerns, and the names by which it does; None when it cannot be told.

    Args:
        tree: The source.
        known: What it compiles.
        path: The header.
        texts: The header as it is, and as it becomes.
        changed: All files of the diff, as they become.
    """
    try:
        found = names(*texts)
    except UnclearError:
        return None
    every = known.including(path)
    whole: set[str] = set()
    fresh = found
    while fresh:
        more: set[str] = set()
        spelled = _spelled(tree, fresh)
        files = _mentioning(tree.path, spelled)
        if len(files) > MOST_HEADERS:
            return None
        for file in files:
            try:
                more |= _carried(changed.get(file) or (tree.path / file).read_text(errors="replace"), spelled)
            except UnclearError:
                whole.add(file)
        fresh = more - found
        found |= fresh
    if not found:
        return [], found
    mention = re.compile(rb"\b(?:%s)\b" % "|".join(sorted(_spelled(tree, found))).encode())
    inside = {unit for file in whole for unit in known.including(file)}
    return [unit for unit in every if unit in inside or mention.search((tree.path / unit.source).read_bytes())], found


def _carried(text: str, wanted: set[str]) -> set[str]:
    """Return the names in a header whose meaning depends on those that are *wanted*.

    Raises:
        UnclearError: That cannot be told.
    """
    found: set[str] = set()
    for piece in declarations(text):
        words = piece.words
        if any(wanted.intersection(condition.split()) for condition in piece.conditions):
            raise UnclearError
        if not wanted.intersection(words):
            continue
        if words[:2] == ("#", "define"):
            found |= {words[2]} if wanted.intersection(words[3:]) else set()
        elif piece.is_function:
            found |= piece.declares() if wanted.intersection(words[len(piece.head):]) else set()
        elif words[0] not in _HARMLESS:
            value = words[words.index("="):] if "=" in words else ()
            if words[-1] == UNFINISHED or words[1:2] == ("(",) or wanted.intersection((*value, *_sizes(words))):
                raise UnclearError
    return found


def _sizes(words: Sequence[str]) -> set[str]:
    """Return the names in array bounds and widths of bit fields."""
    found: set[str] = set()
    depth = 0
    for before, word in zip(("", *words), words, strict=False):
        depth += (word == "[") - (word == "]")
        if depth or before == ":":
            found.add(word)
    return found


def _spelled(tree: Tree, found: Set[str]) -> set[str]:
    """Return *found* with what of each name a macro that pastes leaves in the source."""
    pastes = _pastes(tree)
    spelled = set(found)
    for name in found:
        for cut in range(1, len(name)):
            spelled |= {name[cut:]} if name[:cut] in pastes else set()
            spelled |= {name[:-cut]} if name[-cut:] in pastes else set()
    return spelled


def _pastes(tree: Tree) -> set[str]:
    """Return the pieces that macros of the tree put before or after an argument of theirs."""
    memo = tree.path / _PASTES
    try:
        return set(json.loads(memo.read_text()))
    except (OSError, ValueError):
        pass
    found: set[str] = set()
    for file in _grep(tree.path, ["-lF", "--include=*.[ch]", "##"]):
        for parameters, body in _DEFINE.findall((tree.path / file).read_text(errors="replace").replace("\\\n", " ")):
            own = {name.strip() for name in parameters.split(",")}
            found |= {piece for pair in _PASTE.findall(body) for piece in pair if piece and piece not in own}
    with tree.lock():
        fresh = memo.with_suffix(".new")
        fresh.write_text(json.dumps(sorted(found)))
        fresh.rename(memo)
    return found


def _mentioning(top: Path, wanted: Iterable[str]) -> list[str]:
    """Return the headers, and the sources that others include, that have one of these words."""
    words = [option for word in sorted(wanted) for option in ("-e", word)]
    return [file for file in _grep(top, ["-lwF", "--include=*.h", *words])
            if not file.startswith("arch/") or file.startswith("arch/x86/")]


def _grep(top: Path, options: Sequence[str]) -> list[str]:
    folders = sorted({name.partition("/")[0] for name in (*TOP, "include") if (top / name).is_dir()})
    said = subprocess.run(["grep", "-r", "--exclude-dir=tools", *options, *folders], cwd=top, capture_output=True,
                          text=True, errors="surrogateescape", check=False,
                          env={"PATH": os.environ.get("PATH", ""), "LC_ALL": "C"}).stdout
    return said.splitlines()
