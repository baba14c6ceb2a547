# SPDX-License-Identifier: MIT
"""The tables through which a patch module tells the livepatch core what to replace, read from the module itself.

How they look is the kernel's own business, and its BTF says it: `struct klp_patch`, `klp_object`, `klp_func`.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field

from pylivepatch.build.verify.module import Found, Module, Place
from pylivepatch.errors import BuildError

_STRUCT = 4


class Layouts:
    """Where the members of the kernel's structs are, by its BTF.

    Args:
        btf: The section .BTF of the kernel's image.
    """

    def __init__(self, btf: bytes) -> None:
        _, _, _, header, start, size, strings, length = struct.unpack_from("<HBBIIIII", btf)
        self._types = btf[header + start:header + start + size]
        self._strings = btf[header + strings:header + strings + length]

    def of(self, name: str) -> tuple[int, dict[str, int]]:
        """Return the size of ``struct name`` and the offsets of its members, in bytes.

        Raises:
            BuildError: The kernel has none.
        """
        at = self._strings.find(b"\0" + name.encode() + b"\0") + 1
        needle = struct.pack("<I", at)
        place = -1
        while at and (place := self._types.find(needle, place + 1)) >= 0:
            info, size = struct.unpack_from("<II", self._types, place + 4)
            count = info & 0xFFFF
            end = place + 12 + 12 * count
            if place % 4 or info >> 24 & 31 != _STRUCT or info & 0x60FF0000 or end > len(self._types):
                continue
            rows = list(struct.iter_unpack("<III", self._types[place + 12:end]))
            if all(row[2] & 0xFFFFFF <= 8 * size for row in rows):
                return size, {self._text(row[0]): (row[2] & 0xFFFFFF) // 8 for row in rows}
        raise BuildError(f"the kernel's image does not say what struct {name} looks like: it has no BTF of it",
                         kind="proof", symbol=name)

    def _text(self, offset: int) -> str:
        return self._strings[offset:self._strings.find(b"\0", offset)].decode(errors="replace")


@dataclass(frozen=True, slots=True)
class Row:
    """A function that the module replaces.

    Attributes:
        object: "vmlinux", or a module.
        name: What the livepatch core looks for.
        position: Which of several, from 1; 0 when there is one.
        new: Where the new code is.
    """

    object: str
    name: str
    position: int
    new: Place


@dataclass(slots=True)
class Tables:
    """What a module's tables say.

    Attributes:
        rows: What it replaces.
        objects: The objects that it patches.
        callbacks: Functions to call, by object and occasion.
        states: Number and version of each state.
        replace: Whether it replaces all patches before it.
        complaints: What is not as it must be.
    """

    rows: list[Row] = field(default_factory=list)
    objects: list[str] = field(default_factory=list)
    callbacks: dict[tuple[str, str], Place] = field(default_factory=dict)
    states: list[tuple[int, int]] = field(default_factory=list)
    replace: bool = False
    complaints: list[str] = field(default_factory=list)


def read(module: Module, layouts: Layouts) -> Tables:
    """Read the tables of *module*, beginning with the only struct of the size of a klp_patch that names the module."""
    return _Reader(module, layouts).run()


class _Reader:
    def __init__(self, module: Module, layouts: Layouts) -> None:
        self.module, self.layouts = module, layouts
        self.tables = Tables()
        self._size, self._patch = layouts.of("klp_patch")

    def run(self) -> Tables:
        known = self.module.symbols("__this_module")
        places = [Place(symbol.shndx, symbol.value) for symbol in self.module.file.symbols
                  if symbol.size == self._size and 0 < symbol.shndx < len(self.module.file.sections)
                  and (found := self._pointer(Place(symbol.shndx, symbol.value), self._patch["mod"])) is not None
                  and found.place in known]
        if len(places) != 1:
            self._complain(f"the module has {len(places)} structs that may be its klp_patch")
            return self.tables
        patch = places[0]
        self.tables.replace = bool(self._byte(patch, self._patch["replace"]))
        size, members = self.layouts.of("klp_object")
        for each in self._array(self._pointer(patch, self._patch["objs"]), size, ("name", "funcs"), members):
            self._object(each, members)
        size, members = self.layouts.of("klp_state")
        states = self._pointer(patch, self._patch["states"])
        if states is not None and states.place is not None:
            at = states.place
            while number := self._long(at, members["id"]):
                self.tables.states.append((number, self._int(at, members["version"])))
                at = Place(at.section, at.offset + size)
        return self.tables

    def _object(self, at: Place, members: dict[str, int]) -> None:
        name = self._string(at, members["name"]) or "vmlinux"
        if name in self.tables.objects:
            self._complain(f"the module has the object {name} twice")
        self.tables.objects.append(name)
        _, callbacks = self.layouts.of("klp_callbacks")
        for occasion in ("pre_patch", "post_patch", "pre_unpatch", "post_unpatch"):
            found = self._pointer(at, members["callbacks"] + callbacks[occasion])
            if found is not None and found.place is not None:
                self.tables.callbacks[name, occasion] = found.place
            elif found is not None:
                self._complain(f"the {occasion} callback of {name} is not in the module")
        size, func = self.layouts.of("klp_func")
        for each in self._array(self._pointer(at, members["funcs"]), size, ("old_name", "new_func"), func):
            old, new = self._string(each, func["old_name"]), self._pointer(each, func["new_func"])
            if not old or new is None or new.place is None:
                self._complain(f"a function of {name} has no name, or no new code: {old or '?'}")
                continue
            self.tables.rows.append(Row(name, old, self._long(each, func["old_sympos"]), new.place))

    def _array(self, start: Found | None, size: int, ends: tuple[str, ...], members: dict[str, int]) -> list[Place]:
        """Return where the rows of an array are, up to the one in which the members *ends* are empty."""
        if start is None or start.place is None:
            self._complain("a table of the module is missing")
            return []
        rows: list[Place] = []
        section = self.module.file.sections[start.place.section]
        at = start.place
        while any(self._pointer(at, members[name]) is not None for name in ends):
            rows.append(at)
            at = Place(at.section, at.offset + size)
        if at.offset + size > section.size or any(self.module.at(at, size)):
            self._complain("a table of the module has no end")
        return rows

    def _pointer(self, at: Place, offset: int) -> Found | None:
        start = at.offset + offset
        relocs = self.module.file.sections[at.section].within(start, start + 8)
        return self.module.found(relocs[0]) if len(relocs) == 1 and relocs[0].offset == start else None

    def _string(self, at: Place, offset: int) -> str:
        found = self._pointer(at, offset)
        return self.module.text(found.place) if found is not None and found.place is not None else ""

    def _byte(self, at: Place, offset: int) -> int:
        return int.from_bytes(self.module.at(Place(at.section, at.offset + offset), 1), "little")

    def _int(self, at: Place, offset: int) -> int:
        return int.from_bytes(self.module.at(Place(at.section, at.offset + offset), 4), "little")

    def _long(self, at: Place, offset: int) -> int:
        return int.from_bytes(self.module.at(Place(at.section, at.offset + offset), 8), "little")

    def _complain(self, words: str) -> None:
        self.tables.complaints.append(words)
