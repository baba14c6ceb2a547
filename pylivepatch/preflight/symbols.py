# SPDX-License-Identifier: MIT
"""The preflight's checks against the kernel's symbol table: functions, exports, versions."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pylivepatch.elf.file import damage
from pylivepatch.kernel.symbols import LAYOUT, Kallsyms, Memory, wanted
from pylivepatch.module.versions import sibling, symvers
from pylivepatch.preflight.candidate import ROOT, Candidate, fatal, unchecked, warning

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from pylivepatch.preflight import Finding

_BUILD = "build the patch for this kernel"
_CLEARS = "clear_relocate_add"
_COMPARES = "modversions"
"""In the vermagic of a kernel that compares the versions of symbols (CONFIG_MODVERSIONS); Debian's 7.x does not."""


def look(candidate: Candidate) -> Iterator[Finding]:
    """Compare what the module names with what the kernel has."""
    with damage(candidate.image.path):
        versions = candidate.image.versions
        needed = {symbol.name for symbol in candidate.image.undefined if not symbol.weak}
    names = {name for _, name in candidate.functions} | {*wanted(needed | versions.keys()), _CLEARS}
    try:
        table = Kallsyms(candidate.root, names)
    except OSError as error:
        yield unchecked("symbols", f"/proc/kallsyms cannot be read: {error.strerror}", ROOT)
        return
    yield from _functions(candidate, table)
    yield from _exported(candidate, table, needed)
    yield from _versions(candidate, table, versions)
    yield from _relocations(candidate, table)


def _functions(candidate: Candidate, table: Kallsyms) -> Iterator[Finding]:
    for (part, func), positions in candidate.functions.items():
        if not candidate.loaded(part):
            continue
        count = table.count(func, "" if part == "vmlinux" else part)
        for sympos in positions:
            if count == 0:
                why, remedy = f"{part} has no function of that name", "name a function as /proc/kallsyms does"
            elif sympos == 0 and count > 1:
                why = f"{part} has {count} symbols of that name, and no sympos says which is meant"
                remedy = f"give a sympos from 1 to {count}"
            elif sympos > count:
                why = f"{part} has {count} symbols of that name, and sympos {sympos} is meant"
                remedy = f"give a sympos from 1 to {count}"
            else:
                continue
            yield fatal("ambiguous" if sympos == 0 < count else "function", func, why, remedy, candidate.stage)


def _exported(candidate: Candidate, table: Kallsyms, needed: set[str]) -> Iterator[Finding]:
    if table.find("__start___ksymtab") is None:
        yield unchecked("exports", "/proc/kallsyms does not show what the kernel exports (CONFIG_KALLSYMS_ALL)")
        return
    missing = sorted(name for name in needed if table.find(f"__ksymtab_{name}") is None)
    waiting = [name for name in candidate.file.depends if not candidate.loaded(name)]
    if missing and waiting:
        yield unchecked(", ".join(missing), f"it may come with {', '.join(waiting)}, which is loaded with the patch")
        return
    for name in missing:
        yield fatal("symbol", name, "the module needs it, and the kernel does not export it", _BUILD)


def _versions(candidate: Candidate, table: Kallsyms, versions: Mapping[str, int]) -> Iterator[Finding]:
    same_release = candidate.file.release == candidate.release
    kin = sibling(candidate.root, candidate.release)
    known: tuple[str, Mapping[str, int]] | None = None
    vermagic, why = "", ""
    try:
        with Memory(candidate.root) as memory:
            vermagic = memory.vermagic(table)
            known = "the running kernel", memory.crcs(candidate.root, table, {*versions, LAYOUT})
            if kin and LAYOUT in kin.versions and not _agree(known[1], kin.versions):
                known, why = None, "what /proc/kcore shows does not fit the modules that came with the kernel"
    except OSError as error:
        why = "only root may read /proc/kcore" if isinstance(error, PermissionError) else str(error)
    if known is None and (file := symvers(candidate.root, candidate.release)):
        known = str(file[0]), file[1]
    if kin and not vermagic.startswith(candidate.release):
        vermagic = next((value for key, value in kin.modinfo if key == "vermagic"), "")
    if vermagic and same_release and vermagic.split() != candidate.file.vermagic.split():
        options = vermagic.partition(" ")[2].strip()
        yield fatal(
            "vermagic",
            candidate.image.path.name,
            f"it was built for a kernel of other options: {candidate.file.vermagic.partition(' ')[2].strip()!r}, "
            f"and this kernel has {options!r}",
            _BUILD,
        )
    if not vermagic:
        yield unchecked("vermagic", "neither the kernel nor a module that came with it can be read", ROOT)
    elif _COMPARES not in vermagic.split():
        return
    if known is None:
        yield unchecked("crc", f"the CRCs of the kernel's symbols cannot be read: {why}", ROOT)
    elif not versions:
        why = "it carries no symbol versions, so that nothing can be compared"
        yield warning("crc", candidate.image.path.name, why, _BUILD)
    else:
        yield from _crcs(versions, *known)


def _agree(one: Mapping[str, int], other: Mapping[str, int]) -> bool:
    return one.get(LAYOUT) == other.get(LAYOUT)


def _crcs(versions: Mapping[str, int], source: str, known: Mapping[str, int]) -> Iterator[Finding]:
    for name, crc in sorted(versions.items()):
        if name in known and known[name] != crc:
            yield fatal(
                "crc",
                name,
                f"the module was built with version 0x{crc:08x} of it, and {source} has 0x{known[name]:08x}",
                _BUILD,
            )


def _relocations(candidate: Candidate, table: Kallsyms) -> Iterator[Finding]:
    # 0c05e7bd2d01 ("livepatch,x86: Clear relocation targets on a module removal"), 6.3.
    modules = ", ".join(name for name in candidate.file.relocated if name != "vmlinux")
    if modules and not candidate.features.reloc_clear and table.find(_CLEARS) is None:
        yield warning(
            "reloc-clear",
            modules,
            f"it has relocations for {modules}, which this kernel does not undo: once enabled, such a module "
            "cannot be unloaded and loaded again, nor the patch enabled again as it is",
            "take Linux 6.3 or later, or load the patch again for each enable",
        )
