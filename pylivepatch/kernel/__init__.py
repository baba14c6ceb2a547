# SPDX-License-Identifier: MIT
"""How the kernel is reached. Here: what `Core`, `Patch` and `Transition` need of it.

Private: what users call is in `pylivepatch` itself.

* `klpctl`, `sysfs`: the two backends. `netlink`, `wire`: the socket and the messages of klpctl.
* `modules`, `names`: loading and removing modules; how names and parameters are spelled.
* `refusal`, `log`: error numbers as exceptions, and the kernel log's words for them.
* `symbols`, `probes`: what the running kernel's symbol table and memory, kprobes and ftrace tell.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Literal, Protocol, Self

if TYPE_CHECKING:
    from collections.abc import Callable

    from pylivepatch.state import Blocker, Features, PatchStatus, Task

__all__ = ["Backend", "BackendName", "PollingWatch", "Watch", "wait_by"]

BackendName = Literal["klpctl", "sysfs"]

_FIRST_PAUSE = 0.005
_LONGEST_PAUSE = 0.1


class Watch(Protocol):
    """Wakes when something may have changed."""

    def __enter__(self) -> Self: ...

    def __exit__(self, *exc: object) -> None: ...

    def wait(self, timeout: float) -> None:
        """Wait for a change, at most `timeout` seconds; may wake for nothing."""


class Backend(Protocol):
    """One way to the livepatch core. Names are spelled as the kernel spells them."""

    @property
    def name(self) -> BackendName:
        """The backend's name."""

    def features(self) -> Features:
        """Say what is there and what is missing."""

    def patches(self) -> list[PatchStatus]:
        """Read all patches."""

    def patch(self, name: str) -> PatchStatus:
        """Read one patch; `PatchNotFoundError` when there is none."""

    def enable(
        self, name: str, confirm_within: float | None = None, owned: bool = False, deadline: float | None = None
    ) -> None:
        """Start enabling, or turn a patch that is being disabled round.

        Args:
            name: The patch.
            confirm_within: Seconds in which `confirm` must come, from now; infinite
                with *owned*; None: it need not come.
            owned: The kernel reverts the patch when this backend is closed before.
            deadline: Seconds in which its transition must end, from now, or the kernel
                reverses it; where only the kernel core is there, nobody does.
        """

    def confirm(self, name: str) -> None:
        """Let an enabled patch stay."""

    def revert(self, name: str) -> None:
        """Start disabling, or turn a patch that is being enabled round."""

    def force(self, name: str) -> None:
        """End the transition without waiting for its tasks."""

    def tasks(self) -> list[Task]:
        """Read the tasks of the running transition; none without one."""

    def blockers(self) -> list[Blocker]:
        """Read the pending tasks of the running transition, with reasons and stacks."""

    def task_count(self) -> int:
        """Count all tasks of the system."""

    def watch(self) -> Watch:
        """Watch for changes, from now on."""

    def wait(self, name: str, timeout: float | None) -> PatchStatus | None:
        """Wait until the patch is not in transition; None when time is over first.

        Returns:
            The patch then; one that is gone is disabled.
        """

    def close(self) -> None:
        """Let go of the kernel."""


class PollingWatch:
    """Wakes after pauses that double, from 5 to 100 ms."""

    def __init__(self) -> None:
        self._pause = _FIRST_PAUSE

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        """Nothing is held."""

    def wait(self, timeout: float) -> None:
        """Sleep for the next pause, at most `timeout` seconds."""
        time.sleep(min(self._pause, max(timeout, 0.0)))
        self._pause = min(2 * self._pause, _LONGEST_PAUSE)


def wait_by(watch: Watch, read: Callable[[], PatchStatus], timeout: float | None) -> PatchStatus | None:
    """Wait on a watch until a patch is not in transition.

    Args:
        watch: What wakes.
        read: Reads the patch, cheaply.
        timeout: Seconds, or None for ever.

    Returns:
        The patch, or None when time is over first.
    """
    end = None if timeout is None else time.monotonic() + timeout
    with watch:
        while True:
            status = read()
            if not status.state.in_transition:
                return status
            left = _LONGEST_PAUSE if end is None else end - time.monotonic()
            if left <= 0:
                return None
            watch.wait(min(left, _LONGEST_PAUSE))
