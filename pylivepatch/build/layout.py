# SPDX-License-Identifier: MIT
"""Types: a patch must not change how data look that exist already. The compiler describes all types as BTF.

BTF is what Documentation/bpf/btf.rst of the kernel says: a table of types that refer to each other by number.
"""

from __future__ import annotations

import struct
from collections.abc import Set
from typing import NamedTuple

from pylivepatch.build.elf import Object
from pylivepatch.errors import BuildError

_INT, _PTR, _ARRAY, _STRUCT, _UNION, _ENUM, _FWD, _TYPEDEF = range(1, 9)
_VOLATILE, _CONST, _RESTRICT, _FUNC, _PROTO, _VAR, _DATASEC, _FLOAT, _DECL_TAG, _TYPE_TAG, _ENUM64 = range(9, 20)
_EXTRA = {_INT: 4, _ARRAY: 12, _VAR: 4, _DECL_TAG: 4}
_EACH = {_STRUCT: 12, _UNION: 12, _ENUM: 8, _PROTO: 8, _DATASEC: 12, _ENUM64: 12}
_THROUGH = frozenset({_VOLATILE, _CONST, _RESTRICT, _TYPE_TAG})
_WORDS = {_STRUCT: "struct", _UNION: "union", _ENUM: "enum", _ENUM64: "enum", _FWD: "struct"}
_DEEP = 4
_SIGNED, _BOOL = 1, 4
_INTEGERS = {8: "char", 16: "short", 32: "int", 64: "long", 128: "__int128"}

_SIZE = "its size"

_MUCH = 3
"""Members that two structs of different names have in common when one is taken for the other."""

_Key = tuple[str, str]
_Members = dict[str, str]
"""What there is in a type, by name: members with type and place, enumerators with their values."""

_Described = dict[_Key, _Members]
"""Types by kind and name."""


class _Type(NamedTuple):
    kind: int
    name: str
    size: int
    """Bytes, or the number of the type that it refers to."""
    flag: bool
    rows: bytes


def check(source: str, orig: Object, patched: Object, exported: Set[str]) -> Layout:
    """Compare the types of a source before and after the diff.

    Args:
        source: Name of the source, for the message.
        orig: What the compiler makes of it as it is.
        patched: What it makes of it with the diff.
        exported: Functions of this source that modules may call which nobody here knows.

    Raises:
        BuildError: A type or a variable that both have is another one, a type goes on under another name as another
            one, or an exported function is called in another way.
    """
    was, becomes = _Types(orig), _Types(patched)
    before, after = was.prototypes(), becomes.prototypes()
    recalled = {name for name in before.keys() & after.keys() if before[name] != after[name]}
    for name in sorted(recalled & exported):
        raise BuildError(
            f"{name}() is exported, and changes from {before[name]} to {after[name]}: modules that are not of this "
            "kernel's source would call it as it was", kind="export", symbol=name, file=source,
            remedy="keep it as it is, and give the new one a name of its own")
    old, new = was.described(), becomes.described()
    pairs = [(key, key) for key in sorted(old.keys() & new.keys())] + _renamed(old, new)
    notes = []
    for first, second in pairs:
        words = _difference(second[0], old[first], new[second])
        what = f"{first[0]} {first[1]} " + ("changes" if first == second else f"becomes {second[0]} {second[1]}")
        if words and not _difference(second[0], _unsigned(old[first]), _unsigned(new[second])):
            notes.append(f"{what}: {words}; values that are there stay what they are, and are read in the other way")
        elif words:
            raise BuildError(
                f"{what}: {words}; what exists of it was made by the code that runs", kind="layout",
                symbol=second[1], file=source, remedy="leave it as it is, and keep what is new in a shadow variable")
    return Layout(recalled, notes)


class Layout(NamedTuple):
    """How the types of two compilations differ, where that is allowed.

    Attributes:
        recalled: The functions that are called in another way.
        notes: What a person should know.
    """

    recalled: set[str]
    notes: list[str]


def _renamed(old: _Described, new: _Described) -> list[tuple[_Key, _Key]]:
    """Return the structs that are gone, each with a new one that has much in common with it."""
    gone, come = ([key for key in sorted(one.keys() - other.keys()) if key[0] in ("struct", "union")]
                  for one, other in ((old, new), (new, old)))
    found = []
    for first in gone:
        for second in come:
            a, b = ({(name, text.rpartition(" at bit ")[0]) for name, text in one.items() if name != _SIZE}
                    for one in (old[first], new[second]))
            if len(a & b) >= min(_MUCH, len(a) // 2 or 1):
                found.append((first, second))
    return found


def _unsigned(members: _Members) -> _Members:
    """Return members without the difference between signed and unsigned numbers."""
    return {name: text.replace("unsigned ", "") for name, text in members.items()}


def _difference(kind: str, before: _Members, after: _Members) -> str:
    """Say what differs; an enumerator that is added harms nobody."""
    for name in before | after:
        if name not in after:
            return f"{name or 'a member without a name'} goes"
        if name not in before:
            if kind != "enum":
                return f"{name or 'a member without a name'} is new"
        elif before[name] != after[name]:
            return f"{name} is {after[name]} instead of {before[name]}"
    return ""


class _Types:
    """The types of an object."""

    def __init__(self, object_: Object) -> None:
        section = object_.section(".BTF")
        self._types: list[_Type] = [_Type(0, "void", 0, False, b"")]
        if section is None:
            return
        data = bytes(section.data)
        _, _, _, header, start, size, strings, length = struct.unpack_from("<HBBIIIII", data)
        self._strings = data[header + strings:header + strings + length]
        at, end = header + start, header + start + size
        while at < end:
            name, info, number = struct.unpack_from("<III", data, at)
            kind = info >> 24 & 31
            rows = _EXTRA.get(kind, 0) + _EACH.get(kind, 0) * (info & 0xFFFF)
            self._types.append(_Type(kind, self._text(name), number, bool(info >> 31), data[at + 12:at + 12 + rows]))
            at += 12 + rows

    def _text(self, offset: int) -> str:
        return self._strings[offset:self._strings.index(b"\0", offset)].decode(errors="replace")

    def described(self) -> _Described:
        """Describe each type that has a name, of its own or by a typedef, and what has a type without a name."""
        found: _Described = {}
        for item in self._types:
            target = item
            if item.kind == _TYPEDEF and item.size < len(self._types) and not self._types[item.size].name:
                target = self._types[item.size]
            if item.name and target.kind in (_STRUCT, _UNION, _ENUM, _ENUM64):
                found.setdefault((_WORDS[target.kind], item.name), self._members(target, 0))
            elif item.kind == _TYPEDEF:
                found.setdefault(("typedef", item.name), {"it": self._describe(item.size, 0)})
            elif item.kind in (_ENUM, _ENUM64):
                found |= {("enumerator", name): {"it": value} for name, value in self._members(item, 0).items()}
            elif item.kind == _VAR:
                found.setdefault(("the type of", item.name), {"it": self._describe(self._element(item.size), 0)})
        return found

    def _element(self, number: int) -> int:
        """Return the type of an array's elements: the declaration that is described may not know how many there are."""
        item = self._types[number]
        while item.kind in _THROUGH and self._types[item.size].kind in (*_THROUGH, _ARRAY):
            item = self._types[item.size]
        return int(struct.unpack_from("<I", item.rows)[0]) if item.kind == _ARRAY else number

    def prototypes(self) -> dict[str, str]:
        """Describe how each function is called."""
        return {item.name: self._describe(item.size, 0) for item in self._types if item.kind == _FUNC}

    def _members(self, item: _Type, depth: int) -> _Members:
        if item.kind in (_ENUM, _ENUM64):
            each = struct.Struct("<II" if item.kind == _ENUM else "<IQ")
            return {self._text(name): str(value) for name, value in each.iter_unpack(item.rows)}
        members = {_SIZE: f"{item.size} bytes"}
        for name, number, offset in struct.iter_unpack("<III", item.rows):
            bits, place = (offset >> 24, offset & 0xFFFFFF) if item.flag else (0, offset)
            width = f":{bits}" if bits else ""
            text = self._text(name) or f"(at {place})"
            members[text] = f"{self._describe(number, depth + 1)}{width} at bit {place}"
        return members

    def _describe(self, number: int, depth: int) -> str:
        item = self._types[number]
        while item.kind in _THROUGH or (item.kind == _TYPEDEF and depth > 0):
            if item.kind == _TYPEDEF and self._types[item.size].kind not in (_STRUCT, _UNION):
                item = self._types[item.size]
            elif item.kind == _TYPEDEF:
                return item.name if self._types[item.size].name == "" else self._describe(item.size, depth)
            else:
                item = self._types[item.size]
        if item.kind == _INT:
            return self._integer(item)
        if item.kind == _PTR:
            return f"pointer to {self._describe(item.size, depth + 1)}" if depth < _DEEP else "pointer"
        if item.kind == _ARRAY:
            element, _, count = struct.unpack("<III", item.rows)
            return f"array of {count} {self._describe(element, depth + 1)}"
        if item.kind == _PROTO:
            if depth >= _DEEP:
                return "function"
            words = ", ".join(self._describe(row[1], depth + 1) for row in struct.iter_unpack("<II", item.rows))
            return f"function ({words}) returning {self._describe(item.size, depth + 1)}"
        if item.kind in _WORDS and not item.name and item.kind != _FWD:
            return f"{_WORDS[item.kind]} {{{', '.join(f'{k} {v}' for k, v in self._members(item, depth).items())}}}"
        return f"{_WORDS.get(item.kind, '')} {item.name}".strip() or "void"

    @staticmethod
    def _integer(item: _Type) -> str:
        """Describe a number by what it is: `long` and `long long` are the same."""
        encoding = int(struct.unpack("<I", item.rows)[0])
        bits = encoding & 0xFF
        if encoding >> 24 & _BOOL:
            return "bool"
        return ("" if encoding >> 24 & _SIGNED else "unsigned ") + _INTEGERS.get(bits, f"{bits}-bit number")
