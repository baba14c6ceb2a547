# SPDX-License-Identifier: MIT
"""Headers as text: the declarations they consist of, and the names that a change gives another meaning to."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import NamedTuple

UNFINISHED = "#unfinished"
"""Last word of what a header begins and does not end."""

_COMMENT = re.compile(r"""/\*.*?\*/|//[^\n]*|("(?:\\.|[^"\\\n])*"|'(?:\\.|[^'\\\n])*')""", re.DOTALL)
_TOKEN = re.compile(r"""[A-Za-z_]\w*|\d[\w.]*|"(?:\\.|[^"\\])*"|'(?:\\.|[^'\\])*'|##|\S""")
_NAME = re.compile(r"[A-Za-z_]\w*\Z")
_TAGGED = frozenset({"struct", "union", "enum"})
HARMLESS = frozenset({"static_assert", "_Static_assert"})
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
        if words[0] in HARMLESS or (len(words) == 3 and words[0] in _TAGGED):
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
