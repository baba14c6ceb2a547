# SPDX-License-Identifier: MIT
"""Transitions for asyncio."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Self

from pylivepatch._flow import REFRESH
from pylivepatch.transition import HEARTBEAT, BaseTransition

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from pylivepatch._flow import Course
    from pylivepatch.aio import Patch
    from pylivepatch.aio.loop import Loop
    from pylivepatch.kernel import Kernel
    from pylivepatch.state import Blocker, Progress, Task


class Transition(BaseTransition):
    """A patch on its way, as `pylivepatch.Transition`; any number of tasks may wait for it.

    There are three ways to wait, all alike: `wait`; ``async for``, which yields
    `pylivepatch.Progress` as it goes; and the end of an ``async with`` block.

    An exception that leaves the ``async with`` block, cancellation included, reverses
    the transition and waits for that. So does the cancellation of the last
    task that waits for a transition which was started from here; the cancellation
    of one among several leaves it going. Between two steps of ``async for`` nobody
    waits: put the loop into an ``async with`` block.
    """

    def __init__(self, kernel: Kernel, course: Course, patch: Patch, loop: Loop) -> None:
        super().__init__(kernel, course)
        self._patch = patch
        self._loop = loop

    @property
    def patch(self) -> Patch:
        """The patch."""
        return self._patch

    async def tasks(self) -> list[Task]:
        """Read the tasks, as `pylivepatch.Transition.tasks`, in a thread.

        Raises:
            AccessError: The caller is not root.
        """
        return await asyncio.to_thread(self._kernel.backend.tasks)

    async def blockers(self) -> list[Blocker]:
        """Read the tasks that it waits for, as `pylivepatch.Transition.blockers`, in a thread.

        Raises:
            AccessError: The caller is not root.
        """
        return await asyncio.to_thread(self._kernel.backend.blockers)

    async def wait(self) -> Self:
        """Wait for the end.

        Returns:
            The transition itself, finished.

        Raises:
            TransitionTimeoutError: The deadline passed; the transition was
                reversed, or goes on, as *on_timeout* says.
            ConfirmationExpiredError: Nobody confirmed the patch in time, and the
                kernel reversed the transition.
            TransitionReversedError: Somebody else reversed it, or another task
                that had it in a block was cancelled; the patch is where it was before.
            asyncio.CancelledError: If this was the last that waited for what was started
                from here, the transition was reversed.
        """
        await self._loop.run(self._course.step())
        return self

    def __aiter__(self) -> AsyncIterator[Progress]:
        """Yield progress when it has changed, once a second at least, and the end.

        Raises:
            LivepatchError: As `wait`.
        """
        return _Steps(self._course, self._loop, self.progress)

    async def reverse(self) -> None:
        """Reverse the transition, as `pylivepatch.Transition.reverse`.

        It leads back then, and takes time again: wait for it.

        Raises:
            LivepatchError: As `pylivepatch.Transition.reverse`.
        """
        await self._loop.run(self._course.reverse())

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, _: object) -> None:
        await self._loop.run(self._course.leave(error))


class _Steps:
    """The progress of a transition, step by step; nothing is held between two of them."""

    def __init__(self, course: Course, loop: Loop, read: Callable[[], Progress]) -> None:
        self._course = course
        self._loop = loop
        self._read = read
        self._last: Progress | None = None

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Progress:
        course, last = self._course, self._last
        if last is None:
            self._last = self._read()
            return self._last
        due = time.monotonic() + HEARTBEAT
        while course.final is None and (course.last.done, course.last.total) == (last.done, last.total):
            if time.monotonic() >= due:
                break
            await self._loop.run(course.step(REFRESH))
        if last is course.final:
            # This raises what went wrong.
            await self._loop.run(course.step())
            raise StopAsyncIteration
        self._last = course.final or course.last
        return self._last
