# SPDX-License-Identifier: MIT
"""What a module file declares to replace: its ``struct klp_patch``, found by relocations.

The structures are static data, and all that they point to is a relocation: a
patch points to its module and its objects, an object to its name and its functions,
a function to its old name and its new code. Their sizes differ from kernel to
kernel and stand nowhere in the file, but the size of each array does, in the symbol
table, and there is one way only to cut it so that every relocation falls on a
member, and none into the terminating element.

Source: ``include/linux/livepatch.h``, as it has been since ``struct klp_patch`` got
its ``states`` ("livepatch: Basic API to track system state changes", 5.4).
"""

from __future__ import annotations

import re
import struct
from typing import TYPE_CHECKING, NamedTuple

from pylivepatch.state import Func, Object

if TYPE_CHECKING:
    from collections.abc import Iterator

    from elftools.elf.sections import Section

    from pylivepatch.elf.file import Image

_THIS_MODULE = "__this_module"
_FUNC = re.compile(rb"[A-Za-z_.$][\w.$]*\Z")
_OBJECT = re.compile(rb"[\w-]+\Z")
_ALLOC, _EXEC = 0x2, 0x4
_POINTER = 8
_CLONE = re.compile(r"(\w+)\.(?:isra|constprop|part)\b(?!.*\.cold)")
# Relocations that are a distance from the end of the field to a function, and that end: R_X86_64_PC32, _PLT32.
_DISTANCE = {"EM_X86_64": ({2, 4}, 4)}
# Relocations that are a whole 64-bit address.
_ADDRESS = {"EM_X86_64": 1, "EM_AARCH64": 257, "EM_PPC64": 38, "EM_S390": 22, "EM_LOONGARCH": 2, "EM_RISCV": 2}
# struct klp_patch { mod, objs, states, replace }
_OBJS, _REPLACE = 8, 24
# struct klp_object { name, funcs, callbacks { four functions } }
_NAME, _FUNCS, _CALLBACKS = 0, 8, (16, 24, 32, 40)
# struct klp_func { old_name, new_func, old_sympos }
_OLD_NAME, _NEW_FUNC, _SYMPOS = 0, 8, 16


class Place(NamedTuple):
    """A place in a section."""

    section: int
    offset: int


class Declared(NamedTuple):
    """A patch as its file declares it."""

    objects: tuple[Object, ...]
    replace: bool


class Code(NamedTuple):
    """What other code of a patch has of the functions that it replaces.

    Attributes:
        called: Replaced functions whose new code other code of the patch calls itself, and not through the kernel.
        cloned: Names of functions of which the patch has specialised copies: `.isra`, `.constprop`, `.part`.
    """

    called: frozenset[tuple[str, str]]
    cloned: frozenset[str]


class UnreadableError(Exception):
    """The declaration cannot be read from the file; says why."""


def declared(image: Image) -> Declared:
    """Read what a module file declares to replace.

    Raises:
        UnreadableError: It is not there as static data, or cannot be told for certain.
    """
    return _Reader(image).patch()


def code(image: Image) -> Code:
    """Read what code of a patch does not reach through the kernel, so that a later patch has no effect there.

    Calls within one section may have no relocation, and code that the compiler inlined has no name: they are not seen.

    Raises:
        UnreadableError: What it replaces cannot be read.
    """
    return _Reader(image).code()


class _Reader:
    def __init__(self, image: Image) -> None:
        self._image = image
        self._kind = _ADDRESS.get(str(image.elf["e_machine"]))
        self._pointers = dict(self._relocations())
        self._new: dict[Place, tuple[str, str]] = {}
        self._sizes = {
            Place(symbol.section, symbol.value): symbol.size
            for symbol in image.symbols
            if symbol.size and symbol.section
        }

    def patch(self) -> Declared:
        """Find the one klp_patch that reads as one."""
        found = []
        why = "it has no struct klp_patch of its own: it may make one when it is loaded"
        for place in self._patches():
            try:
                found.append(self._declared(place))
            except UnreadableError as error:
                why = str(error)
        if len(found) != 1:
            raise UnreadableError(why if not found else "it has more than one struct klp_patch")
        return found[0]

    def code(self) -> Code:
        """Find what the code of the patch refers to by itself."""
        self.patch()
        kinds, width = _DISTANCE.get(str(self._image.elf["e_machine"]), (set[int](), 0))
        symbols = self._image.symbols
        called = set()
        for section in self._image.sections:
            if section["sh_type"] != "SHT_RELA" or not self._holds_code(section["sh_info"]):
                continue
            for offset, info, addend in struct.iter_unpack(f"{self._image.order}QQq", self._image.bytes_of(section)):
                symbol = symbols[info >> 32]
                start = Place(symbol.section, symbol.value + addend + width)
                own = start.section == section["sh_info"] and 0 <= offset - start.offset < self._sizes.get(start, 0)
                if info & 0xFFFFFFFF in kinds and start in self._new and not own:
                    called.add(self._new[start])
        cloned = (_CLONE.match(symbol.name) for symbol in symbols if self._holds_code(symbol.section))
        return Code(frozenset(called), frozenset(found[1] for found in cloned if found))

    def _relocations(self) -> Iterator[tuple[Place, Place]]:
        symbols = self._image.symbols
        for section in self._image.sections:
            if section["sh_type"] != "SHT_RELA" or not self._holds_data(section["sh_info"]):
                continue
            for offset, info, addend in struct.iter_unpack(f"{self._image.order}QQq", self._image.bytes_of(section)):
                if info & 0xFFFFFFFF == self._kind:
                    symbol = symbols[info >> 32]
                    yield Place(section["sh_info"], offset), Place(symbol.section, symbol.value + addend)

    def _section(self, index: int) -> Section | None:
        sections = self._image.sections
        return sections[index] if 0 < index < len(sections) else None

    def _holds_data(self, index: int) -> bool:
        section = self._section(index)
        return section is not None and section["sh_flags"] & (_ALLOC | _EXEC) == _ALLOC

    def _holds_code(self, index: int) -> bool:
        section = self._section(index)
        return section is not None and bool(section["sh_flags"] & _EXEC)

    def _patches(self) -> Iterator[Place]:
        this = {
            Place(symbol.section, symbol.value)
            for symbol in self._image.symbols
            if symbol.name == _THIS_MODULE and symbol.section
        }
        for place, target in self._pointers.items():
            if target in this and self._follow(place, _OBJS, code=False) is not None:
                yield place

    def _follow(self, place: Place, offset: int, *, code: bool) -> Place | None:
        target = self._pointers.get(Place(place.section, place.offset + offset))
        if target is None:
            return None
        holds = self._holds_code if code else self._holds_data
        return target if holds(target.section) else None

    def _declared(self, place: Place) -> Declared:
        starts = self._follow(place, _OBJS, code=False)
        assert starts is not None
        objects = [self._object(each) for each in self._elements(starts, {_FUNCS}, {_NAME, *_CALLBACKS})]
        if not objects:
            raise UnreadableError("its struct klp_patch names no object")
        return Declared(tuple(objects), self._bytes(place, _REPLACE, 1) == b"\1")

    def _object(self, place: Place) -> Object:
        name = "vmlinux"
        if Place(place.section, place.offset + _NAME) in self._pointers:
            name = self._string(place, _NAME, _OBJECT)
        starts = self._follow(place, _FUNCS, code=False)
        if starts is None:
            raise UnreadableError(f"what its object {name} points to is not data")
        places = self._elements(starts, {_OLD_NAME, _NEW_FUNC}, set())
        return Object(name, tuple(self._func(name, each) for each in places))

    def _func(self, owner: str, place: Place) -> Func:
        name = self._string(place, _OLD_NAME, _FUNC)
        new = self._follow(place, _NEW_FUNC, code=True)
        if new is None:
            raise UnreadableError(f"what is to replace {name} is not code")
        self._new[new] = owner, name
        sympos = struct.unpack(f"{self._image.order}Q", self._bytes(place, _SYMPOS, _POINTER))[0]
        return Func(name, sympos)

    def _elements(self, start: Place, must: set[int], may: set[int]) -> list[Place]:
        """Cut an array into elements: pointers at `must`, perhaps at `may`, and none in the last element."""
        size = self._sizes.get(start)
        if size is None:
            raise UnreadableError("its symbol table does not tell the size of an array")
        end = start.offset + size
        inside = {
            place.offset - start.offset
            for place in self._pointers
            if place.section == start.section and start.offset <= place.offset < end
        }
        for count in range(len(inside) // len(must) + 1):
            width, rest = divmod(size, count + 1)
            members = {number * width + each for number in range(count) for each in must}
            allowed = members | {number * width + each for number in range(count) for each in may}
            if not rest and not width % _POINTER and members <= inside <= allowed:
                return [Place(start.section, start.offset + number * width) for number in range(count)]
        raise UnreadableError("an array of it does not divide into elements")

    def _bytes(self, place: Place, offset: int, length: int) -> bytes:
        section = self._image.sections[place.section]
        if section["sh_type"] == "SHT_NOBITS":
            return bytes(length)
        at = place.offset + offset
        data = self._image.bytes_of(section)[at : at + length]
        if len(data) != length:
            raise UnreadableError("a structure of it ends beyond its section")
        return data

    def _string(self, place: Place, offset: int, form: re.Pattern[bytes]) -> str:
        target = self._follow(place, offset, code=False)
        if target is None:
            raise UnreadableError("a name of it is not a string")
        text = self._image.bytes_of(self._image.sections[target.section])[target.offset :].partition(b"\0")[0]
        if not form.match(text):
            raise UnreadableError("a name of it is not a name")
        return text.decode()
