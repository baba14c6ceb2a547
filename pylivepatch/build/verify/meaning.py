# SPDX-License-Identifier: MIT
"""What a reference of the module may lead to, so that it means what it means in the reference.

Calls may go to new code. A pointer has to lead to the original, which stays when the patch is reverted; through it the
new code is reached as long as the patch is enabled. State that the kernel has already is the kernel's own, at the
address where the code that runs has it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import NamedTuple

from pylivepatch.build.verify import objectfile as elf
from pylivepatch.build.verify.assembly import Atom
from pylivepatch.build.verify.closure import Closure, base
from pylivepatch.build.verify.kernel import VMLINUX, Kernel, Running
from pylivepatch.build.verify.located import Located
from pylivepatch.build.verify.module import Found, Module, Place
from pylivepatch.build.verify.reference import Ref, Reference

_MACROS = re.compile(
    r"(?:__func__|__FUNCTION__|__PRETTY_FUNCTION__|__warned|__already_done|__already_done_bpf|__key|_rs|_entry|_entry_ptr"
    r"|__print_once|__ret_warn_on|___tp_str|__tp_str|CSWTCH|descriptor|__UNIQUE_ID_ddebug)\Z")
"""What each expansion of a macro has for itself: once-only flags, lock classes, rates, descriptions of messages."""

NUMBERED = "__klp_"
"""What the module's own sources call the functions of the patch: with a number behind it."""

ONCE = frozenset({".data.once", ".data..once", "__dyndbg"})


@dataclass(slots=True)
class Unit:
    """A source that the module has something of.

    Attributes:
        source: Its name.
        object: What its code is a part of: "vmlinux", or a module. "" for the module's own sources.
        patched: What the kernel's own build makes of it with the diff.
        apart: The object file of that, with the atoms apart.
        running: What its code is a part of, as it runs; None for the module's own sources.
        located: Where the original is in it; None for the module's own sources.
        closure: What the diff changes; None for the module's own sources.
    """

    source: str
    object: str
    patched: Reference
    apart: bytes = field(repr=False)
    running: Running | None = None
    located: Located | None = None
    closure: Closure | None = None


class Copy(NamedTuple):
    """A claim: that an atom of a source is at a place of the module."""

    unit: int
    atom: Atom
    place: Place


class Meaning:
    """Tells what the references of a module mean.

    Args:
        module: The module.
        kernel: The kernel that it is for.
        units: The sources that it has something of.

    Attributes:
        replaced: For each unit, the numbers of the original's functions that the module replaces.
        given: Where the functions are that the livepatch core is given, which the module's own sources know by number.
        unproved: What nothing tells.
    """

    def __init__(self, module: Module, kernel: Kernel, units: list[Unit]) -> None:
        self.module = module
        self.kernel = kernel
        self.units = units
        self.replaced: list[set[int]] = [set() for _ in units]
        self.given: set[Place] = set()
        self.unproved: list[str] = []

    def of(self, number: int, user: Atom, ref: Ref, found: Found) -> Copy | str:
        """Say what is against a reference of *user* leading to *found*: "" when it leads where it must.

        Args:
            number: The source that *user* is of.
            user: What has the reference.
            ref: What it is in the reference.
            found: What it is in the module.

        Returns:
            Words; or, when it leads to something of the module, what that has to be.
        """
        unit = self.units[number]
        if ref.target is None:
            return ""
        if isinstance(ref.target, str):
            return self._foreign(unit, ref, ref.target, found)
        if found.place is None:
            return self._kernels(number, ref, ref.target, found) if unit.closure else "that is not the module's"
        words = self._copied(number, user, ref, ref.target) if unit.closure else ""
        return words or Copy(number, ref.target, Place(found.place.section, found.place.offset - ref.delta))

    def symbol(self, owner: str, name: str, position: int) -> int | str:
        """Return the address of the symbol that the livepatch core finds, or why it finds none."""
        try:
            running = self.kernel[owner]
        except LookupError:
            return f"there is no {owner}"
        places = running.symbols.addresses(name)
        if name in running.early and places:
            return f"{owner} has another {name} while it is initialised"
        if not places or (len(places) > 1) != bool(position) or position > len(places):
            return f"{owner} has {len(places)} symbols called {name}, and number {position} is wanted"
        return places[max(position - 1, 0)]

    # ---- what the source has itself ----

    def _inside(self, unit: Unit, target: Atom, delta: int) -> bool:
        """Tell whether *delta* is inside a function, and not where it begins."""
        return target.code and all(delta != unit.patched.offset(name) for name in target.labels
                                   if unit.patched.is_func(name))

    def _copied(self, number: int, user: Atom, ref: Ref, target: Atom) -> str:
        """Say what is against the module having its own *target*."""
        unit = self.units[number]
        assert unit.closure is not None
        old = unit.closure.original(target)
        if target.code:
            entry = not user.code and not user.labels
            if old is None or ref.branch or entry or self._inside(unit, target, ref.delta):
                return ""
            return "a pointer has to lead to the original, which stays when the patch is reverted"
        if _MACROS.match(base(target.name)) or target.section in ONCE:
            return ""
        if target.number in unit.closure.ambiguous:
            return "nothing tells whether the kernel has that already"
        if old is None:
            return ""
        piece = unit.patched.piece(target)
        if piece.section.flags & elf.WRITE and not piece.section.name.startswith(".data.rel.ro"):
            return "that is state, and the kernel has it already"
        if any(isinstance(one.target, Atom) and self._inside(unit, one.target, one.delta) for one in piece.refs):
            return ""  # a table of labels is the function's own
        users = unit.closure.reached(self.replaced[number])
        if old.number in users and self.kernel[unit.object].symbols.addresses(old.name):
            return f"{users[old.number]} goes on using the kernel's own"
        return "" if old.number in unit.closure.same or old.number not in users else "the kernel's own is another one"

    def _kernels(self, number: int, ref: Ref, target: Atom, found: Found) -> str:
        """Say what is against *target* being the kernel's own, at *found*."""
        unit = self.units[number]
        assert unit.closure is not None
        assert unit.located is not None
        old = unit.closure.original(target)
        if old is None and target.number in unit.closure.ambiguous and base(found.name) == base(target.name):
            self.unproved.append(
                f"that {target.name} of {unit.source} is {found.name} of {unit.object}: other variables there have "
                "that name, too, and the functions that have them change")
            return ""
        if old is None:
            return "that is new, and the kernel does not have it"
        if self._inside(unit, target, ref.delta):
            return "that is inside of the old function"
        if old.number not in unit.closure.same and old.number not in self.replaced[number]:
            return "the kernel's own has the old code" if target.code else "the kernel's own is another one"
        where = self._where(unit, found)
        if isinstance(where, str):
            return where
        start = unit.located.address(old)
        if start is None and not unit.located.disputed(old):
            places = self.kernel[unit.object].symbols.addresses(old.name)
            start = places[0] - unit.located.reference.offset(old.name) if len(places) == 1 else None
        if start is None:
            return "nothing tells where the kernel has it"
        return "" if (unit.object, start + ref.delta) == where else "the code that runs has it at another address"

    # ---- what another source has ----

    def _foreign(self, unit: Unit, ref: Ref, name: str, found: Found) -> Copy | str:
        """Say what is against a reference to *name*, which another source defines."""
        if found.place is not None:
            return self._brought(unit, ref, name, found.place)
        if unit.running is None or unit.located is None:
            return "" if (found.name, found.delta) == (name, ref.delta) and not found.owner else "that is another one"
        where = self._where(unit, found)
        if isinstance(where, str):
            return where
        if unit.located.disputed(name):
            return "the code that runs has it at more than one address"
        start = unit.located.address(name)
        if start is not None:
            there = self._canonical(unit.running, start)
            return "" if (there[0], there[1] + ref.delta) == where else "the code that runs has it at another address"
        if found.name != name or found.delta != ref.delta:
            return "that is another one"
        for other in self.units:
            start = self._made_global(other, name)
            if start is not None:
                return "" if (other.object, start + ref.delta) == where else f"{other.source} has it at another address"
        places = self.kernel[where[0]].whole(name)
        return "" if len(places) == 1 and places[0] + ref.delta == where[1] else "that is not the only one of that name"

    def _made_global(self, other: Unit, name: str) -> int | None:
        """Return where *name* is in what runs when *other* has it, and the diff lets others refer to it."""
        atom = other.patched.named(name)
        if atom is None or not other.patched.is_global(name) or other.closure is None or other.located is None:
            return None
        old = other.closure.original(atom)
        start = other.located.address(old) if old is not None else None
        return start + other.patched.offset(name) if start is not None else None

    def _brought(self, unit: Unit, ref: Ref, name: str, place: Place) -> Copy | str:
        """Say what is against *name* being in the module: another source of the patch has to define it."""
        if unit.closure is None:
            begin = Place(place.section, place.offset - ref.delta)
            known = begin in self.module.symbols(name) or (name.startswith(NUMBERED) and begin in self.given)
            return "" if known else "that is another one"
        for number, other in enumerate(self.units):
            atom = other.patched.named(name)
            if atom is None or not other.patched.is_global(name) or other.closure is None:
                continue
            if other.closure.original(atom) is None or (atom.code and ref.branch):
                return Copy(number, atom, Place(place.section, place.offset - other.patched.offset(name) - ref.delta))
        return "no source of the patch has that for others"

    # ---- what the kernel has ----

    def _where(self, unit: Unit, found: Found) -> tuple[str, int] | str:
        """Return the object and address that a reference to the kernel leads to, or what is wrong with it."""
        if not found.owner:
            owner, namespace = self.kernel.exports.get(found.name, ("", ""))
            if owner != VMLINUX or namespace:
                return f"{found.name or 'that'} is not exported by the kernel to every module"
            places = self.kernel[VMLINUX].whole(found.name)
            return (VMLINUX, places[0] + found.delta) if len(places) == 1 else f"{found.name} is not unique"
        if found.owner == VMLINUX:
            if found.object != VMLINUX:
                return "what vmlinux has must not wait for a module"
        elif found.object != unit.object:
            return f"it is written when {found.object} is there, and the function is of {unit.object}"
        elif found.owner != unit.object and unit.running is not None and found.owner not in unit.running.needs:
            return f"{unit.object} does not need {found.owner}, which may not be there"
        start = self.symbol(found.owner, found.name, found.position)
        return start if isinstance(start, str) else (found.owner, start + found.delta)

    def _canonical(self, running: Running, address: int) -> tuple[str, int]:
        """Return who has what is at *address* of an image, and where there."""
        name = running.imports.get(address)
        if name is None:
            return running.name, address
        owner = self.kernel.exports.get(name, ("", ""))[0]
        places = self.kernel[owner].whole(name) if owner else []
        return (owner, places[0]) if len(places) == 1 else (running.name, address)
