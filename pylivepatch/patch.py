# SPDX-License-Identifier: MIT
"""Patches: what is loaded into the kernel and can be enabled and reverted."""

from __future__ import annotations

import contextlib
import errno
import functools
import time
from typing import TYPE_CHECKING

from pylivepatch.errors import (
    BadDataError,
    PatchStateError,
    TransitionBusyError,
    UnsupportedError,
)
from pylivepatch.kernel import modules
from pylivepatch.kernel.log import explained
from pylivepatch.kernel.names import confirm_seconds, timeout_seconds
from pylivepatch.state import Object, PatchState, PatchStatus, Target
from pylivepatch.transition import OnTimeout, Transition

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from pylivepatch.kernel import Backend

__all__ = ["Patch"]

_PAUSE = 0.005
_GRACE = 5.0


class Patch:
    """A patch by its name, had from `Core`. Each property asks the kernel anew.

    Attributes:
        name: Name of the patch, which is its module's name.
    """

    def __init__(
        self,
        name: str,
        backend: Backend,
        sysfs: Path,
        reload: Callable[[], object] | None = None,
    ) -> None:
        self.name = name
        self._backend = backend
        self._sysfs = sysfs
        self._reload = reload
        # Seconds that the kernel has to let go of the module.
        self._patience = modules.LAST_REFERENCE

    def __repr__(self) -> str:
        return f"<Patch {self.name}>"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Patch) and self.name == other.name

    def __hash__(self) -> int:
        return hash(self.name)

    def status(self) -> PatchStatus:
        """Read everything about the patch at once.

        Raises:
            PatchNotFoundError: It is gone.

        Source: klpctl, KLPCTL_CMD_PATCH_GET; or /sys/kernel/livepatch/<patch> (4.0).
        """
        return self._backend.patch(self.name)

    @property
    def state(self) -> PatchState:
        """Where it stands now."""
        return self.status().state

    @property
    def registered(self) -> bool:
        """Registered with klpctl; otherwise an ordinary live patch module."""
        return self.status().registered

    @property
    def replace(self) -> bool | None:
        """Whether it replaces all patches before it; None when that cannot be told."""
        return self.status().replace

    @property
    def objects(self) -> tuple[Object, ...]:
        """What it changes: objects, and the functions in them."""
        return self.status().objects

    @property
    def transition(self) -> Transition | None:
        """Its running transition, whoever started it, without a deadline; or None."""
        status = self.status()
        if status.progress is None or not status.state.in_transition:
            return None
        started = time.monotonic() if status.started is None else status.started
        target = status.progress.target
        return Transition(self, self._backend, target, started, None, "reverse")

    def enable(
        self,
        timeout: float | None = 30.0,
        *,
        on_timeout: OnTimeout = "reverse",
        wait: bool = True,
        confirm_within: float | None = None,
        owned: bool = True,
    ) -> Transition:
        """Switch all tasks to the new code.

        The bare call returns when that is done: nobody has to remember to wait,
        and the deadline always has somebody to enforce it. With ``wait=False``
        it returns when the transition has started, and the transition is followed
        by iterating, in a ``with`` block, or by `Transition.wait`, where the
        deadline is enforced then. Ctrl-C, and whatever else ends the wait of the bare
        call, turns the transition round.

        A patch that is being disabled is turned round.

        A caller that is killed leaves no transition without a deadline: with klpctl,
        and *on_timeout* "reverse", the kernel itself reverses it 5 s later.

        With *confirm_within* the kernel takes the patch back by itself unless
        `confirm` comes in time, whatever becomes of the caller: in mid-transition,
        too, and at once when *owned* and the caller ends, or closes its `Core`.

        Args:
            timeout: Seconds until the deadline; None waits for ever.
            on_timeout: "reverse" turns the transition round at the deadline;
                "report" leaves it going.
            wait: Whether to wait for the end.
            confirm_within: Seconds from now in which it must be confirmed; infinite,
                with *owned*, for as long as the caller lives; None: it need not be.
            owned: With *confirm_within*: the end of the caller reverts it, too.

        Returns:
            The transition, finished if it was waited for.

        Raises:
            PatchStateError: It is already enabled. Nothing has changed.
            TransitionBusyError: Another patch is in transition. Nothing has changed.
            PatchRejectedError: The livepatch core, or a pre-patch callback,
                refused it. The kernel is as it was before.
            SymbolError: As above, because of a function's name.
            UnsupportedError: It must be loaded anew for that: an ordinary live
                patch module that was disabled. Nothing has changed.
            AccessError: The caller is not root. Nothing has changed.
            PatchNotFoundError: It is gone.
            TransitionTimeoutError: The deadline passed. The patch is not enabled
                ("reverse"), or still being enabled ("report").
            TransitionReversedError: Somebody else turned it round. The patch is
                not enabled.

        Source: klp_enable_patch(); klpctl, KLPCTL_IOC_ENABLE.
        """
        window = confirm_seconds(confirm_within, owned=owned)
        deadline = None
        if timeout is not None and on_timeout == "reverse":
            deadline = timeout_seconds(timeout)
        start = functools.partial(self._enable, confirm_within=window, owned=owned, deadline=deadline)
        return self._change(start, Target.PATCHED, timeout, on_timeout, wait)

    def confirm(self) -> None:
        """Let it stay: it was enabled with *confirm_within*, by whomever.

        Raises:
            PatchStateError: It awaits no confirmation: it never did, was confirmed,
                or is being taken back. Nothing has changed.
            TransitionBusyError: Its own transition has not ended. Nothing has changed.
            UnsupportedError: klpctl is not used.
            AccessError: The caller is not root. Nothing has changed.
            PatchNotFoundError: It is gone.

        Source: klpctl, KLPCTL_IOC_CONFIRM.
        """
        self._backend.confirm(self.name)

    def revert(
        self, timeout: float | None = 30.0, *, on_timeout: OnTimeout = "reverse", wait: bool = True
    ) -> Transition:
        """Switch all tasks back to the old code.

        Waits as `enable` does, and its deadline is enforced alike: a reversed
        revert leaves the patch enabled. A patch that is being enabled is turned
        round. An ordinary live patch module is gone from the list of patches
        afterwards when klpctl is not used, though its module stays loaded.

        Args:
            timeout: Seconds until the deadline; None waits for ever.
            on_timeout: "reverse" turns the transition round at the deadline;
                "report" leaves it going.
            wait: Whether to wait for the end.

        Returns:
            The transition, finished if it was waited for.

        Raises:
            PatchStateError: It is not enabled. Nothing has changed.
            TransitionBusyError: Another patch is in transition. Nothing has changed.
            PatchRejectedError: The livepatch core refused it. Nothing has changed.
            AccessError: The caller is not root. Nothing has changed.
            PatchNotFoundError: It is gone.
            TransitionTimeoutError: The deadline passed. The patch is still
                enabled ("reverse"), or being disabled ("report").
            TransitionReversedError: Somebody else turned it round. The patch is
                enabled.

        Source: klpctl, KLPCTL_IOC_REVERT; or
        /sys/kernel/livepatch/<patch>/enabled (4.0).
        """
        return self._change(self._backend.revert, Target.UNPATCHED, timeout, on_timeout, wait)

    def unload(self) -> None:
        """Remove its module, waiting up to 2 s for the kernel to let go of it.

        Raises:
            PatchStateError: It is enabled, in transition, was forced, or its
                module is in use. It stays loaded.
            AccessError: The caller is not root. It stays loaded.
            PatchNotFoundError: It is gone.

        Source: delete_module(2), never forced.
        """
        status = self.status()
        why = remedy = ""
        if status.state.in_transition:
            why, remedy = f"it is {status.state}", "wait for the end of its transition"
        elif status.state is PatchState.ENABLED:
            why, remedy = "it is enabled", "revert it first"
        elif status.forced:
            why, remedy = "tasks were forced to leave its code", "it can go with a reboot only"
        if why:
            raise PatchStateError(
                f"cannot unload {self.name}: {why}",
                errno=errno.EBUSY,
                after="nothing has changed",
                remedy=remedy,
            )
        modules.remove(self.name, self._sysfs, self._patience)

    def force(self, *, accept_risk: bool) -> None:
        """End its transition without waiting for its tasks. May crash the kernel.

        Tasks that run old code go on with it while others run the new: the
        consistency model is broken, and a module whose code is left so can never be unloaded. Prefer
        `Transition.reverse`.

        Args:
            accept_risk: Must be True: the caller knows that.

        Raises:
            BadDataError: The risk is not accepted. Nothing has changed.
            PatchStateError: It is not in transition. Nothing has changed.
            AccessError: The caller is not root. Nothing has changed.
            PatchNotFoundError: It is gone.

        Source: klp_force_transition(); klpctl, KLPCTL_IOC_FORCE; or
        /sys/kernel/livepatch/<patch>/force (4.15).
        """
        if accept_risk is not True:
            raise BadDataError(
                f"cannot force {self.name}: the risk is not accepted",
                after="nothing has changed",
                remedy="reverse its transition instead, or pass accept_risk=True",
            )
        self._backend.force(self.name)

    def _change(
        self,
        start: Callable[[str], None],
        target: Target,
        timeout: float | None,
        on_timeout: OnTimeout,
        wait: bool,
    ) -> Transition:
        timeout = timeout_seconds(timeout)
        end = time.monotonic() + self._patience
        while True:
            started = time.monotonic()
            transition = Transition(self, self._backend, target, started, timeout, on_timeout)
            try:
                with explained(self.name):
                    start(self.name)
                break
            except TransitionBusyError as error:
                # No patch is named: the kernel is about to let go of the module.
                if error.patch is not None or started >= end:
                    raise
                time.sleep(_PAUSE)
        with transition if wait else contextlib.nullcontext():
            transition.progress()
        return transition

    def _enable(self, name: str, *, confirm_within: float | None, owned: bool, deadline: float | None) -> None:
        # Whoever waits reverses it first; the kernel does when nobody is there any more.
        last = None if deadline is None else deadline + _GRACE
        try:
            self._backend.enable(name, confirm_within, owned, last)
        except UnsupportedError:
            status = self.status()
            # By being loaded an ordinary module is enabled, and awaits no confirmation.
            unasked = confirm_within is not None and not status.registered
            if self._reload is None or unasked or status.state is not PatchState.DISABLED:
                raise
            self.unload()
            self._reload()
            if self.registered:
                self._backend.enable(name, confirm_within, owned, last)
