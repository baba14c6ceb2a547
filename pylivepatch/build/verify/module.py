# SPDX-License-Identifier: MIT
"""The finished patch module, as the module loader and the livepatch core will read it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import NamedTuple, Self

from pylivepatch.build.verify import objectfile as elf
from pylivepatch.build.verify.objectfile import ObjectFile, Rel, Sec

_LIVEPATCH = re.compile(r"\.klp\.sym\.([^.]+)\.([^,]+),(\d+)\Z")


class Place(NamedTuple):
    """A place in the module: section number, and offset in bytes."""

    section: int
    offset: int


@dataclass(frozen=True, slots=True)
class Found:
    """What a reference of the module leads to.

    Attributes:
        type: The relocation's type.
        place: Where in the module, or None.
        owner: For a livepatch symbol the object that has it.
        name: The name that is looked up; "" for what is in the module.
        position: For a livepatch symbol which of several, from 1; 0 when there is one.
        delta: Bytes from the symbol.
        object: For a livepatch relocation the object that has to be there before it is written.
    """

    type: int
    place: Place | None
    owner: str = ""
    name: str = ""
    position: int = 0
    delta: int = 0
    object: str = ""

    def __str__(self) -> str:
        """Say what it leads to."""
        if self.place is not None:
            return f"the module's section {self.place.section} at {self.place.offset:#x}"
        plus = f"{self.delta:+#x}" if self.delta else ""
        if self.owner:
            return f"{self.owner}:{self.name}{f',{self.position}' if self.position else ''}{plus}"
        return f"{self.name}{plus}" if self.name else "nothing"


class Module:
    """A patch module.

    Args:
        file: What is in its file.

    Attributes:
        file: The same.
        info: What .modinfo says, by key.
    """

    def __init__(self, file: ObjectFile) -> None:
        self.file = file
        self.info: dict[str, list[str]] = {}
        for row in filter(None, (file.named(".modinfo") or _NOTHING).data.split(b"\0")):
            key, _, value = row.decode(errors="replace").partition("=")
            self.info.setdefault(key, []).append(value)

    @classmethod
    def parse(cls, data: bytes, name: str = "the module") -> Self:
        """Read a module.

        Raises:
            BadDataError: It is none.
        """
        return cls(ObjectFile.parse(data, name))

    def found(self, rel: Rel, bias: int = 0) -> Found:
        """Return what *rel* leads to; *bias* is the distance from the field to what its value is measured from."""
        symbol = self.file.symbols[rel.symbol]
        delta = rel.addend + bias
        if symbol.shndx == elf.KLP:
            match = _LIVEPATCH.match(symbol.name)
            if match:
                return Found(rel.type, None, match[1], match[2], int(match[3]), delta, rel.object)
        elif symbol.shndx == elf.UNDEF:
            return Found(rel.type, None, name=symbol.name, delta=delta, object=rel.object)
        elif symbol.shndx < len(self.file.sections):
            return Found(rel.type, Place(symbol.shndx, symbol.value + delta), object=rel.object)
        return Found(rel.type, None)

    def symbols(self, name: str) -> list[Place]:
        """Return where the symbols called *name* are."""
        return [Place(symbol.shndx, symbol.value) for symbol in self.file.symbols
                if symbol.name == name and 0 < symbol.shndx < len(self.file.sections)]

    def at(self, place: Place, size: int) -> bytes:
        """Return *size* bytes at *place*; fewer where the section ends."""
        return self.file.sections[place.section].data[place.offset:place.offset + size] if place.offset >= 0 else b""

    def text(self, place: Place) -> str:
        """Return the string at *place*."""
        data = self.file.sections[place.section].data
        return data[place.offset:data.find(b"\0", place.offset)].decode(errors="replace")

    def words(self, place: Place) -> str:
        """Say what is at *place*: the name of a symbol, or of the section, and how far behind it."""
        section = self.file.sections[place.section]
        best = max((symbol for symbol in self.file.symbols if symbol.shndx == place.section and symbol.name
                    and symbol.type not in (elf.SECTION, elf.FILE) and symbol.value <= place.offset),
                   key=lambda symbol: symbol.value, default=None)
        name, far = (best.name, place.offset - best.value) if best is not None else (section.name, place.offset)
        return f"{name}{far:+#x}" if far else name


_NOTHING = Sec(0, "", 0, 0, b"", 0, 1, 0, 0, 0)
