# SPDX-License-Identifier: MIT
"""Patches: what is loaded into the kernel and can be enabled and reverted."""

from __future__ import annotations

from typing import TYPE_CHECKING, NoReturn

from pylivepatch.errors import BadDataError
from pylivepatch.kernel import changes
from pylivepatch.kernel.changes import Options
from pylivepatch.kernel.run import run
from pylivepatch.transition import Transition

if TYPE_CHECKING:
    from collections.abc import Callable

    from pylivepatch._flow import Course, Flow, OnProgress, OnTimeout
    from pylivepatch.kernel import Kernel
    from pylivepatch.state import Object, PatchState, PatchStatus

__all__ = ["Patch"]


class BasePatch:
    """What `Patch` and its namesake for asyncio have in common."""

    def __init__(self, name: str, kernel: Kernel, reload: Callable[[], object] | None = None) -> None:
        self._name = name
        self._kernel = kernel
        self._reload = reload
        # The window of the enable from here, in seconds.
        self._window: float | None = None

    def __repr__(self) -> str:
        return f"<Patch {self.name}>"

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, type(self)):
            return NotImplemented
        return self._key() == other._key()

    def __hash__(self) -> int:
        return hash(self._key())

    def __reduce__(self) -> NoReturn:
        raise TypeError(f"{self.name} cannot be pickled or copied: a Patch belongs to its Core; pass on its name")

    def _key(self) -> tuple[object, ...]:
        return self.name, self._kernel.root

    @property
    def name(self) -> str:
        """Name of the patch, which is its module's name."""
        return self._name

    def status(self) -> PatchStatus:
        """Read everything about the patch at once.

        Raises:
            PatchNotFoundError: It does not exist any more.

        Source: klpctl, KLPCTL_CMD_PATCH_GET; or /sys/kernel/livepatch/<patch> (4.0).
        """
        return self._kernel.backend.patch(self.name)

    @property
    def state(self) -> PatchState:
        """The state that it is in now."""
        return self.status().state

    @property
    def registered(self) -> bool:
        """Whether it is registered with klpctl; otherwise it is a standalone patch."""
        return self.status().registered

    @property
    def replace(self) -> bool | None:
        """Whether it replaces all patches before it; None when that cannot be told."""
        return self.status().replace

    @property
    def objects(self) -> tuple[Object, ...]:
        """What it changes: objects, and the functions in them."""
        return self.status().objects

    def _enable(
        self, options: Options, confirm_within: float | None, owned: bool, if_needed: bool
    ) -> Flow[Course]:
        self._window = confirm_within
        return changes.enable(
            self._kernel,
            self.name,
            options,
            confirm_within=confirm_within,
            owned=owned,
            if_needed=if_needed,
            reload=self._reload,
        )

    def _confirm(self, if_needed: bool) -> bool:
        return changes.confirm(self._kernel, self.name, window=self._window, if_needed=if_needed)

    def _force(self, accept_risk: bool) -> None:
        if accept_risk is not True:
            raise BadDataError(
                f"cannot force {self.name}: the risk is not accepted",
                after="nothing has changed",
                remedy="reverse its transition instead, or pass accept_risk=True",
            )
        changes.force(self._kernel, self.name)


class Patch(BasePatch):
    """A patch by its name, obtained from `Core`. Each property asks the kernel again."""

    @property
    def transition(self) -> Transition | None:
        """Its running transition, whoever started it, without a deadline; or None."""
        course = changes.follow(self._kernel, self.status())
        return None if course is None else Transition(self._kernel, course, self)

    def enable(
        self,
        timeout: float | None = 30.0,
        *,
        on_timeout: OnTimeout = "reverse",
        wait: bool = True,
        confirm_within: float | None = None,
        owned: bool = False,
        if_needed: bool = False,
        on_progress: OnProgress | None = None,
    ) -> Transition:
        """Switch all tasks to the new code.

        The bare call returns when that is done: nobody has to remember to wait,
        and the deadline always has somebody to enforce it. With ``wait=False``
        it returns when the transition has started, and the transition is followed
        by iterating, in a ``with`` block, or by `Transition.wait`, where the
        deadline is enforced then. Ctrl-C, and whatever else interrupts the wait,
        reverses the transition.

        If the patch is being disabled, that transition is reversed.

        A caller that is killed leaves no transition without a deadline: with klpctl,
        and *on_timeout* "reverse", the kernel itself reverses it 5 s later.

        With *confirm_within* the kernel itself reverts the patch unless `confirm`
        is called in time, whatever becomes of the caller. It does so in
        mid-transition, too. With *owned* it also reverts the patch as soon as the
        caller ends, or closes its `Core`.

        Args:
            timeout: Seconds until the deadline; None waits for ever.
            on_timeout: "reverse" reverses the transition at the deadline;
                "report" leaves it going.
            wait: Whether to wait for the end.
            confirm_within: Seconds from now within which it must be confirmed.
                Infinite, with *owned*: as long as the caller lives. None: it need
                not be confirmed. Needs klpctl, and a registered patch.
            owned: With *confirm_within*: the end of the caller reverts it, too.
            if_needed: Whether a patch that is enabled already, or being enabled, is
                a success. Its confirmation window stays as it is then.
            on_progress: Called with the progress while it is waited for, ten times a second.

        Returns:
            The transition, finished if it was waited for.

        Raises:
            AlreadyError: It is enabled already, or being enabled. Nothing has changed.
            TransitionBusyError: Another patch is in transition. Nothing has changed.
            PatchRejectedError: The livepatch core, or a pre-patch callback,
                refused it. The kernel is as it was before.
            SymbolError: As above, because of a function's name.
            UnsupportedError: It must be loaded again for that: a standalone
                patch that was disabled. Nothing has changed.
            AccessError: The caller is not root. Nothing has changed.
            PatchNotFoundError: It does not exist any more.
            TransitionTimeoutError: The deadline passed. The patch is not enabled
                ("reverse"), or still being enabled ("report").
            ConfirmationExpiredError: *confirm_within* was over before the transition
                was. The patch is not enabled.
            TransitionReversedError: Somebody else reversed it. The patch is
                not enabled.

        Source: klp_enable_patch(); klpctl, KLPCTL_IOC_ENABLE.
        """
        options = Options(timeout, on_timeout, wait, on_progress)
        flow = self._enable(options, confirm_within, owned, if_needed)
        return Transition(self._kernel, run(self._kernel, flow), self)

    def confirm(self, *, if_needed: bool = False) -> bool:
        """Keep a patch that was enabled with *confirm_within*, by anyone: cancel its automatic revert.

        Args:
            if_needed: Whether it is a success when the patch is enabled and awaits no confirmation.

        Returns:
            Whether it awaited a confirmation.

        Raises:
            AlreadyError: It is enabled, and awaits no confirmation. Nothing has changed.
            ConfirmationExpiredError: It was not confirmed in time. The kernel reverts it, or has done so.
            PatchStateError: It is not enabled. Nothing has changed.
            TransitionBusyError: Its own transition has not ended. Nothing has changed.
            UnsupportedError: klpctl is not used.
            AccessError: The caller is not root. Nothing has changed.
            PatchNotFoundError: It does not exist any more.

        Source: klpctl, KLPCTL_IOC_CONFIRM.
        """
        return self._confirm(if_needed)

    def revert(
        self,
        timeout: float | None = 30.0,
        *,
        on_timeout: OnTimeout = "reverse",
        wait: bool = True,
        if_needed: bool = False,
        on_progress: OnProgress | None = None,
    ) -> Transition:
        """Switch all tasks back to the old code.

        Waits as `enable` does, and its deadline is enforced alike: a reversed
        revert leaves the patch enabled. If the patch is being enabled, that transition is
        reversed. When klpctl is not used, a standalone patch vanishes from the list of
        patches afterwards, though its module stays loaded.

        Args:
            timeout: Seconds until the deadline; None waits for ever.
            on_timeout: "reverse" reverses the transition at the deadline;
                "report" leaves it going.
            wait: Whether to wait for the end.
            if_needed: Whether a patch that is not enabled, or is being disabled, is a success.
            on_progress: Called with the progress while it is waited for, ten times a second.

        Returns:
            The transition, finished if it was waited for.

        Raises:
            AlreadyError: It is not enabled, or is being disabled. Nothing has changed.
            TransitionBusyError: Another patch is in transition. Nothing has changed.
            PatchRejectedError: The livepatch core refused it. Nothing has changed.
            AccessError: The caller is not root. Nothing has changed.
            PatchNotFoundError: It does not exist any more.
            TransitionTimeoutError: The deadline passed. The patch is still
                enabled ("reverse"), or being disabled ("report").
            TransitionReversedError: Somebody else reversed it. The patch is
                enabled.

        Source: klpctl, KLPCTL_IOC_REVERT; or
        /sys/kernel/livepatch/<patch>/enabled (4.0).
        """
        options = Options(timeout, on_timeout, wait, on_progress)
        flow = changes.revert(self._kernel, self.name, options, if_needed=if_needed)
        return Transition(self._kernel, run(self._kernel, flow), self)

    def unload(self, *, if_needed: bool = False) -> bool:
        """Remove its module, waiting up to 2 s for the kernel to release it.

        Args:
            if_needed: Whether it is a success when no such module is loaded.

        Returns:
            Whether a module was removed.

        Raises:
            PatchStateError: It is enabled, in transition, was forced, or its
                module is in use. It stays loaded.
            AccessError: The caller is not root. It stays loaded.
            PatchNotFoundError: It does not exist any more.

        Source: delete_module(2), never forced.
        """
        return run(self._kernel, changes.unload(self._kernel, self.name, if_needed=if_needed))

    def force(self, *, accept_risk: bool) -> None:
        """End its transition without waiting for its tasks. May crash the kernel.

        Tasks that run old code go on with it while others run the new: the
        consistency model is broken, and a module whose code is left so can never be
        unloaded. Prefer `Transition.reverse`.

        Args:
            accept_risk: Must be True: the caller knows that.

        Raises:
            BadDataError: The risk is not accepted. Nothing has changed.
            PatchStateError: It is not in transition. Nothing has changed.
            AccessError: The caller is not root. Nothing has changed.
            PatchNotFoundError: It does not exist any more.

        Source: klp_force_transition(); klpctl, KLPCTL_IOC_FORCE; or
        /sys/kernel/livepatch/<patch>/force (4.15).
        """
        self._force(accept_risk)
