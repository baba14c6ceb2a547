# SPDX-License-Identifier: MIT
"""Transitions: tasks being switched to the new code, or back, one by one."""

from __future__ import annotations

import contextlib
import dataclasses
import time
from typing import TYPE_CHECKING, Literal, NoReturn, Self

from pylivepatch.errors import (
    BadDataError,
    LivepatchError,
    PatchNotFoundError,
    TransitionReversedError,
    TransitionTimeoutError,
)
from pylivepatch.kernel.names import timeout_seconds
from pylivepatch.state import Blocker, PatchState, PatchStatus, Progress, Target, Task

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pylivepatch.kernel import Backend
    from pylivepatch.patch import Patch

__all__ = ["OnTimeout", "Transition"]

OnTimeout = Literal["reverse", "report"]

_REFRESH = 0.1
_REVERSAL = 30.0
_NAMED = 3
_ARRIVED = {
    Target.PATCHED: (PatchState.ENABLED, PatchState.REPLACED),
    Target.UNPATCHED: (PatchState.DISABLED, PatchState.REGISTERED, PatchState.REPLACED),
}


class Transition:
    """A patch on its way, or at its end when the call that started it waited.

    The kernel completes a transition by itself; who waits here enforces its
    deadline. There are three ways to wait, all alike: `wait`; iterating, which
    yields `Progress` as it goes; and the end of a ``with`` block. An exception
    that leaves the ``with`` block, Ctrl-C included, turns the transition round.

    Attributes:
        patch: The patch.
        target: Where the transition was started to.
        started: CLOCK_MONOTONIC time in seconds, as `time.monotonic` gives.
        reversed: Whether it was turned round from here.
    """

    def __init__(
        self,
        patch: Patch,
        backend: Backend,
        target: Target,
        started: float,
        timeout: float | None,
        on_timeout: OnTimeout,
    ) -> None:
        self.patch = patch
        self.target = target
        self.started = started
        self.reversed = False
        self._backend = backend
        self._final: Progress | None = None
        self._error: LivepatchError | None = None
        self._last = Progress(target, 0, 0, 0.0)
        self._blockers: tuple[Blocker, ...] = ()
        self.within(timeout, on_timeout)

    def __repr__(self) -> str:
        state = "finished" if self.finished else "running"
        return f"<Transition of {self.patch.name} to {self.target}, {state}>"

    def within(self, timeout: float | None, on_timeout: OnTimeout = "reverse") -> Self:
        """Set the deadline.

        Args:
            timeout: Seconds from the start of the transition; None for none.
            on_timeout: "reverse": turn the transition round, wait for that, and
                raise; "report": raise, and leave it going.

        Returns:
            The transition itself.

        Raises:
            BadDataError: One of the arguments; the deadline is as it was.
        """
        if on_timeout not in ("reverse", "report"):
            raise BadDataError(f"no policy {on_timeout!r}", remedy="take reverse or report")
        self._timeout = timeout_seconds(timeout)
        self._on_timeout = on_timeout
        if not self.finished:
            # The deadline before, which was only reported, is no longer how it ends.
            self._error = None
        return self

    @property
    def finished(self) -> bool:
        """Whether a wait here has seen its end."""
        return self._final is not None

    @property
    def duration(self) -> float:
        """Seconds that it took, or has taken until now."""
        return time.monotonic() - self.started if self._final is None else self._final.elapsed

    def progress(self) -> Progress:
        """Read how far it has come; once it has ended, how it ended.

        Source: klpctl, KLPCTL_A_TRANSITION_DONE and _TOTAL; without klpctl
        /proc/<pid>/task/<tid>/patch_state (4.12).
        """
        if self._final is None:
            self._take(self._read())
        return self._final or self._last

    def tasks(self) -> list[Task]:
        """Read the tasks, switched and pending.

        Returns:
            The tasks; none when the transition has ended.

        Raises:
            AccessError: The caller is not root.
        """
        return self._backend.tasks()

    @property
    def blockers(self) -> list[Blocker]:
        """The tasks that it waits for, each with its reason; none when it has ended.

        Raises:
            AccessError: The caller is not root.

        Source: klpctl, KLPCTL_CMD_TASK_GET; without klpctl /proc/<pid>/task/<tid>
        patch_state (4.12), stat and stack, which know no idle tasks.
        """
        return self._backend.blockers()

    def wait(self) -> Self:
        """Wait for the end.

        Returns:
            The transition itself, finished.

        Raises:
            TransitionTimeoutError: The deadline passed; the transition was
                reversed, or goes on, as the policy says.
            TransitionReversedError: Somebody else turned it round; the patch is
                where it was before.
        """
        while not self.finished:
            left = self._left()
            status = self._backend.wait(self.patch.name, left) if left is None or left > 0 else None
            if status is None:
                self._expire()
            else:
                self._take(status)
        self._conclude()
        return self

    def __iter__(self) -> Iterator[Progress]:
        """Yield progress with every change, ten times a second at least, and the end.

        Raises:
            TransitionTimeoutError: As `wait`.
            TransitionReversedError: As `wait`.
        """
        if not self.finished:
            with self._backend.watch() as watch:
                while not self._take(self._read()):
                    yield self._last
                    left = self._left()
                    if left is not None and left <= 0:
                        self._expire()
                    watch.wait(_REFRESH if left is None else min(left, _REFRESH))
        yield self.progress()
        self._conclude()

    def reverse(self) -> None:
        """Turn the transition round. It leads back then, and takes time again.

        One that has just ended is undone: the patch is reverted, or enabled again.

        Raises:
            AccessError: The caller is not root. Nothing has changed.
            UnsupportedError: It has ended, and an ordinary live patch module
                cannot be enabled again. The patch stays disabled.

        Source: klp_reverse_transition().
        """
        if self.target is Target.PATCHED:
            self._backend.revert(self.patch.name)
        else:
            self._backend.enable(self.patch.name)
        self.reversed = True
        self._final = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: object) -> None:
        if error is not None:
            self._abandon(error)
            return
        try:
            self.wait()
        except BaseException as interruption:
            self._abandon(interruption)
            raise

    def _abandon(self, error: BaseException) -> None:
        """Turn it round because of an exception, unless that is how it ended, and wait for that."""
        if self.finished or self.reversed or self._error is not None:
            return
        try:
            self.reverse()
            if self._backend.wait(self.patch.name, self._reversal()) is None:
                error.add_note(f"the reversal of the transition of {self.patch.name} has not ended")
        except LivepatchError as hindrance:
            error.add_note(f"the transition of {self.patch.name} was not reversed: {hindrance}")

    def _read(self) -> PatchStatus:
        try:
            return self._backend.patch(self.patch.name)
        except PatchNotFoundError:
            gone = PatchState.DISABLED
            return PatchStatus(self.patch.name, gone, False, None, False, (), None)

    def _take(self, status: PatchStatus) -> bool:
        """Learn from a status whether the transition has ended, and how."""
        elapsed = time.monotonic() - self.started
        if status.state.in_transition:
            # Without progress it has ended just now, and the state is about to tell.
            if status.progress is not None:
                self._last = dataclasses.replace(status.progress, elapsed=elapsed)
            return False
        back = Target.UNPATCHED if self.target is Target.PATCHED else Target.PATCHED
        arrived = status.state in _ARRIVED[self.target]
        # All tasks have switched: as many as were counted last, or as there are.
        total = self._last.total or self._backend.task_count()
        self._final = Progress(self.target if arrived else back, total, total, elapsed)
        if not arrived and not self.reversed and self._is_overdue(elapsed):
            # Nobody was here to do it at the deadline: the kernel has, a little later.
            self.reversed = True
            after = f"the kernel has reversed it, and the patch is {status.state}"
            self._error = self._timed_out(self._last, status.state, after)
        elif not arrived and not self.reversed:
            self._error = TransitionReversedError(
                f"the transition of {self.patch.name} to {self.target} was reversed by somebody else",
                patch=self.patch.name,
                state=status.state,
                after=f"the patch is {status.state}",
            )
        return True

    def _blocking(self) -> tuple[Blocker, ...]:
        with contextlib.suppress(LivepatchError):
            return tuple(self._backend.blockers())
        return ()

    def _conclude(self) -> None:
        if self._error is not None:
            raise self._error

    def _left(self) -> float | None:
        if self._timeout is None:
            return None
        return self.started + self._timeout - time.monotonic()

    def _is_overdue(self, elapsed: float) -> bool:
        return self._timeout is not None and self._on_timeout == "reverse" and elapsed >= self._timeout

    def _reversal(self) -> float:
        """How long a reversal may take, in seconds."""
        return max(self._timeout or 0.0, _REVERSAL)

    def _expire(self) -> None:
        """Do what the policy says, unless the end has come meanwhile."""
        overdue = self._overdue()
        if overdue is not None:
            progress, turned = overdue
            settled = self._backend.wait(self.patch.name, self._reversal()) if turned else None
            self._expired(progress, settled)

    def _overdue(self) -> tuple[Progress, bool] | None:
        """Turn it round at the deadline, if that is the policy.

        Returns:
            The progress until then, and whether it was turned round; None when the
            end has come meanwhile.
        """
        if self._take(self._read()):
            return None
        progress = self._last
        self._blockers = self._blocking()
        reverse = self._on_timeout == "reverse" and not self.reversed
        if reverse:
            try:
                self.reverse()
            except LivepatchError:
                if self._take(self._read()):
                    return None
                raise
        return progress, reverse

    def _expired(self, progress: Progress, settled: PatchStatus | None) -> NoReturn:
        """Raise for a deadline that has passed; `settled` is the end of the reversal."""
        status = settled or self._read()
        after = f"it was reversed, and the patch is {status.state}"
        if status.state.in_transition:
            self._blockers = self._blocking()
            after = f"the patch is still {status.state}"
        self._error = self._timed_out(progress, status.state, after)
        if settled is not None:
            self._take(settled)
        raise self._error

    def _timed_out(self, progress: Progress, state: PatchState, after: str) -> TransitionTimeoutError:
        goes_on = state.in_transition
        return TransitionTimeoutError(
            f"the transition of {self.patch.name} to {self.target} did not end within {self._timeout:g} s"
            f" ({progress.done} of {progress.total} tasks done){_named(self._blockers)}",
            patch=self.patch.name,
            progress=progress,
            reversed=self.reversed,
            state=state,
            blockers=self._blockers,
            after=after,
            remedy="end, or signal, the tasks that block it" if goes_on else "try again, with a longer timeout",
        )


def _named(blockers: tuple[Blocker, ...]) -> str:
    """The first few blockers, for a message."""
    if not blockers:
        return ""
    first = "; ".join(str(blocker) for blocker in blockers[:_NAMED])
    more = f"; and {len(blockers) - _NAMED} more" if len(blockers) > _NAMED else ""
    return f", held up by {first}{more}"
