# SPDX-License-Identifier: MIT
"""The preflight's checks of a module, its patch, and the state the kernel is in."""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING

from pylivepatch.elf.file import build_id, module_name
from pylivepatch.errors import (
    AccessError,
    AlreadyError,
    BadDataError,
    KernelError,
    LivepatchError,
    ModuleFileError,
    PatchRejectedError,
    PatchStateError,
    TransitionBusyError,
    UnsupportedError,
)
from pylivepatch.module import UNKNOWN_REMEDY, mismatches, unknown_params
from pylivepatch.preflight import Finding, Severity, Stage, builds, functions, symbols
from pylivepatch.preflight.candidate import Candidate, fatal, unchecked, warning
from pylivepatch.state import PatchState

if TYPE_CHECKING:
    from collections.abc import Iterator

NOTHING = "nothing has changed"
_BUSY = "try again when it has ended"
_ORDER = list(Severity)

# What a fatal finding is when the kernel says it. A file's own faults are ModuleFileError.
_RAISED: dict[str, tuple[type[KernelError], int]] = {
    "loaded": (PatchStateError, errno.EEXIST),
    "applied": (AlreadyError, errno.EEXIST),
    "transition": (TransitionBusyError, errno.EBUSY),
    "owner": (PatchRejectedError, errno.EBUSY),
    "build": (PatchRejectedError, errno.ENOEXEC),
    "bypassed": (PatchRejectedError, errno.EINVAL),
    "signature": (PatchRejectedError, errno.EKEYREJECTED),
    "lockdown": (AccessError, errno.EPERM),
    "modules-disabled": (AccessError, errno.EPERM),
}


def find(candidate: Candidate) -> list[Finding]:
    """Find all that stands in the way of a patch, or is worth knowing; the worst comes first.

    Raises:
        ModuleFileError: The file is damaged.
    """
    found = [*_file(candidate), *_system(candidate), *_patch(candidate)]
    found += [*functions.look(candidate), *functions.bypassed(candidate), *functions.owners(candidate)]
    found += symbols.look(candidate)
    return sorted(found, key=lambda finding: _ORDER.index(finding.severity))


def refuse(candidate: Candidate) -> None:
    """Refuse what cannot be loaded, as far as that can be told quickly.

    What needs the kernel's symbol table is left to the kernel, which looks at it
    itself before it changes anything.

    Raises:
        LivepatchError: As the kernel would refuse it, with the finding's words.
    """
    found = [*_file(candidate), *_system(candidate), *_patch(candidate), *functions.bypassed(candidate)]
    if candidate.stage is Stage.LOAD and not _is_fatal(found):
        found += functions.owners(candidate)
    for finding in found:
        if finding.severity is Severity.FATAL and finding.stage is Stage.LOAD:
            raise _error(candidate, finding)


def _is_fatal(found: list[Finding]) -> bool:
    return any(finding.severity is Severity.FATAL for finding in found)


def _error(candidate: Candidate, finding: Finding) -> LivepatchError:
    path = str(candidate.image.path)
    message = f"cannot load {candidate.name}: {finding.message}"
    if finding.code == "klpctl":
        return UnsupportedError(message, feature="registered", remedy=finding.remedy)
    if finding.code == "parameter":
        return BadDataError(f"parameter {finding.subject}: {finding.message}", after=NOTHING, remedy=finding.remedy)
    if finding.code not in _RAISED:
        return ModuleFileError(finding.message, filename=path, remedy=finding.remedy)
    kind, number = _RAISED[finding.code]
    error = kind(message, errno=number, filename=path, after=NOTHING, remedy=finding.remedy)
    if isinstance(error, TransitionBusyError):
        error.patch = finding.subject
    return error


# ---- the file ----


def _file(candidate: Candidate) -> Iterator[Finding]:
    for code, why, remedy in mismatches(candidate.file, candidate.release, candidate.machine):
        yield fatal(code, candidate.file.path.name, why, remedy)
    for name, why in unknown_params(candidate.file, candidate.params).items():
        yield fatal("parameter", name, why, UNKNOWN_REMEDY)


# ---- the system ----


def _system(candidate: Candidate) -> Iterator[Finding]:
    if candidate.text("proc/sys/kernel/modules_disabled") == "1":
        yield fatal(
            "modules-disabled",
            "/proc/sys/kernel/modules_disabled",
            "loading modules was switched off until the next boot",
            "reboot, and load it before that is done",
        )
    if candidate.text("proc/sys/kernel/ftrace_enabled") == "0":
        yield fatal(
            "ftrace",
            "/proc/sys/kernel/ftrace_enabled",
            "ftrace is switched off, and functions cannot be patched",
            "switch it on: sysctl kernel.ftrace_enabled=1",
            Stage.ENABLE,
        )
    yield from _signature(candidate)
    yield from _depends(candidate)
    yield from builds.kernel(candidate)
    if candidate.file.payload and candidate.backend != "klpctl":
        yield fatal(
            "klpctl", "klpctl", "it registers with klpctl, which is not used", "install klpctl and load it as root"
        )


def _signature(candidate: Candidate) -> Iterator[Finding]:
    lockdown = candidate.text("sys/kernel/security/lockdown")
    enforced = candidate.text("sys/module/module/parameters/sig_enforce")
    if lockdown is None:
        yield unchecked("lockdown", "/sys/kernel/security/lockdown cannot be read")
    locked = lockdown is not None and "[none]" not in lockdown
    if candidate.file.signed:
        if locked or enforced == "Y":
            yield unchecked("signature", "only the kernel can verify it, when the module is loaded")
        return
    sign = "sign it with a key that the kernel trusts"
    if enforced == "Y":
        yield fatal(
            "signature",
            "/sys/module/module/parameters/sig_enforce",
            "it is not signed, and this kernel loads signed modules only",
            sign,
        )
    elif locked:
        yield fatal(
            "lockdown", "/sys/kernel/security/lockdown", "it is not signed, and the kernel is locked down", sign
        )


def _depends(candidate: Candidate) -> Iterator[Finding]:
    installed = candidate.text(f"lib/modules/{candidate.release}/modules.dep")
    for name in candidate.file.depends:
        if candidate.loaded(name):
            continue
        if installed is None:
            yield unchecked(name, "it is needed, not loaded, and there is no modules.dep to find it by")
        elif name not in {module_name(line.partition(":")[0]) for line in installed.splitlines()}:
            yield warning("depends", name, "it is needed, and neither loaded nor installed", "install that module")


# ---- the patch ----


def _patch(candidate: Candidate) -> Iterator[Finding]:
    yield from _loaded(candidate)
    yield from builds.modules(candidate)
    running = next((status for status in candidate.patches if status.progress), None)
    if running is not None:
        yield fatal(
            "transition",
            running.name,
            f"patch {running.name} is in transition, and there can be one at a time",
            _BUSY,
            candidate.stage,
        )


def _loaded(candidate: Candidate) -> Iterator[Finding]:
    module = candidate.root / "sys/module" / candidate.name
    if not module.exists():
        return
    status = next((each for each in candidate.patches if each.name == candidate.name), None)
    message, remedy = "a module of that name is loaded already", "enable it, or unload it first"
    if status is None:
        yield fatal("loaded", candidate.name, f"{message}; it is not a live patch", "rename the patch")
        return
    try:
        same = build_id((module / "notes/.note.gnu.build-id").read_bytes()) == candidate.file.build_id != ""
    except OSError:
        same = False
    build = "it is this very build" if same else "it is another build, or it cannot be told which"
    if same and (status.state is PatchState.ENABLED or status.registered):
        why = f"this very patch is loaded already, and it is {status.state}"
        enabled = status.state is PatchState.ENABLED
        yield fatal("applied", candidate.name, why, "nothing has to be done" if enabled else "enable it")
    else:
        yield fatal("loaded", candidate.name, f"{message}, and it is {status.state}; {build}", remedy)
