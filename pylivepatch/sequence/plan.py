# SPDX-License-Identifier: MIT
"""What a sequence would do, and what would stop it, as far as that can be told beforehand."""

from __future__ import annotations

import errno
import platform
from typing import TYPE_CHECKING

from pylivepatch.errors import LivepatchError, PatchNotFoundError, PatchStateError, UnsupportedError
from pylivepatch.kernel.names import patch_name
from pylivepatch.module import ModuleFile
from pylivepatch.sequence.step import NOTHING, PlannedStep
from pylivepatch.state import PatchState

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from pylivepatch.kernel import Kernel
    from pylivepatch.preflight import Finding
    from pylivepatch.sequence.step import Step


class _Simulated:
    """The patches as they would be after the steps so far."""

    def __init__(self, kernel: Kernel) -> None:
        status = kernel.backend.patches()
        self.enabled = {each.name for each in status if each.state in (PatchState.ENABLED, PatchState.ENABLING)}
        self.registered = {each.name: each.registered for each in status}


def rehearse(kernel: Kernel, steps: Iterable[tuple[int, Step]], preflight: bool) -> Iterator[PlannedStep]:
    """Go through the steps without doing them.

    Args:
        kernel: The livepatch core.
        steps: The steps, with their numbers.
        preflight: Whether to have the preflight look at files that would be loaded.

    Yields:
        What each step would do, and what would stop it.
    """
    simulated = _Simulated(kernel)
    for number, step in steps:
        name = "" if step.name is None else patch_name(step.name)
        actions: tuple[str, ...] = ()
        findings: tuple[Finding, ...] = ()
        error = None
        try:
            file = None if step.file is None else ModuleFile.open(step.file)
            name = name if file is None else patch_name(file.name)
            actions = _actions(kernel, step, name, file, simulated)
            if preflight and file is not None and "load" in actions:
                from pylivepatch.preflight import candidate, checks

                findings = tuple(checks.find(candidate.read(file.path, step.params, kernel)))
        except LivepatchError as found:
            error = found
        yield PlannedStep(number, step, name, actions, error, findings)


def _actions(kernel: Kernel, step: Step, name: str, file: ModuleFile | None, now: _Simulated) -> tuple[str, ...]:
    if name not in now.registered and file is None:
        raise PatchNotFoundError(f"there is no patch {name}", after=NOTHING, remedy="load it first, or name its file")
    check = ("check",) if step.check is not None else ()
    if step.action == "revert":
        return (*_revert(name, file, now), *check)
    if name in now.enabled:
        return check
    _confirmable(kernel, step, name, now.registered.get(name, file is not None and file.payload))
    now.enabled.add(name)
    if file is None or now.registered.get(name):
        if step.params:
            raise PatchStateError(
                f"{name} is loaded already, and cannot be given parameters any more",
                errno=errno.EEXIST,
                after=NOTHING,
                remedy="unload it first, or leave the parameters out",
            )
        return ("enable", *check)
    file.check(kernel.release, platform.machine())
    if file.payload and kernel.name != "klpctl":
        kernel.backend.features().require("registered")
    loaded = ("unload",) if name in now.registered else ()
    now.registered[name] = file.payload
    return (*loaded, "load", "enable", *check)


def _confirmable(kernel: Kernel, step: Step, name: str, registered: bool) -> None:
    if step.confirm_within is not None and not (registered and kernel.name == "klpctl"):
        raise UnsupportedError(
            f"the kernel would not revert {name} if nobody confirms it: that needs klpctl, and a patch that "
            "registers with it",
            feature="confirm",
            remedy="leave confirm_within out",
        )


def _revert(name: str, file: ModuleFile | None, now: _Simulated) -> tuple[str, ...]:
    if name not in now.enabled:
        return ()
    if file is None and not now.registered[name]:
        raise UnsupportedError(
            f"the revert of {name} could not be undone: it is a standalone patch",
            feature="enable",
            remedy="give its file in place of its name",
        )
    now.enabled.discard(name)
    return ("revert",)
