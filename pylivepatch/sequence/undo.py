# SPDX-License-Identifier: MIT
"""Brings patches back to where they were before a step."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from pylivepatch.errors import PatchNotFoundError, UnsupportedError
from pylivepatch.kernel import changes
from pylivepatch.kernel.changes import Options
from pylivepatch.state import PatchState

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pylivepatch._flow import Flow
    from pylivepatch.kernel import Kernel
    from pylivepatch.sequence.step import Step
    from pylivepatch.state import PatchStatus

_UNDO = 30.0
# Interrupted, an undo goes on in the kernel: reversing it would do what it undoes.
_OPTIONS = Options(_UNDO, ours=False)


def status_of(kernel: Kernel, name: str) -> PatchStatus | None:
    """Read a patch; None when there is none of that name."""
    with contextlib.suppress(PatchNotFoundError):
        return kernel.backend.patch(name)
    return None


def restore(kernel: Kernel, name: str, step: Step, before: Mapping[str, PatchState]) -> Flow[None]:
    """Bring the patch of a step back to where it was, and what it replaced.

    Args:
        kernel: The livepatch core.
        name: The patch.
        step: The step that changed it.
        before: The states of all patches before that.
    """
    status = status_of(kernel, name)
    if status is not None:
        yield from _restore_state(kernel, status, step, enabled=before.get(name) is PatchState.ENABLED)
    for other, state in before.items():
        now = status_of(kernel, other) if state is PatchState.ENABLED and other != name else None
        if now is not None and now.state is PatchState.REPLACED:
            yield from _restore_state(kernel, now, None, enabled=True)
    if name not in before:
        yield from changes.unload(kernel, name, if_needed=True)


def _restore_state(kernel: Kernel, status: PatchStatus, step: Step | None, *, enabled: bool) -> Flow[None]:
    state = status.state
    if state is (PatchState.ENABLING if enabled else PatchState.DISABLING):
        course = changes.follow(kernel, status)
        if course is not None:
            elapsed = status.progress.elapsed if status.progress is not None else 0.0
            course.within(elapsed + _UNDO, "report")
            yield from course.step()
    elif not enabled and state in (PatchState.ENABLED, PatchState.ENABLING):
        yield from changes.revert(kernel, status.name, _OPTIONS)
    elif enabled and state is not PatchState.ENABLED:
        try:
            yield from changes.enable(kernel, status.name, _OPTIONS)
        except UnsupportedError:
            if step is None or step.file is None:
                raise
            yield from changes.unload(kernel, status.name)
            yield from changes.load(kernel, step.file, step.params, _OPTIONS, if_needed=False)
