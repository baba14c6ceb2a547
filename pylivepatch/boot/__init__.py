# SPDX-License-Identifier: MIT
"""Applying the installed patches at boot, with a kill switch and a memory of crashes.

* `store`: what is installed. `marker`: which patches are on trial, so that a crash is remembered.
* `system`: the systemd unit, the udev rule and the hooks. `files`: files that survive a crash.
"""

from __future__ import annotations

import dataclasses
import enum
from typing import TYPE_CHECKING, Literal, Self

from pylivepatch.boot.store import Installed, Store, crash_marker
from pylivepatch.core import Core
from pylivepatch.errors import LivepatchError, TransitionReversedError, TransitionTimeoutError
from pylivepatch.state import PatchState, Target

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pylivepatch.boot.marker import CrashMarker

__all__ = ["Boot", "BootOutcome", "BootStep"]

_KILL_SWITCH = "pylivepatch.enable=0"
_TIMEOUT = 30.0


class BootOutcome(enum.StrEnum):
    """What became of an installed patch."""

    APPLIED = "applied"
    """It is enabled now."""
    ALREADY = "already"
    """It was enabled before, or another patch has replaced it. It is left alone."""
    CRASHED = "crashed"
    """The machine crashed after it. It was not applied."""
    FAILED = "failed"
    """It was refused, or reversed at its deadline."""


@dataclasses.dataclass(frozen=True, slots=True)
class BootStep:
    """An installed patch, and what became of it.

    Attributes:
        patch: The patch.
        outcome: What became of it.
        error: Why it failed; None otherwise.
    """

    patch: Installed
    outcome: BootOutcome
    error: LivepatchError | None = None


class Boot:
    """Applies the installed patches of the running kernel, in order; use it in a ``with`` statement.

    Before a patch is applied, it is written down in the store as being on trial, with
    the boot_id of this boot. The end of the ``with`` block ends the trial, however
    it is left. A machine that crashes before that, or loses power, boots with the
    patch still on trial: it is marked as crashed, and not applied again until it
    is installed again. So stay in the block for as long as a crash is to count
    against the patches, and leave it when the system goes down in an orderly way.

    When several patches were on trial, all of them are marked: which one it was
    cannot be known.

    Args:
        store: The installed patches; those of this machine by default.
        backend: As for `Core`.

    Source: /proc/sys/kernel/random/boot_id, /proc/cmdline.
    """

    def __init__(
        self, store: Store | None = None, *, backend: Literal["auto", "klpctl", "sysfs"] = "auto"
    ) -> None:
        self.store: Store = store or Store()
        self._backend: Literal["auto", "klpctl", "sysfs"] = backend
        self._core: Core | None = None
        self._marker: CrashMarker | None = None

    def __repr__(self) -> str:
        return f"<Boot of kernel {self.store.release}>"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        core, self._core = self._core, None
        if core is not None:
            core.close()
        if self._marker is not None:
            self._marker.end()

    @property
    def killed(self) -> bool:
        """Whether ``pylivepatch.enable=0`` is on the kernel's command line.

        Source: /proc/cmdline.
        """
        return _KILL_SWITCH in (self.store.root / "proc/cmdline").read_text().split()

    @property
    def on_trial(self) -> tuple[str, ...]:
        """Names of the patches that a crash would now be remembered of."""
        return self._marker.names if self._marker is not None else ()

    def apply(self) -> Iterator[BootStep]:
        """Apply the patches one by one, each with a deadline of 30 s and a reversal at its end.

        Nothing is applied when the kill switch is there. A patch that fails does
        not keep the others from being applied. The trial of one that the kernel
        refused ends at once, since it changed nothing. An exception that is thrown
        into a step, Ctrl-C included, reverses its transition.

        Yields:
            Each patch with what became of it.

        Raises:
            AccessError: The caller is not root. Nothing was applied.
            KernelError: The crash memory cannot be written. Nothing more is applied.
            UnsupportedError: The kernel has no livepatch core. Nothing was applied.
            BadDataError: The store's own files are damaged. Nothing was applied.
        """
        if self.killed:
            return
        for installed in self.store.remember_crashes():
            if installed.crashed:
                yield BootStep(installed, BootOutcome.CRASHED)
                continue
            if self._marker is None:
                self._marker = crash_marker(self.store)
            known = installed.name in self._marker.names
            self._marker.begin(installed.name)
            if self._core is None:
                # Not before the marker is there: klpctl is loaded by that, and may crash as well.
                self._core = Core(self._backend, root=self.store.root)
            try:
                outcome = _apply(self._core, installed)
            except (TransitionTimeoutError, TransitionReversedError) as error:
                yield BootStep(installed, BootOutcome.FAILED, error)
            except LivepatchError as error:
                self._marker.drop(installed.name)
                yield BootStep(installed, BootOutcome.FAILED, error)
            else:
                if outcome is BootOutcome.ALREADY and not known:
                    self._marker.drop(installed.name)
                yield BootStep(installed, outcome)


def _apply(core: Core, installed: Installed) -> BootOutcome:
    patch = core.get(installed.name)
    if patch is not None:
        if patch.state in (PatchState.ENABLED, PatchState.REPLACED):
            return BootOutcome.ALREADY
        transition = patch.transition
        if transition is not None and transition.target is Target.PATCHED:
            # Somebody began, and ended before it did.
            with transition.within(_TIMEOUT):
                return BootOutcome.APPLIED
    # Parameters are for a module that is loaded.
    params = {} if patch is not None and patch.registered else installed.params
    core.apply(installed.path, params=params, timeout=_TIMEOUT)
    return BootOutcome.APPLIED
