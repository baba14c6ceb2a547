# SPDX-License-Identifier: MIT
"""What is done about a transition, written once: follow it, keep its deadline, reverse it.

Generators that yield effects and receive replies; no I/O, and no clock. `pylivepatch.kernel.run` performs
the effects one after the other, `pylivepatch.aio` in an event loop; `pylivepatch.kernel.changes` are the flows
that start transitions. What interrupts an effect (Ctrl-C, a cancellation) is thrown into the generator
there: so what to do about that is written once, too.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
from collections.abc import Callable, Generator
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, NoReturn, TypeVar

from pylivepatch.errors import (
    BadDataError,
    ConfirmationExpiredError,
    LivepatchError,
    TransitionReversedError,
    TransitionTimeoutError,
)
from pylivepatch.kernel.names import timeout_seconds
from pylivepatch.state import PatchState, Progress, Target

if TYPE_CHECKING:
    from pylivepatch.kernel import Kernel
    from pylivepatch.state import Blocker, PatchStatus

OnTimeout = Literal["reverse", "report"]
OnProgress = Callable[[Progress], object]

REFRESH = 0.1
"""Seconds after which progress is read at the latest, when somebody wants to know of it."""

_REVERSAL = 30.0
_NAMED = 3
_ARRIVED = {
    Target.PATCHED: (PatchState.ENABLED, PatchState.REPLACED),
    Target.UNPATCHED: (PatchState.DISABLED, PatchState.REGISTERED, PatchState.REPLACED),
}
_OPPOSITE = {Target.PATCHED: Target.UNPATCHED, Target.UNPATCHED: Target.PATCHED}


# ---- effects ----


@dataclasses.dataclass(frozen=True, slots=True)
class Read:
    """Read a patch; one that does not exist reads as disabled. The reply is `Seen`."""

    name: str


class Seen(NamedTuple):
    """A patch, and the CLOCK_MONOTONIC time in seconds at which it was read."""

    status: PatchStatus
    now: float


@dataclasses.dataclass(frozen=True, slots=True)
class Wait:
    """Wait until something may have changed since the last `Read`, or until a time.

    Attributes:
        name: The patch.
        until: CLOCK_MONOTONIC time in seconds; None for ever.
        end: Whether only the end of its transition is of interest.
    """

    name: str
    until: float | None
    end: bool = True


@dataclasses.dataclass(frozen=True, slots=True)
class Sleep:
    """Sleep for some seconds."""

    seconds: float


@dataclasses.dataclass(frozen=True, slots=True)
class Now:
    """Read the clock: CLOCK_MONOTONIC, in seconds."""


@dataclasses.dataclass(frozen=True, slots=True)
class Call:
    """Call a function that does not wait for anybody. The reply is what it returns.

    Attributes:
        what: What it does, in words; two calls are equal when these are.
        function: The function.
        slow: Whether it may take so long that an event loop should not stand still for it.
    """

    what: str
    function: Callable[[], Any] = dataclasses.field(compare=False, repr=False)
    slow: bool = False


@dataclasses.dataclass(frozen=True, slots=True)
class Check:
    """Run a health check, a shell's command line or a program and its arguments; one that fails raises CheckError."""

    command: str | tuple[str, ...]
    timeout: float | None
    patch: str


@dataclasses.dataclass(frozen=True, slots=True)
class Record:
    """Record that a change was made, or how it failed."""

    action: str
    name: str
    error: BaseException | None = dataclasses.field(default=None, compare=False)


Effect = Read | Wait | Sleep | Now | Call | Check | Record
_T = TypeVar("_T")
Flow = Generator[Effect, Any, _T]


# ---- following ----


class Course:
    """A transition as it is followed from here: what is known of it, and what has become of it.

    Args:
        kernel: The livepatch core; nothing is asked of it but by effects.
        name: The patch.
        target: Where the transition was started to.
        started: CLOCK_MONOTONIC time in seconds.
        ours: Whether it was started from here: then the interruption of the last that waits reverses it.

    Attributes:
        changed: Whether something was started from here; False for what was so already.
        reversed: Whether it was reversed from here.
        window: Seconds from the start in which the patch must be confirmed; None: it need not be.
        on_progress: Called with the progress while the end is waited for.
        final: How it ended; None until then.
        last: The progress that was read last.
        error: How it failed, once that is known.
    """

    def __init__(self, kernel: Kernel, name: str, target: Target, started: float = 0.0, *, ours: bool) -> None:
        self.name = name
        self.target = target
        self.started = started
        self.changed: bool = True
        self.reversed: bool = False
        self.window: float | None = None
        self.on_progress: OnProgress | None = None
        self.final: Progress | None = None
        self.last: Progress = Progress(target, 0, 0, 0.0)
        self.error: LivepatchError | None = None
        self._kernel = kernel
        self._ours = ours
        self._waiting = 0
        self._now = started
        # The progress at the deadline, once the transition is being reversed because of that.
        self._late: Progress | None = None
        self._blockers: tuple[Blocker, ...] = ()
        # Whether it is being reversed because what waited for it was interrupted.
        self._left = False
        self.within(None)

    def within(self, timeout: float | None, on_timeout: OnTimeout = "reverse") -> None:
        """Set the deadline, in seconds from the start."""
        if on_timeout not in ("reverse", "report"):
            raise BadDataError(f"unknown on_timeout {on_timeout!r}", remedy="give reverse or report")
        self._timeout = timeout_seconds(timeout)
        self._on_timeout = on_timeout
        if self.final is None:
            # The deadline before, which was only reported, is no longer how it ends.
            self.error = None

    def look(self) -> Flow[bool]:
        """Read the patch; return whether the transition has ended."""
        if self.final is not None:
            return True
        seen: Seen = yield Read(self.name)
        return (yield from self._update(seen.status, seen.now))

    def step(self, longest: float | None = None) -> Flow[bool]:
        """Wait for the next change; return whether that was the end.

        Args:
            longest: Seconds to wait at most; None: for the end, however long that takes.

        Raises:
            LivepatchError: How the transition failed.
        """
        self._waiting += 1
        try:
            return (yield from self._step(longest))
        except GeneratorExit:
            raise
        except BaseException as error:
            if self._ours and self._waiting == 1:
                yield from self.reverse_because(error)
            raise
        finally:
            self._waiting -= 1

    def join(self) -> Flow[None]:
        """Follow what somebody else has brought on its way, or to its end, already."""
        self.changed = self._ours = False
        yield from self.look()

    def reverse(self) -> Flow[None]:
        """Reverse the transition; undo one that has just ended."""
        if self.target is Target.PATCHED:
            yield Call(f"revert {self.name}", functools.partial(self._kernel.backend.revert, self.name))
        else:
            yield Call(f"enable {self.name}", functools.partial(self._kernel.backend.enable, self.name))
        self.reversed = True
        self.final = None

    def leave(self, error: BaseException | None) -> Flow[None]:
        """End a ``with`` block: wait for the end; reverse because of an exception."""
        if error is not None:
            yield from self.reverse_because(error)
            return
        try:
            yield from self.step()
        except GeneratorExit:
            raise
        except BaseException as interruption:
            yield from self.reverse_because(interruption)
            raise

    def reverse_because(self, error: BaseException) -> Flow[None]:
        """Reverse it because of an exception, unless that is how it ended, and wait for the end of that."""
        if self.final is not None or self.error is not None:
            return
        if self.reversed and self._late is None and not self._left:
            return
        try:
            if not self.reversed:
                yield from self.reverse()
                self._left = True
            if (yield from self._settle()) is None:
                error.add_note(f"the reversal of the transition of {self.name} has not ended")
        except LivepatchError as hindrance:
            error.add_note(f"the transition of {self.name} was not reversed: {hindrance}")

    def _step(self, longest: float | None) -> Flow[bool]:
        while self._late is None and not self._left and not (yield from self.look()):
            deadline = None if self._timeout is None else self.started + self._timeout
            if deadline is not None and self._now >= deadline:
                yield from self._expire()
                break
            pause = longest
            if self.on_progress is not None:
                yield Call("report progress", functools.partial(self.on_progress, self.last))
                pause = REFRESH
            ends = [each for each in (deadline, None if pause is None else self._now + pause) if each is not None]
            yield Wait(self.name, min(ends, default=None), end=pause is None)
            if longest is not None:
                return False
        if self._late is not None:
            yield from self._expire()
        if self._left:
            status = (yield from self._settle()) or (yield Read(self.name)).status
            raise TransitionReversedError(
                f"the transition of {self.name} to {self.target} was reversed: what waited for it was interrupted",
                patch=self.name,
                state=status.state,
                after=f"the patch is {status.state}",
            )
        if self.error is not None:
            raise self.error
        return True

    def _update(self, status: PatchStatus, now: float) -> Flow[bool]:
        """Learn from a status whether the transition has ended, and how."""
        self._now = now
        elapsed = now - self.started
        if status.state.in_transition:
            # Without progress it has ended just now, and the state is about to tell.
            if status.progress is not None:
                self.last = dataclasses.replace(status.progress, elapsed=elapsed)
            return False
        arrived = status.state in _ARRIVED[self.target]
        # All tasks have switched: as many as were counted last, or as there are.
        total = self.last.total or (yield Call("count tasks", self._kernel.backend.task_count))
        self.final = Progress(self.target if arrived else _OPPOSITE[self.target], total, total, elapsed)
        if not arrived and not self.reversed:
            self.error = self._reversed_elsewhere(status, elapsed)
        return True

    def _reversed_elsewhere(self, status: PatchStatus, elapsed: float) -> LivepatchError:
        """Make the exception for a transition that was reversed, but not from here."""
        if self.window is not None and elapsed >= self.window:
            return confirmation_expired(status, self.window)
        if self._timeout is not None and self._on_timeout == "reverse" and elapsed >= self._timeout:
            # Nobody was here to do it at the deadline: the kernel has, a little later.
            self.reversed = True
            return self._timed_out(self.last, status, f"the kernel has reversed it, and the patch is {status.state}")
        return TransitionReversedError(
            f"the transition of {self.name} to {self.target} was reversed by somebody else",
            patch=self.name,
            state=status.state,
            after=f"the patch is {status.state}",
        )

    def _expire(self) -> Flow[None]:
        """Do what the policy says at the deadline, unless the end has come; once, whatever the number that wait."""
        progress = self._late
        if progress is None:
            progress = self.last
            yield from self._read_blockers()
            if self._on_timeout == "reverse" and not self.reversed:
                try:
                    yield from self.reverse()
                except LivepatchError:
                    if (yield from self.look()):
                        return
                    raise
                self._late = progress
        if self._late is not None:
            yield from self._settle()
        if (yield from self.look()) and self._late is None:
            return
        yield from self._raise_timeout(progress)

    def _raise_timeout(self, progress: Progress) -> Flow[NoReturn]:
        status = (yield Read(self.name)).status
        if status.state.in_transition:
            yield from self._read_blockers()
            after = f"the patch is still {status.state}"
        else:
            after = f"it was reversed, and the patch is {status.state}"
        self.error = self._timed_out(progress, status, after)
        raise self.error

    def _timed_out(self, progress: Progress, status: PatchStatus, after: str) -> TransitionTimeoutError:
        goes_on = status.state.in_transition
        return TransitionTimeoutError(
            f"the transition of {self.name} to {self.target} did not end within {self._timeout:g} s"
            f" ({progress.done} of {progress.total} tasks done){_named(self._blockers)}",
            patch=self.name,
            progress=progress,
            reversed=self.reversed,
            state=status.state,
            blockers=self._blockers,
            after=after,
            remedy="end, or signal, the tasks that block it" if goes_on else "try again, with a longer timeout",
        )

    def _settle(self) -> Flow[PatchStatus | None]:
        """Wait for the end of a reversal; None when that takes too long."""
        until = (yield Now()) + max(self._timeout or 0.0, _REVERSAL)
        while True:
            seen: Seen = yield Read(self.name)
            if not seen.status.state.in_transition:
                return seen.status
            if seen.now >= until:
                return None
            yield Wait(self.name, until)

    def _read_blockers(self) -> Flow[None]:
        with contextlib.suppress(LivepatchError):
            self._blockers = tuple((yield Call("read blockers", self._kernel.backend.blockers, slow=True)))


def confirmation_expired(status: PatchStatus, window: float | None) -> ConfirmationExpiredError:
    """Make the exception for a patch that nobody confirmed in time."""
    within = "" if window is None else f" ({window:g} s)"
    return ConfirmationExpiredError(
        f"{status.name} was not confirmed in time{within}, so the kernel reverts it",
        patch=status.name,
        state=status.state,
        after=f"the patch is {status.state}",
        remedy="enable it again, with more time to confirm it in",
    )


def _named(blockers: tuple[Blocker, ...]) -> str:
    """The first few blockers, for a message."""
    if not blockers:
        return ""
    first = "; ".join(str(blocker) for blocker in blockers[:_NAMED])
    more = f"; and {len(blockers) - _NAMED} more" if len(blockers) > _NAMED else ""
    return f", held up by {first}{more}"
