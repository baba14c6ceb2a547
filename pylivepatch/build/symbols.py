# SPDX-License-Identifier: MIT
"""Where a symbol of the running kernel is, and how a patch module can refer to it.

What vmlinux exports, a module refers to as every module does. Anything else becomes a livepatch symbol, which the
livepatch core looks up by object, name and position (sympos) when the patch or the object loads.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path

from pylivepatch.build.image import VMLINUX, Image
from pylivepatch.errors import BuildError


@dataclass(frozen=True, slots=True)
class Livepatch:
    """A livepatch symbol, as it stands in an object before the module is linked.

    Attributes:
        user: The object whose patched code refers to it: what must be loaded before the reference can be written.
        owner: The object that has it.
        name: Its name there.
        sympos: Which of several, from 1; 0 when there is one.
        known: Whether objtool may know it by its name: a global symbol of vmlinux. It knows which functions do not
            return, which are trampolines of static calls, and more.
    """

    user: str
    owner: str
    name: str
    sympos: int
    known: bool = False

    @property
    def final(self) -> str:
        """The name that the livepatch core reads."""
        return f".klp.sym.{self.owner}.{self.name},{self.sympos}"

    @property
    def needs(self) -> str:
        """The object that the core waits for before it writes the reference."""
        return VMLINUX if self.owner == VMLINUX else self.user


@dataclass(frozen=True, slots=True)
class Export:
    """A line of Module.symvers.

    Attributes:
        owner: "vmlinux", or the name of a module.
        crc: Version of the symbol, as text.
        namespace: What a module has to import first, or "".
    """

    owner: str
    crc: str
    namespace: str


def exports(symvers: Iterable[Path]) -> dict[str, Export]:
    """Read what the kernel and its modules export, out of the headers' Module.symvers and others of that kind."""
    found = {}
    for line in (line for path in symvers for line in path.read_text().splitlines()):
        crc, name, owner, _, *rest = line.split("\t")
        module = owner.rpartition("/")[2].replace("-", "_")
        found[name] = Export(module, crc, rest[0] if rest else "")
    return found


@dataclass(slots=True)
class Symbols:
    """The symbols of a kernel and its modules.

    Attributes:
        exports: What they export.
        open: Reads the image of an object by its name.
    """

    exports: dict[str, Export]
    open: Callable[[str], Image]
    _images: dict[str, Image] = field(default_factory=dict)

    def image(self, name: str) -> Image:
        """Return the image of the object *name*, read once."""
        if name not in self._images:
            self._images[name] = self.open(name)
        return self._images[name]

    def needed(self, name: str) -> set[str]:
        """Return the modules that are there whenever the object *name* is: those it takes symbols from, and so on."""
        found, pending = set[str](), [name]
        while pending:
            one = pending.pop()
            owners = {self.exports[each].owner for each in self.image(one).imports.values()
                      if each in self.exports} if one != VMLINUX else set()
            pending += owners - found - {VMLINUX}
            found |= owners - {VMLINUX}
        return found

    def ordinary(self, name: str) -> bool:
        """Tell whether any module may refer to *name* without further ado."""
        export = self.exports.get(name)
        return export is not None and export.owner == VMLINUX and not export.namespace

    def at(self, user: str, owner: str, name: str, address: int) -> Livepatch | None:
        """Return the livepatch symbol for what *owner* has at *address*; None when it has no name there.

        Args:
            user: The object whose code refers to it.
            owner: The object that has it.
            name: What the source calls it; another name at that address is as good.
            address: Where it is in the image of *owner*.
        """
        image = self.image(owner)
        names = image.symbols.names(address)
        if not names:
            return None
        # the shorter a list of equal names, the less can shift in it
        best = name if name in names else min(names, key=lambda one: (len(image.symbols.addresses(one)), one))
        return self._checked(user, image, best, address)

    def _checked(self, user: str, image: Image, name: str, address: int) -> Livepatch:
        """Return the livepatch symbol for what is there for good."""
        if image.gone(address):
            raise BuildError(f"{name} is freed after init", kind="init", symbol=name,
                             remedy="use nothing that is marked __init, __initdata or __exit")
        known = image.name == VMLINUX and name not in self.exports and image.symbols.is_global(name, address)
        return Livepatch(user, image.name, name, image.symbols.sympos(name, address), known)

    def find(self, user: str, name: str, file: str) -> Livepatch:
        """Return the livepatch symbol for the global symbol *name*, which another source defines.

        Raises:
            BuildError: There is none, or more than one.
        """
        export = self.exports.get(name)
        owners = [export.owner] if export is not None else [user] if user == VMLINUX else [user, VMLINUX]
        for owner in owners:
            image = self.image(owner)
            places = [place for place in image.symbols.addresses(name) if not image.symbols.is_static(name, place)]
            if len(places) == 1:
                if owner not in (user, VMLINUX) and owner not in self.needed(user):
                    raise BuildError(
                        f"the changed code of {file} uses {name} of the module {owner}, and {user} runs without "
                        f"{owner}: the patch would keep {user} from being loaded, or use what was freed",
                        kind="dependency", symbol=name, file=file,
                        remedy="ask for it while the code runs, with symbol_get(), and do without when it is not there")
                return self._checked(user, image, name, places[0])
            if places:
                raise BuildError(f"{owner} has {len(places)} global symbols called {name}", kind="ambiguous",
                                 symbol=name, file=file)
        raise BuildError(
            f"{file} refers to {name}, which neither {' nor '.join(owners)} has for all its sources", kind="unresolved",
            symbol=name, file=file,
            remedy="code that this kernel does not have, or has inlined everywhere, cannot be called: add it to the "
                   "diff as a new function")
