# SPDX-License-Identifier: MIT
"""Transitions for asyncio."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Self

from pylivepatch._pulse import pauses
from pylivepatch.errors import LivepatchError, TransitionReversedError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from pylivepatch import transition as _transition
    from pylivepatch._pulse import Pulse
    from pylivepatch.state import Blocker, PatchStatus, Progress, Target, Task
    from pylivepatch.transition import OnTimeout

_REFRESH = 0.1


class Transition:
    """A patch on its way, as `pylivepatch.Transition`; any number of tasks may wait for it.

    There are three ways to wait, all alike: `wait`; ``async for``, which yields
    `pylivepatch.Progress` as it goes; and the end of an ``async with`` block.

    An exception that leaves the ``async with`` block, cancellation included, turns
    the transition round and waits for that. So does the cancellation of the last
    task that waits for a transition which was started from here; the cancellation
    of one among several leaves it going. Between two steps of ``async for`` nobody
    waits: put the loop into an ``async with`` block.

    Attributes:
        patch: Name of the patch.
        target: Where the transition was started to.
        started: CLOCK_MONOTONIC time in seconds, as `time.monotonic` gives.
    """

    def __init__(self, transition: _transition.Transition, pulse: Pulse, *, ours: bool) -> None:
        self.patch: str = transition.patch.name
        self.target: Target = transition.target
        self.started: float = transition.started
        self._sync = transition
        self._pulse = pulse
        self._ours = ours
        self._waiting = 0
        self._late: Progress | None = None
        self._abandoned = False

    def __repr__(self) -> str:
        return f"<aio.Transition of {self.patch} to {self.target}, {'finished' if self.finished else 'running'}>"

    def within(self, timeout: float | None, on_timeout: OnTimeout = "reverse") -> Self:
        """Set the deadline, as `pylivepatch.Transition.within`."""
        self._sync.within(timeout, on_timeout)
        return self

    @property
    def finished(self) -> bool:
        """Whether its end has been seen here."""
        return self._sync.finished

    @property
    def reversed(self) -> bool:
        """Whether it was turned round from here."""
        return self._sync.reversed

    @property
    def duration(self) -> float:
        """Seconds that it took, or has taken until now."""
        return self._sync.duration

    def progress(self) -> Progress:
        """Read how far it has come; once it has ended, how it ended."""
        return self._sync.progress()

    def tasks(self) -> list[Task]:
        """Read the tasks, switched and pending; `AccessError` when not root."""
        return self._sync.tasks()

    @property
    def blockers(self) -> list[Blocker]:
        """The tasks that it waits for, each with its reason; `AccessError` when not root."""
        return self._sync.blockers

    async def wait(self) -> Self:
        """Wait for the end.

        Returns:
            The transition itself, finished.

        Raises:
            TransitionTimeoutError: The deadline passed; the transition was
                reversed, or goes on, as the policy says.
            TransitionReversedError: Somebody else turned it round, or another task
                that had it in a block was cancelled; the patch is where it was before.
            asyncio.CancelledError: If this was the last that waited for what was started
                from here, the transition was reversed.
        """
        while not await self._step(None):
            pass
        return self

    def __aiter__(self) -> AsyncIterator[Progress]:
        """Yield progress with every change, ten times a second at least, and the end.

        Raises:
            LivepatchError: As `wait`.
        """
        return _Steps(self)

    async def reverse(self) -> None:
        """Turn the transition round, as `pylivepatch.Transition.reverse`.

        It leads back then, and takes time again: wait for it.

        Raises:
            LivepatchError: As `pylivepatch.Transition.reverse`.
        """
        self._sync.reverse()
        self._pulse.strike()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, _: object) -> None:
        if error is None:
            try:
                await self.wait()
            except BaseException as interruption:
                # Of what was started from here a waiter that is cancelled has done it.
                if not (self.finished or self._told() or self.reversed):
                    await self._abandon(interruption)
                raise
        elif not self.finished and not self._told():
            await self._abandon(error)

    async def _step(self, longest: float | None) -> bool:
        """Wait for the next change, `longest` seconds at most; say whether that was the end."""
        self._waiting += 1
        try:
            return await self._advance(longest)
        except asyncio.CancelledError as error:
            if self._ours and self._waiting == 1 and not self.finished:
                await self._abandon(error)
            raise
        finally:
            self._waiting -= 1

    async def _advance(self, longest: float | None) -> bool:
        pause = pauses()
        while not (self._late or self._abandoned or self._sync.finished):
            beat = self._pulse.beat
            if self._sync._take(self._pulse.read(self._sync)):
                break
            left = self._sync._left()
            if left is not None and left <= 0:
                await self._expire()
                break
            wait = [seconds for seconds in (left, longest) if seconds is not None]
            await self._pulse.after(beat, min(wait, default=None), pause)
            if longest is not None:
                return False
        if self._late is not None:
            await self._expire()
        if self._abandoned:
            await self._reversal()
            state = self._sync._read().state
            raise TransitionReversedError(
                f"the transition of {self.patch} to {self.target} was reversed: who waited for it was cancelled",
                patch=self.patch,
                state=state,
                after=f"the patch is {state}",
            )
        self._sync._conclude()
        return True

    async def _expire(self) -> None:
        """Do what the policy says, once for all waiters; each is told."""
        progress, settled = self._late, None
        if progress is None:
            overdue = self._sync._overdue()
            if overdue is None:
                return
            progress, turned = overdue
            if turned:
                self._late = progress
                self._pulse.strike()
        if self._late is not None:
            settled = await self._reversal()
        self._sync._expired(progress, settled)

    async def _abandon(self, error: BaseException) -> None:
        """Turn it round because of an exception, and wait for the end of that."""
        try:
            if not self._sync.reversed:
                self._sync.reverse()
                self._abandoned = True
                self._pulse.strike()
            if await self._reversal() is None:
                error.add_note(f"the reversal of the transition of {self.patch} has not ended")
        except LivepatchError as hindrance:
            error.add_note(f"the transition of {self.patch} was not reversed: {hindrance}")

    async def _reversal(self) -> PatchStatus | None:
        """Wait for the end of the reversal; None when that takes too long."""
        end = time.monotonic() + self._sync._reversal()
        pause = pauses()
        while True:
            beat = self._pulse.beat
            status = self._pulse.read(self._sync)
            if not status.state.in_transition:
                return status
            left = end - time.monotonic()
            if left <= 0:
                return None
            await self._pulse.after(beat, left, pause)

    def _told(self) -> bool:
        """Whether a waiter has been told already that it failed."""
        return self._sync._error is not None


class _Steps:
    """The progress of a transition, step by step; nothing is held between two of them."""

    def __init__(self, transition: Transition) -> None:
        self._transition = transition
        self._begun = self._ended = False

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Progress:
        # Once it has ended, this raises what went wrong.
        if self._begun:
            await self._transition._step(_REFRESH)
        if self._ended:
            raise StopAsyncIteration
        self._begun = True
        progress = self._transition.progress()
        self._ended = self._transition.finished
        return progress
