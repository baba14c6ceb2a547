# SPDX-License-Identifier: MIT
"""Headers as text: the declarations they consist of, and the names that a change gives another meaning to."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import NamedTuple

UNFINISHED = "#unfinished"
"""Last word of what a header begins and does not end."""

COMMENT = re.compile(r"""/\*.*?\*/|//[^\n]*|("(?:\\.|[^"\\\n])*"|'(?:\\.|[^'\\\n])*')""", re.DOTALL)
_TOKEN = re.compile(r"""[A-Za-z_]\w*|\d[\w.]*|"(?:\\.|[^"\\])*"|'(?:\\.|[^'\\])*'|##|\S""")
_NAME = re.compile(r"[A-Za-z_]\w*\Z")
_TAGGED = frozenset({"struct", "union", "enum"})
HARMLESS = frozenset({"static_assert", "_Static_assert"})
_ATTRIBUTES = frozenset({
    "__attribute__", "__printf", "__scanf", "__aligned", "__section", "__alloc_size", "__assume_aligned",
    "__acquires", "__mode", "__releases", "__must_hold", "__cond_acquires", "__cond_lock", "__malloc",
    "__counted_by", "__realloc_size", "__diagnose_as", "__alias", "__cleanup", "_Alignas"})
"""Words that have arguments and declare nothing."""

_QUALIFIERS = frozenset({
    "static", "inline", "extern", "const", "volatile", "register", "__inline", "__inline__", "__always_inline",
    "noinline", "asmlinkage", "noinstr", "notrace", "__extension__", "__packed", "__randomize_layout",
    "__designated_init", "__no_randomize_layout", "__read_mostly", "__ro_after_init", "__init", "__initdata",
    "__initconst", "__exit", "__exitdata", "__cold", "__hot", "__ref", "__refdata", "__user", "__kernel", "__iomem",
    "__percpu", "__rcu", "__force", "__bitwise", "__nocast", "__must_check", "__pure", "__attribute_const__",
    "__maybe_unused", "__always_unused", "__used", "__weak", "__visible", "__deprecated", "__kprobes", "__sched",
    "__cpuidle", "__noreturn", "__returns_nonnull", "__latent_entropy", "__may_alias", "____cacheline_aligned",
    "____cacheline_aligned_in_smp", "__cacheline_aligned", "__cacheline_aligned_in_smp",
    "____cacheline_internodealigned_in_smp", "__page_aligned_data", "__page_aligned_bss", "__flatten",
    "__no_sanitize_address", "__private", "__restrict", "__restrict__", "__signed__", "__volatile__", "__const",
    "__bpf_kfunc"})
"""Words that stand beside a name and are none. One that is missing here makes a change concern more, never less."""

_KEYWORDS = _TAGGED | frozenset({
    "int", "long", "short", "char", "unsigned", "signed", "void", "bool", "_Bool", "float", "double", "static",
    "inline", "extern", "const", "volatile", "typedef", "return", "if", "while", "for", "switch", "sizeof", "do",
    "typeof"})


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
        if "{" not in self.words or "(" in head or head[:1] == ("typedef",) or not _NAME.match(head[-1]):
            return ""
        kind = next((place for place, word in enumerate(head) if word in _TAGGED), len(head))
        return f"{head[kind]} {head[-1]}" if kind < len(head) - 1 else ""

    @property
    def is_function(self) -> bool:
        """Whether it is a function with its body."""
        return self.words[0] != "#" and self.words[-1] == "}" and "(" in self.head

    def declares(self) -> set[str]:
        """Return the names that it gives a meaning.

        Raises:
            UnclearError: That cannot be told.
        """
        if self.words[0] == "#":
            if self.words[1] in ("define", "undef"):
                return {self.words[2]}
            if self.words[1] in ("error", "warning"):
                return set()
            raise UnclearError
        words = _plain(self.words)
        if words[0] in HARMLESS or words == (";",) or (len(words) == 3 and words[0] in _TAGGED):
            return set()
        if words[1:2] == ("(",) or words[-1] == UNFINISHED:
            raise UnclearError
        head = Declaration((), words).head
        if "(" in _flat(head) and words[0] != "typedef":
            return _called(head)
        found: set[str] = set()
        rest = words
        start = words.index("{") if "{" in words else 0
        if start and "=" not in words[:start]:
            found = _inside(words)
            if not _TAGGED & set(words[:start]):
                raise UnclearError
            rest = words[_closing(words, start) + 1:]
        for part in _split([word for word in rest if word not in (";", "typedef")], ","):
            part = tuple(word for word in part if word not in _QUALIFIERS)
            if part:
                found |= _called(part) if "(" in _flat(part) else _declared(part)
        return found


def declarations(text: str) -> Iterator[Declaration]:
    """Yield the pieces of a header."""
    text = COMMENT.sub(lambda found: found[1] or " ", text.replace("\\\n", " "))
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
    pieces = list(declarations(before)), list(declarations(after))
    old, new = Counter(pieces[0]), Counter(pieces[1])
    both = old & new
    if _order(pieces[0], both) != _order(pieces[1], both):
        raise UnclearError
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


def _order(pieces: Sequence[Declaration], both: Counter[Declaration]) -> list[Declaration]:
    """Return the pieces that two texts have in common, as they stand in one of them."""
    left = both.copy()
    found = []
    for piece in pieces:
        if left[piece]:
            left[piece] -= 1
            found.append(piece)
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
    return {name for words in differing for part in _split(words, ",") for name in _declared(part)}


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


def _inside(words: Sequence[str]) -> set[str]:
    """Return the tags and values that are defined in a piece, in other definitions too."""
    found: set[str] = set()
    for place, word in enumerate(words):
        if word not in _TAGGED:
            continue
        end = next((at for at in range(place + 1, len(words)) if not _NAME.match(words[at])), len(words))
        if words[end:end + 1] != ("{",):
            continue
        found |= {name for name in words[place + 1:end] if name not in _QUALIFIERS}
        if word == "enum":
            values = words[end + 1:_closing(words, end)]
            found |= {name for name in values if _NAME.match(name)} if "#" in values else {
                part[0] for part in _split(values, ",") if part}
    return found


def _flat(words: Sequence[str]) -> list[str]:
    """Return the words outside of square brackets and braces."""
    found: list[str] = []
    depth = 0
    for word in words:
        depth += (word in ("[", "{")) - (word in ("]", "}"))
        if not depth and word not in ("]", "}"):
            found.append(word)
    return found


def _plain(words: Sequence[str]) -> tuple[str, ...]:
    """Return the words without attributes that have arguments."""
    found: list[str] = []
    place = 0
    while place < len(words):
        if words[place] in _ATTRIBUTES and words[place + 1:place + 2] == ("(",):
            place = _closing(words, place + 1)
        else:
            found.append(words[place])
        place += 1
    return tuple(found) or (";",)


def _called(words: Sequence[str]) -> set[str]:
    """Return the name of a function, or of a pointer or type of one: what the first parenthesis belongs to."""
    words = tuple(_flat(words))
    start = words.index("(")
    end = _closing(words, start)
    inside, after = words[start + 1:end], words[end + 1:]
    if after[:1] == ("(",):  # type (*name)(…), or type (name)(…)
        names = [word for word in inside if _NAME.match(word) and word not in _KEYWORDS | _QUALIFIERS]
        if not names:
            raise UnclearError
        return set(names[:2])
    if after and after[0] not in (";", "=", "{", ",", *_QUALIFIERS):
        raise UnclearError  # a macro with arguments before the name
    if not start or not _NAME.match(words[start - 1]) or words[start - 1] in _KEYWORDS:
        raise UnclearError
    return {words[start - 1]}


def _closing(words: Sequence[str], start: int) -> int:
    """Return the place of the bracket that closes the one at *start*."""
    depth = 0
    for place in range(start, len(words)):
        depth += (words[place] in ("(", "[", "{")) - (words[place] in (")", "]", "}"))
        if not depth:
            return place
    raise UnclearError


def _declared(words: Sequence[str]) -> set[str]:
    """Return the name of a variable, member or type: the last one, before its bounds, width, value and attributes.

    Two, when the last one may be an attribute that is not known here.
    """
    words = [word for word in words if word not in (";", *_QUALIFIERS)]
    for end in ("=", ":", "["):
        words = words[:words.index(end)] if end in words else words
    if "{" in words:
        words = words[len(words) - words[::-1].index("}"):] if "}" in words else []
    pointer = [words[n + 2] for n in range(len(words) - 2) if words[n:n + 2] == ["(", "*"]]
    if pointer:
        return {pointer[0]}
    if "(" in words:
        words = words[:words.index("(") - 1]
    if not words or not _NAME.match(words[-1]) or words[-1] in _KEYWORDS:
        raise UnclearError
    if words[-1].startswith("__") and len(words) > 1 and _NAME.match(words[-2]) and words[-2] not in _KEYWORDS:
        return {words[-1], words[-2]}
    return {words[-1]}
