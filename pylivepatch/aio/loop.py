# SPDX-License-Identifier: MIT
"""Performs the effects of a flow in an event loop: without a thread, but for calls that take long."""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from typing import TYPE_CHECKING, TypeVar

from pylivepatch._flow import Call, Check, Now, Read, Record, Seen, Sleep, Wait
from pylivepatch.errors import LivepatchError
from pylivepatch.kernel.journal import record
from pylivepatch.monitor import Monitor
from pylivepatch.sequence.check import HealthCheck

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from pylivepatch._flow import Flow
    from pylivepatch.kernel import Kernel

_FIRST_PAUSE = 0.005
_LONGEST_PAUSE = 0.1
_T = TypeVar("_T")


class Notifier:
    """Wakes all that wait for the same thing. Cancelled ones leave nothing behind.

    Attributes:
        generation: Rises with each notification.
    """

    def __init__(self) -> None:
        self.generation: int = 0
        self._event = asyncio.Event()

    def notify(self) -> None:
        """Wake all."""
        self.generation += 1
        self._event.set()
        self._event = asyncio.Event()

    async def wait_after(self, generation: int, timeout: float | None) -> None:
        """Wait until the generation is a later one, at most `timeout` seconds."""
        if generation == self.generation:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(timeout):
                    await self._event.wait()


class Loop:
    """Runs the flows of one `Core`, which share one subscription to klpctl's events.

    It is opened by the first that waits, and kept until `close`. Without events, what waits sleeps for
    pauses that double, from 5 to 100 ms.
    """

    def __init__(self, kernel: Kernel, *, events: bool) -> None:
        self._kernel = kernel
        self._events = events
        self._monitor: Monitor | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._notifier = Notifier()

    async def run(self, flow: Flow[_T]) -> _T:
        """Run a flow; a cancellation is thrown into it while it waits, and after a call that must not be cut short."""
        pauses, generation = _pauses(), self._notifier.generation
        cancelled: asyncio.CancelledError | None = None
        try:
            effect = next(flow)
            while True:
                reply: object = None
                try:
                    if cancelled is not None:
                        error, cancelled = cancelled, None
                        raise error
                    match effect:
                        case Read():
                            generation = self._notifier.generation
                            reply = Seen(self._kernel.status(effect.name), time.monotonic())
                        case Wait():
                            left = None if effect.until is None else effect.until - time.monotonic()
                            await self._wait(generation, left, pauses)
                        case Sleep():
                            await asyncio.sleep(effect.seconds)
                        case Now():
                            reply = time.monotonic()
                        case Record():
                            record(self._kernel.root, effect.action, effect.name, effect.error)
                        case Check():
                            await _check(effect)
                        case Call(slow=True):
                            task, cancelled = await _whole(effect.function)
                            self._notifier.notify()
                            reply = task.result()
                        case Call():
                            reply = effect.function()
                            self._notifier.notify()
                except BaseException as error:
                    effect = flow.throw(error)
                else:
                    effect = flow.send(reply)
        except StopIteration as end:
            if cancelled is not None:
                raise cancelled from None
            result: _T = end.value
            return result

    def close(self) -> None:
        """Stop listening; what still waits is woken."""
        if self._monitor is not None and self._loop is not None:
            if not self._loop.is_closed():
                self._loop.remove_reader(self._monitor.fileno())
            self._monitor.close()
            self._monitor = None
        self._events = False
        self._notifier.notify()

    async def _wait(self, generation: int, timeout: float | None, pauses: Iterator[float]) -> None:
        self._listen()
        if self._events:
            await self._notifier.wait_after(generation, timeout)
        elif generation == self._notifier.generation:
            pause = next(pauses)
            await asyncio.sleep(pause if timeout is None else max(0.0, min(pause, timeout)))

    def _listen(self) -> None:
        if not self._events or self._monitor is not None:
            return
        try:
            self._monitor = Monitor()
        except LivepatchError:
            self._events = False
            return
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(self._monitor.fileno(), self._readable)
        # What happened before the subscription was not reported: have it read again.
        self._notifier.notify()

    def _readable(self) -> None:
        try:
            while self._monitor is not None and self._monitor.read(0) is not None:
                pass
        except LivepatchError:
            # Nothing more will come this way.
            self.close()
        else:
            self._notifier.notify()


async def _whole(function: Callable[[], _T]) -> tuple[asyncio.Future[_T], asyncio.CancelledError | None]:
    """Call a function in a thread to its end, and tell whether that was cancelled meanwhile."""
    task = asyncio.ensure_future(asyncio.to_thread(function))
    cancelled = None
    while not task.done():
        try:
            await asyncio.wait([task])
        except asyncio.CancelledError as error:
            cancelled = error
    return task, cancelled


async def _check(effect: Check) -> None:
    """Run a health check; a cancellation kills it."""
    with HealthCheck(effect.command, effect.patch, effect.timeout) as check:
        loop, exited = asyncio.get_running_loop(), asyncio.Event()
        descriptor = os.pidfd_open(check.process.pid)
        loop.add_reader(descriptor, exited.set)
        try:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(effect.timeout):
                    await exited.wait()
        finally:
            loop.remove_reader(descriptor)
            os.close(descriptor)
        check.judge()


def _pauses() -> Iterator[float]:
    pause = _FIRST_PAUSE
    while True:
        yield pause
        pause = min(2 * pause, _LONGEST_PAUSE)
