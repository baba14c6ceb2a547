# SPDX-License-Identifier: MIT
"""What objtool adds to an object: how to unwind the stack at each instruction, and which calls and returns are patched.

Without it a module loads, and lacks what the kernel's own code has: a reliable stack, and its mitigations. It is
counted here with an instruction decoder, and compared with what objtool makes of the reference.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from pylivepatch.build.verify import objectfile as elf
from pylivepatch.build.verify.code import Code
from pylivepatch.build.verify.module import Found, Module, Place
from pylivepatch.build.verify.objectfile import ObjectFile, Sec

UNWIND, UNWIND_IP = ".orc_unwind", ".orc_unwind_ip"
SITES = {
    ".return_sites": "__return_sites",
    ".retpoline_sites": "__retpoline_sites",
    ".call_sites": "__call_sites",
    ".static_call_sites": "__start_static_call_sites",
    ".ibt_endbr_seal": "__ibt_endbr_seal",
    UNWIND_IP: "__start_orc_unwind_ip",
}
"""The tables, with the symbol that marks the kernel's own one: a kernel without it makes no use of the table."""

ADDED = frozenset({*SITES, UNWIND, ".orc_header"})
"""The sections that objtool adds."""

_NO_TARGETS = frozenset({
    ".altinstructions", ".ibt_endbr_seal", UNWIND_IP, ".parainstructions", ".retpoline_sites", ".return_sites",
    ".smp_locks", ".static_call_sites", ".call_sites", "__bug_table", "__ex_table", "__jump_table", "__mcount_loc",
    "__patchable_function_entries", "_kprobe_blacklist", "_error_injection_whitelist", ".kcfi_traps",
})
"""Tables that refer to code, and never to jump there."""

_ENDBR = "endbr64"


@dataclass(slots=True)
class Annotations:
    """What objtool added to an object.

    Attributes:
        sites: For each table the places that it names, with how often, and for static calls what else it says.
        rows: For each section of code where rows of unwind data begin, in their order, with each row's bytes.
    """

    sites: dict[str, dict[Place, list[str]]] = field(default_factory=dict)
    rows: dict[int, list[tuple[int, bytes]]] = field(default_factory=dict)

    @classmethod
    def of(cls, file: ObjectFile, width: int) -> Annotations:
        """Read them.

        Args:
            file: The object.
            width: Bytes of a row of unwind data.

        Raises:
            ValueError: They contradict each other.
        """
        made, module = cls(), Module(file)
        for name in SITES:
            section = file.named(name)
            found: dict[Place, list[str]] = defaultdict(list)
            made.sites[name] = found
            if section is None:
                continue
            each = 8 if name == ".static_call_sites" else 4
            leads = {rel.offset: module.found(rel) for rel in section.relocs}
            if section.size % each or len(leads) != len(section.relocs) or set(leads) != set(range(0, section.size, 4)):
                raise ValueError(f"{name} has {section.size} bytes, and {len(leads)} references")
            for at in range(0, section.size, each):
                place = leads[at].place
                if place is None or leads[at].type != elf.PC32:
                    raise ValueError(f"{name} refers to {leads[at]}")
                found[place].append(_key(file, section, at + 4, leads) if each == 8 else "")
        made._unwind(file, width)
        return made

    def _unwind(self, file: ObjectFile, width: int) -> None:
        rows, places = file.named(UNWIND), file.named(UNWIND_IP)
        if rows is None or places is None:
            if rows is not places:
                raise ValueError("there are rows of unwind data without places, or places without rows")
            return
        if rows.size % width or rows.size // width != places.size // 4:
            raise ValueError(f"{rows.size} bytes of unwind data for {places.size // 4} places")
        module = Module(file)
        if [rel.offset for rel in places.relocs] != list(range(0, places.size, 4)):
            raise ValueError(f"{UNWIND_IP} has {len(places.relocs)} references in {places.size} bytes")
        for index, rel in enumerate(places.relocs):
            place = module.found(rel).place
            if place is None or rel.type != elf.PC32:
                raise ValueError(f"{UNWIND_IP} refers to {module.found(rel)}")
            if not 0 <= place.offset <= file.sections[place.section].size:
                raise ValueError(f"{UNWIND_IP} refers to what is beside {file.sections[place.section].name}")
            row = rows.data[index * width:(index + 1) * width]
            self.rows.setdefault(place.section, []).append((place.offset, row))
        for found in self.rows.values():
            found.sort()  # those that end a section first, which are all zeros: the kernel sorts them so, too
            telling = [at for at, row in found if any(row)]
            if len(set(telling)) != len(telling):
                raise ValueError("there is more than one row of unwind data for a place")

    def row(self, place: Place) -> bytes:
        """Return how to unwind at *place*; b"" when nothing tells."""
        rows = self.rows.get(place.section, [])
        at = bisect_right(rows, (place.offset, b"\xff" * 64)) - 1
        return rows[at][1] if at >= 0 else b""


def _key(file: ObjectFile, section: Sec, at: int, leads: dict[int, Found]) -> str:
    """Say which static call a site is of, and what its flags are."""
    lead = leads[at]
    rel = next(rel for rel in section.relocs if rel.offset == at)
    name, flags = lead.name, rel.addend
    if lead.place is not None:
        flags = lead.place.offset & 3
        name = Module(file).words(Place(lead.place.section, lead.place.offset & ~3))
    return f"{name.removeprefix('__SCT__').removeprefix('__SCK__')}{flags:+d}"


def complaints(
    module: Module, own: Annotations, used_by_kernel: Callable[[str], bool],
) -> Iterator[str]:
    """Say what a module lacks, or has too much, of what objtool adds: as its instructions have it, one by one.

    Args:
        module: The module.
        own: What objtool added to it.
        used_by_kernel: Tells whether the kernel makes use of a table.
    """
    codes = {section.index: Code(section.data) for section in module.file.sections
             if section.flags & elf.EXEC and section.size and section.name != ".altinstr_replacement"}
    targets = _targets(module, codes)
    for index, code in codes.items():
        section = module.file.sections[index]
        expected: dict[str, Counter[Place]] = defaultdict(Counter)
        for table, offset in _expected(module, section, code, targets):
            if used_by_kernel(table):
                expected[table][Place(index, offset)] += 1
        for table in SITES:
            if table == UNWIND_IP:
                continue
            there = Counter({place: len(rows) for place, rows in own.sites[table].items() if place.section == index})
            for place in (expected[table] - there):
                yield f"{table} has no entry for the instruction at {module.words(place)}"
            for place in (there - expected[table]):
                yield f"{table} has an entry too many for {module.words(place)}"
        yield from _static_calls(module, section, code, own)
    for table in SITES:
        rows = own.rows if table == UNWIND_IP else {place.section for place in own.sites[table]}
        yield from (f"{table} refers to {module.file.sections[index].name}, which is no code" for index in rows
                    if not module.file.sections[index].flags & elf.EXEC)


def _static_calls(module: Module, section: Sec, code: Code, own: Annotations) -> Iterator[str]:
    """Say which sites of static calls are not of the call that stands there."""
    relocs = {rel.offset: rel for rel in section.relocs}
    for place, keys in own.sites[".static_call_sites"].items():
        insn = code.at(place.offset) if place.section == section.index else None
        rel = relocs.get(insn.end - 4) if insn is not None else None
        if insn is None or rel is None:
            continue
        found = module.found(rel, 4)
        name = (found.name or (module.words(found.place) if found.place is not None else "")).removeprefix("__SCT__")
        tail = insn.mnemonic != "call"
        for key in keys:
            if key != f"{name}{tail:+d}":
                yield f".static_call_sites has {key} for the call of {name} at {module.words(place)}"


def _expected(module: Module, section: Sec, code: Code, targets: set[Place]) -> Iterator[tuple[str, int]]:
    """Yield the tables that must have an entry for an instruction, with its offset."""
    relocs = {rel.offset: rel for rel in section.relocs}
    for insn in code.insns:
        table = ""
        if insn.branches and insn.target() is not None:
            rel = relocs.get(insn.end - 4)
            found = module.found(rel, 4) if rel is not None else None
            name = (found.name or (module.words(found.place) if found.place else "")) if found else "near"
            if name == "__x86_return_thunk":
                table = ".return_sites"
            elif name.startswith("__x86_indirect_"):
                table = ".retpoline_sites"
            elif name.startswith("__SCT__"):
                table = ".static_call_sites"
            elif insn.mnemonic == "call":
                table = ".call_sites"
        elif insn.mnemonic == _ENDBR and Place(section.index, insn.offset) not in targets:
            table = ".ibt_endbr_seal"
        if table:
            yield table, insn.offset


def _targets(module: Module, codes: dict[int, Code]) -> set[Place]:
    """Return where in the module a pointer leads to."""
    branches = {Place(index, insn.end - 4) for index, code in codes.items() for insn in code.insns if insn.branches}
    found: set[Place] = set()
    for section in module.file.sections:
        if not section.flags & elf.ALLOC or section.name in _NO_TARGETS:
            continue
        for rel in section.relocs:
            place = module.found(rel).place
            if place is not None and Place(section.index, rel.offset) not in branches:
                found.add(place)
    return found


def sites(made: Annotations, place: Place, size: int) -> set[tuple[str, int]]:
    """Return what tables name in a piece of code: table, and offset in it."""
    return {(table, at.offset - place.offset) for table, rows in made.sites.items() for at in rows
            if at.section == place.section and place.offset <= at.offset < place.offset + size}


def unlike(
    code: Code, at: Place, own: Annotations, there: Place, reference: Annotations, last: int,
) -> int | None:
    """Return the offset of the first byte from which the stack is unwound otherwise than in the reference.

    Args:
        code: The instructions of a function.
        at: Where it is in the module.
        own: What objtool added to the module.
        there: Where it is in the reference.
        reference: What objtool added to that.
        last: Where the section ends in the module; what is there must end the code in both.
    """
    size = code.insns[-1].end
    sides = ((own, at), (reference, there))
    wanted = {0, *(insn.offset for insn in code.insns)} | ({size} if last == at.offset + size else set())
    # inside of a function there may be rows between instructions: of those that take their place
    begins = [{offset - place.offset for offset, _ in each.rows.get(place.section, ())
               if 0 < offset - place.offset < size} for each, place in sides]
    wanted |= begins[0] | begins[1]
    for offset in sorted(wanted):
        one, two = (each.row(Place(place.section, place.offset + offset)) for each, place in sides)
        if one != two:
            return offset
    return None
