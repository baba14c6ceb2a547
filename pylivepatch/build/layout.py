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

Described = dict[str, str]
"""What there is in a type, by name: members with type and place, enumerators with their values."""


class _Type(NamedTuple):
    kind: int
    name: str
    size: int
    """Bytes, or the number of the type that it refers to."""
    flag: bool
    rows: bytes


def check(source: str, orig: Object, patched: Object, exported: Set[str]) -> set[str]:
    """Compare the types of a source before and after the diff.

    Args:
        source: Name of the source, for the message.
        orig: What the compiler makes of it as it is.
        patched: What it makes of it with the diff.
        exported: Functions of this source that modules may call which nobody here knows.

    Returns:
        The functions that are called in another way.

    Raises:
        BuildError: A type that both have is another one, or how an exported function is called.
    """
    was, becomes = _Types(orig), _Types(patched)
    before, after = was.prototypes(), becomes.prototypes()
    for name in sorted(_recalled(before, after) & exported):
        raise BuildError(
            f"{name}() is exported, and changes from {before[name]} to {after[name]}: modules that are not of this "
            "kernel's source would call it as it was", kind="export", symbol=name, file=source,
            remedy="keep it as it is, and give the new one a name of its own")
    old, new = was.described(), becomes.described()
    for kind, name in sorted(old.keys() & new.keys()):
        words = _difference(kind, old[kind, name], new[kind, name])
        if words:
            raise BuildError(
                f"{kind} {name} changes: {words}; what exists of it was made by the code that runs", kind="layout",
                symbol=name, file=source,
                remedy="leave it as it is, and keep what is new in a shadow variable")
    return _recalled(before, after)


def _recalled(before: dict[str, str], after: dict[str, str]) -> set[str]:
    """Return the functions that are called in another way."""
    return {name for name in before.keys() & after.keys() if before[name] != after[name]}


def _difference(kind: str, before: Described, after: Described) -> str:
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

    def described(self) -> dict[tuple[str, str], Described]:
        """Describe each type that has a name, of its own or by a typedef, and what has a type without a name."""
        found: dict[tuple[str, str], Described] = {}
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
            elif item.kind == _VAR and "{" in (words := self._describe(item.size, 0)):
                found.setdefault(("the type of", item.name), {"it": words})
        return found

    def prototypes(self) -> dict[str, str]:
        """Describe how each function is called."""
        return {item.name: self._describe(item.size, 0) for item in self._types if item.kind == _FUNC}

    def _members(self, item: _Type, depth: int) -> Described:
        if item.kind in (_ENUM, _ENUM64):
            each = struct.Struct("<II" if item.kind == _ENUM else "<IQ")
            return {self._text(name): str(value) for name, value in each.iter_unpack(item.rows)}
        members = {"its size": f"{item.size} bytes"}
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
