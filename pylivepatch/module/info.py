# SPDX-License-Identifier: MIT
"""Everything that is known about a patch: what its file says, and what the kernel does."""

from __future__ import annotations

import contextlib
import dataclasses
import re
from pathlib import Path
from typing import TYPE_CHECKING, Self

from pylivepatch.elf.file import SUFFIXES, Image, build_id, damage, module_name, unpacked
from pylivepatch.errors import BadDataError, LivepatchError
from pylivepatch.kernel.sysfs import enabled_order
from pylivepatch.module import ModuleFile
from pylivepatch.module.declared import UnreadableError, declared
from pylivepatch.module.verdict import SECTION, Verdict

if TYPE_CHECKING:
    import os
    from collections.abc import Iterator

    from pylivepatch.state import Object, PatchStatus

__all__ = ["Parameter", "PatchInfo", "Stacked"]

_DIFF = ".klpctl.diff"
_CVE = re.compile(r"CVE-\d{4}-\d{4,}\Z")
_STORE = "var/lib/pylivepatch"
_NOTE = "notes/.note.gnu.build-id"
_NO_FILE = "the file that it was loaded from is not known"


@dataclasses.dataclass(frozen=True, slots=True)
class Parameter:
    """A parameter of a patch module.

    Attributes:
        name: Its name.
        type: Its type, as the module spells it: "bool", "int", "charp"; or "".
        description: What it does, or "".
    """

    name: str
    type: str = ""
    description: str = ""


@dataclasses.dataclass(frozen=True, slots=True)
class Stacked:
    """A function that a patch replaces, and the patches that replace it, too.

    Attributes:
        object: "vmlinux", or the name of a module.
        func: The function's name.
        below: Patches beneath this one, the oldest first: its code ran before.
        above: Patches on top of this one, the newest last: that one's code runs.
    """

    object: str
    func: str
    below: tuple[str, ...]
    above: tuple[str, ...]


@dataclasses.dataclass(frozen=True, slots=True)
class PatchInfo:
    """What is known about a patch.

    Attributes:
        name: Name of the patch, which is its module's name.
        file: Its module file; None for a loaded patch whose file was not found.
        objects: What it replaces: for a loaded patch what the kernel says,
            otherwise what stands in the file. None when that cannot be read.
        unreadable: Why ``objects`` is None, or "".
        replace: Whether it replaces all patches before it; None when that cannot
            be told.
        registered: Whether it registers with klpctl, so that loading it changes
            nothing; otherwise it is enabled by being loaded.
        cves: What it fixes, as the patch itself says; None when that is not known.
        diff: The source diff that it was built from; None when it carries none.
        proof: What was proved of its module, as the module itself says; None when it carries nothing of that.
        status: Where it stands in the kernel; None for a file alone.
        stack: For an enabled patch, each of its functions with the other patches
            that replace it; None when their order is not known.
    """

    name: str
    file: ModuleFile | None
    objects: tuple[Object, ...] | None
    unreadable: str
    replace: bool | None
    registered: bool
    cves: tuple[str, ...] | None
    diff: str | None
    proof: Verdict | None = None
    status: PatchStatus | None = None
    stack: tuple[Stacked, ...] | None = None

    @classmethod
    def open(cls, path: str | os.PathLike[str]) -> Self:
        """Read a module file. Needs neither root nor a kernel with livepatch.

        Args:
            path: The file: plain, or compressed as .xz, .zst or .gz.

        Raises:
            PatchNotFoundError: There is no such file.
            ModuleFileError: It is not a kernel module, or damaged.
            UnsupportedError: It is compressed with zstd, and zstandard is missing.
        """
        image = Image.read(Path(path))
        file = ModuleFile.of(image)
        objects, replace, why = None, None, ""
        with damage(image.path):
            try:
                objects, replace = declared(image)
            except UnreadableError as error:
                why = str(error)
            diff = image.content(_DIFF)
            text = unpacked(diff).decode(errors="replace") if diff else None
            proof = image.content(SECTION)
            verdict = Verdict.unpack(proof) if proof else None
        return cls(
            name=file.name,
            file=file,
            objects=objects,
            unreadable=why,
            replace=replace,
            registered=file.payload,
            cves=cve_names(" ".join(file.values("cve"))),
            diff=text,
            proof=verdict,
        )

    @property
    def description(self) -> str:
        """What it is for, as its author says; "" when that is not known."""
        return self._first("description")

    @property
    def version(self) -> str:
        """Its version, as its author says; "" when that is not known."""
        return self._first("version")

    @property
    def license(self) -> str:
        """Its licence; "" when that is not known."""
        return self._first("license")

    @property
    def authors(self) -> tuple[str, ...]:
        """Who wrote it."""
        return self.file.values("author") if self.file else ()

    @property
    def parameters(self) -> tuple[Parameter, ...]:
        """The parameters that its module takes, by name."""
        if self.file is None:
            return ()
        types, texts = (
            {name: text for name, _, text in (value.partition(":") for value in self.file.values(key))}
            for key in ("parmtype", "parm")
        )
        return tuple(Parameter(name, types.get(name, ""), texts.get(name, "")) for name in sorted(types | texts))

    def _first(self, key: str) -> str:
        return next(iter(self.file.values(key)), "") if self.file else ""


def loaded(status: PatchStatus, others: list[PatchStatus], root: Path, release: str) -> PatchInfo:
    """Gather what is known about a patch that is loaded.

    Args:
        status: The patch.
        others: All patches.
        root: Where /sys, /lib and /var are found.
        release: The kernel's release.
    """
    path = module_file(root, release, status.name)
    cves = cve_parameter(root, status.name)
    order = enabled_order(root / "sys")
    base = PatchInfo.open(path) if path else None
    objects: tuple[Object, ...] | None = status.objects
    unreadable = ""
    if not objects:
        objects, unreadable = (base.objects, base.unreadable) if base else (None, _NO_FILE)
    known = cve_names(cves) if cves else None
    if base and base.cves is not None:
        known = cve_names(" ".join([*base.cves, *(known or ())]))
    return PatchInfo(
        name=status.name,
        file=base.file if base else None,
        objects=objects,
        unreadable=unreadable,
        replace=base.replace if status.replace is None and base else status.replace,
        registered=status.registered,
        cves=known,
        diff=base.diff if base else None,
        proof=base.proof if base else None,
        status=status,
        stack=_stack(status, others, order),
    )


def _stack(status: PatchStatus, others: list[PatchStatus], order: list[str] | None) -> tuple[Stacked, ...] | None:
    if order is None:
        return None
    if status.name not in order:
        return ()
    place = order.index(status.name)
    found = []
    for part in status.objects:
        for func in part.funcs:
            same = {each.name for each in others if _replaces(each, part.name, func.name, func.sympos)}
            below, above = (tuple(n for n in names if n in same) for names in (order[:place], order[place + 1 :]))
            found.append(Stacked(part.name, func.name, below, above))
    return tuple(found)


def _replaces(status: PatchStatus, part: str, func: str, sympos: int) -> bool:
    # sympos 0 is the only one there is: the same as 1.
    return any(
        there.name == part and any(each.name == func and (each.sympos or 1) == (sympos or 1) for each in there.funcs)
        for there in status.objects
    )


def cve_names(text: str) -> tuple[str, ...]:
    """Read CVE names from a list with spaces or commas, without what is none; in their order."""
    words = {word.upper() for word in re.split(r"[\s,;]+", text)}
    return tuple(sorted(filter(_CVE.match, words), key=lambda name: [int(part) for part in name.split("-")[1:]]))


def cve_name(text: str) -> str:
    """Check a CVE name.

    Raises:
        BadDataError: It is none.
    """
    if not _CVE.match(str(text).upper()):
        raise BadDataError(f"{text!r} is not the name of a CVE", remedy="give one as CVE-2026-12345")
    return text.upper()


def module_file(root: Path, release: str, name: str) -> Path | None:
    """Find the file that a loaded module was loaded from, wherever it may be installed.

    It must be the very build that is loaded: its build ID is compared.

    Args:
        root: Where /sys, /lib and /var are found.
        release: The kernel's release.
        name: The module.

    Source: /sys/module/<name>/notes/.note.gnu.build-id (2.6.23), modules.dep.
    """
    try:
        wanted = build_id((root / "sys/module" / name / _NOTE).read_bytes())
    except OSError:
        return None
    for path in _candidates(root, release, name):
        # Whatever is wrong with a file, it is not the one that was loaded.
        with contextlib.suppress(OSError, LivepatchError):
            if wanted and Image.read(path).build_id == wanted:
                return path
    return None


def _candidates(root: Path, release: str, name: str) -> Iterator[Path]:
    for suffix in SUFFIXES:
        yield root / _STORE / release / f"{name}{suffix}"
    modules = root / "lib/modules" / release
    with contextlib.suppress(OSError):
        for line in (modules / "modules.dep").read_text().splitlines():
            path = line.partition(":")[0]
            if module_name(path) == name:
                yield modules / path


def cve_parameter(root: Path, name: str) -> str:
    """Read what a loaded module says that it fixes; "" when it says nothing.

    Source: /sys/module/<name>/parameters/cve, of patches that have it.
    """
    with contextlib.suppress(OSError):
        return (root / "sys/module" / name / "parameters/cve").read_text(errors="replace").strip()
    return ""
