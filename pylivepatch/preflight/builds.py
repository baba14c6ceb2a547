# SPDX-License-Identifier: MIT
"""The preflight's checks of builds: those that are here, and those that a patch was proved against.

Two builds of one source, or of two, have the same names; each has a build id of its own, which the linker made of its
content.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pylivepatch.elf.file import Image, build_id, module_name
from pylivepatch.errors import LivepatchError
from pylivepatch.preflight import Finding
from pylivepatch.preflight.candidate import Candidate, fatal, unchecked, warning

if TYPE_CHECKING:
    from collections.abc import Iterator

_KERNEL = "vmlinux"


def kernel(candidate: Candidate) -> Iterator[Finding]:
    """Compare the kernel that runs.

    Source: /sys/kernel/notes (2.6.23).
    """
    wanted = candidate.proof.build_ids.get(_KERNEL) if candidate.proof else None
    if not wanted:
        return
    try:
        here = build_id((candidate.root / "sys/kernel/notes").read_bytes())
    except OSError as error:
        yield unchecked(_KERNEL, f"/sys/kernel/notes cannot be read: {error.strerror}")
        return
    if here and here != wanted:
        why = f"it was proved against another build of this kernel: {wanted}, and {here} runs"
        yield fatal("build", _KERNEL, why, "build it for the kernel that runs")


def modules(candidate: Candidate) -> Iterator[Finding]:
    """Compare the modules that it patches, as they are loaded, or else as they are installed.

    Source: /sys/module/<name>/notes/.note.gnu.build-id (2.6.23), modules.dep.
    """
    patched = {name for name, _ in candidate.functions}
    for name, wanted in sorted(candidate.proof.build_ids.items() if candidate.proof else ()):
        if name not in patched or name == _KERNEL or not wanted:
            continue
        remedy = "build it against the module that is here"
        if candidate.loaded(name):
            try:
                here = build_id((candidate.root / f"sys/module/{name}/notes/.note.gnu.build-id").read_bytes())
            except OSError:
                yield unchecked(name, "the module that is loaded has no build id, or only root may read it")
                continue
            if here != wanted:
                why = f"it was proved against another build of the module: {wanted}, and {here} is loaded"
                yield fatal("build", name, why, remedy, candidate.stage)
        else:
            here = _installed(candidate, name)
            if here and here != wanted:
                why = f"it was proved against another build of the module: {wanted}, and {here} is installed"
                yield warning("build", name, f"{why}; while the patch is enabled, that cannot be loaded", remedy)


def _installed(candidate: Candidate, name: str) -> str:
    """Return the build id of a module that is installed; "" when that cannot be told."""
    folder = f"lib/modules/{candidate.release}"
    paths = [line.partition(":")[0] for line in (candidate.text(f"{folder}/modules.dep") or "").splitlines()]
    path = next((path for path in paths if module_name(path) == name), None)
    try:
        return Image.read(candidate.root / folder / path).build_id if path else ""
    except LivepatchError:
        return ""
