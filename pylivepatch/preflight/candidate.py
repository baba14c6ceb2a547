# SPDX-License-Identifier: MIT
"""What the preflight checks look at: a module file, and the kernel that it is meant for."""

from __future__ import annotations

import dataclasses
import functools
import platform
from pathlib import Path
from typing import TYPE_CHECKING

from pylivepatch.elf.file import Image, damage
from pylivepatch.module import ModuleFile
from pylivepatch.module.declared import Declared, UnreadableError, declared
from pylivepatch.module.verdict import SECTION, Verdict
from pylivepatch.preflight import Finding, Severity, Stage
from pylivepatch.state import PatchState

if TYPE_CHECKING:
    import os
    from collections.abc import Mapping

    from pylivepatch.kernel import BackendName, Kernel
    from pylivepatch.state import Features, PatchStatus

ROOT = "run it as root"


@dataclasses.dataclass(frozen=True)
class Candidate:
    """A module that may be loaded."""

    image: Image
    params: Mapping[str, str | int | bool]
    root: Path
    release: str
    machine: str
    backend: BackendName
    features: Features
    patches: list[PatchStatus]

    @functools.cached_property
    def file(self) -> ModuleFile:
        """What the file says about itself."""
        return ModuleFile.of(self.image)

    @functools.cached_property
    def proof(self) -> Verdict | None:
        """What was proved of it, as the file says; None when it does not."""
        content = self.image.content(SECTION)
        with damage(self.image.path):
            return Verdict.unpack(content) if content else None

    @property
    def name(self) -> str:
        """The patch's name."""
        return self.file.name

    @functools.cached_property
    def declared(self) -> Declared | str:
        """What it replaces, or why that cannot be read."""
        try:
            with damage(self.image.path):
                try:
                    return declared(self.image)
                except UnreadableError as error:
                    return str(error)
        except ValueError as error:
            return str(error)

    @property
    def functions(self) -> dict[tuple[str, str], list[int]]:
        """The sympos of each function that it replaces, by object and name."""
        found: dict[tuple[str, str], list[int]] = {}
        if isinstance(self.declared, Declared):
            for part in self.declared.objects:
                for func in part.funcs:
                    found.setdefault((part.name, func.name), []).append(func.sympos)
        return found

    @property
    def stage(self) -> Stage:
        """When its functions are replaced."""
        return Stage.ENABLE if self.file.payload else Stage.LOAD

    def patched_by(self, part: str, func: str) -> list[str]:
        """Name the patches that replace a function now."""
        return [
            status.name
            for status in self.patches
            if status.state not in (PatchState.REGISTERED, PatchState.DISABLED, PatchState.REPLACED)
            and any(there.name == part and any(each.name == func for each in there.funcs) for there in status.objects)
        ]

    def loaded(self, module: str) -> bool:
        """Whether a module is loaded, or is the kernel image itself."""
        return module == "vmlinux" or (self.root / "sys/module" / module / "initstate").exists()

    def text(self, path: str) -> str | None:
        """Read a file of the kernel; None when it is not there, or not for the caller."""
        try:
            return (self.root / path).read_text(errors="replace").strip()
        except OSError:
            return None


def read(
    path: str | os.PathLike[str], params: Mapping[str, str | int | bool], kernel: Kernel, opened: int | None = None
) -> Candidate:
    """Read a module file that may be loaded into a kernel.

    Args:
        path: The file.
        params: Module parameters.
        kernel: The kernel.
        opened: A descriptor of the file, to be read in its place.

    Raises:
        PatchNotFoundError: There is no such file.
        ModuleFileError: It is not a kernel module, or damaged.
    """
    return Candidate(
        image=Image.read(Path(path), opened),
        params=params,
        root=kernel.root,
        release=kernel.release,
        machine=platform.machine(),
        backend=kernel.backend.name,
        features=kernel.backend.features(),
        patches=kernel.backend.patches(),
    )


def fatal(code: str, subject: str, message: str, remedy: str, stage: Stage = Stage.LOAD) -> Finding:
    """Make a fatal finding."""
    return Finding(code, Severity.FATAL, subject, message, remedy, stage)


def warning(code: str, subject: str, message: str, remedy: str = "") -> Finding:
    """Make a warning."""
    return Finding(code, Severity.WARNING, subject, message, remedy)


def info(code: str, subject: str, message: str, remedy: str = "") -> Finding:
    """Make an information."""
    return Finding(code, Severity.INFO, subject, message, remedy)


def unchecked(subject: str, why: str, remedy: str = "") -> Finding:
    """Say what could not be checked."""
    return info("not-checked", subject, f"not checked: {why}", remedy)
