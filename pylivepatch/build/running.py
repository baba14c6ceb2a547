# SPDX-License-Identifier: MIT
"""What the code of a patch refers to in the kernel that runs: variables and functions that are there already."""

from __future__ import annotations

from pylivepatch.build.image import VMLINUX
from pylivepatch.build.parts import Part
from pylivepatch.build.runpre import Match
from pylivepatch.build.symbols import Livepatch, Symbols
from pylivepatch.errors import BuildError


class Running:
    """Finds what one source has, and what it takes from others.

    Args:
        owner: "vmlinux", or the name of the module that the source belongs to.
        match: Where the original is in the image.
        symbols: The symbols of the kernel.
    """

    def __init__(self, owner: str, match: Match, symbols: Symbols) -> None:
        self.owner = owner
        self.match = match
        self.symbols = symbols
        self.source: str = match.source

    def original(self, part: Part, user: Part) -> Livepatch | str | None:
        """Return the symbol for a part of the original, or the name of an exported one.

        None for a constant that has no name there.

        Raises:
            BuildError: It is freed after init, or nothing tells where it is.
        """
        if part.in_init:
            raise BuildError(
                f"{user.name}() refers to {part.name}, which is freed after init", kind="init", symbol=part.name,
                file=self.source, remedy="use nothing that is marked __init or __initdata")
        for symbol in part.symbols:
            if symbol.bind and self.owner == VMLINUX and self.symbols.ordinary(symbol.name):
                return symbol.name
        for symbol in part.symbols:
            address = self.match.address(symbol.name)
            if address is None and symbol.bind:
                return self.symbols.find(self.owner, symbol.name, self.source)
            if address is not None:
                found = self.symbols.at(self.owner, self.owner, symbol.name, address)
                if found is not None:
                    return found
        return self._by_name(part, user)

    def external(self, name: str) -> Livepatch | str:
        """Return the symbol for what another source defines, or its name when any module may refer to it.

        Raises:
            BuildError: There is none, or more than one.
        """
        if self.symbols.ordinary(name):
            return name
        imports = self.match.image.imports
        if self.owner == VMLINUX or name in imports.values() or name not in self.symbols.exports:
            address = self.match.imports.get(name)
            if address is not None and address not in imports:
                found = self.symbols.at(self.owner, self.owner, name, address)
                if found is not None:
                    return found
        return self.symbols.find(self.owner, name, self.source)

    def owner_of(self, name: str) -> str:
        """Return which object has what another source defines."""
        return VMLINUX if self.symbols.ordinary(name) else self.symbols.find(self.owner, name, self.source).owner

    def _by_name(self, part: Part, user: Part) -> Livepatch | None:
        """Fall back on a name that only one symbol of the object has, and this source."""
        places = self.symbols.image(self.owner).symbols.addresses(part.name)
        if len(places) == 1 and self.match.defined(part.name) is not None:
            return Livepatch(self.owner, self.owner, part.name, 0)
        if not part.section.writable and not part.is_func and not places:
            return None
        raise BuildError(
            f"{user.name}() refers to {part.name}, and nothing tells where that is in {self.owner}: it has "
            f"{len(places) or 'no'} symbols of that name, and no unchanged function refers to it",
            kind="ambiguous" if places else "unresolved", symbol=part.name, file=self.source)
