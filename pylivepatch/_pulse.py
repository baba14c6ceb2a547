# SPDX-License-Identifier: MIT
"""What wakes coroutines: descriptors that become readable, without threads and without tasks."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

from pylivepatch.errors import LivepatchError
from pylivepatch.monitor import Monitor

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pylivepatch.state import PatchStatus
    from pylivepatch.transition import Transition

_FIRST_PAUSE = 0.005
_LONGEST_PAUSE = 0.1
_FRESH = 0.05


class Waiters:
    """Coroutines that wait for the same thing. Cancelled ones leave nothing behind."""

    def __init__(self) -> None:
        self._futures: set[asyncio.Future[None]] = set()

    def __len__(self) -> int:
        return len(self._futures)

    async def wait(self, timeout: float | None) -> None:
        """Wait until somebody wakes all, at most `timeout` seconds."""
        loop = asyncio.get_running_loop()
        future = loop.create_future()
        timer = None if timeout is None else loop.call_later(max(timeout, 0.0), _done, future)
        self._futures.add(future)
        try:
            await future
        finally:
            self._futures.discard(future)
            if timer is not None:
                timer.cancel()

    def wake(self) -> None:
        """Wake all."""
        for future in self._futures:
            _done(future)


def _done(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


class Pulse:
    """Beats when something about a patch may have changed: one subscription for all waiters.

    The subscription is opened by the first who waits, and kept until `close`.
    Without events, waiters sleep for pauses that double, from 5 to 100 ms.

    Attributes:
        beat: Rises with each beat.
    """

    def __init__(self, *, events: bool) -> None:
        self.beat = 0
        self._events = events
        self._monitor: Monitor | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._waiters = Waiters()
        self._kept: dict[str, tuple[int, float, PatchStatus]] = {}

    def read(self, transition: Transition) -> PatchStatus:
        """Read a patch; a hundred waiters that wake together read it once."""
        name = transition.patch.name
        kept = self._kept.get(name)
        now = time.monotonic()
        if kept is None or kept[0] != self.beat or now - kept[1] > _FRESH:
            kept = self._kept[name] = (self.beat, now, transition._read())
        return kept[2]

    async def after(self, beat: int, timeout: float | None, pauses: Iterator[float]) -> None:
        """Wait for the next beat after a number, at most `timeout` seconds."""
        self._listen()
        if beat != self.beat:
            return
        if self._events:
            await self._waiters.wait(timeout)
        else:
            pause = next(pauses)
            await asyncio.sleep(pause if timeout is None else max(0.0, min(pause, timeout)))

    def strike(self) -> None:
        """Beat: something was changed from here."""
        self.beat += 1
        self._kept.clear()
        self._waiters.wake()

    def close(self) -> None:
        """Stop listening; whoever still waits is woken."""
        if self._monitor is not None and self._loop is not None:
            if not self._loop.is_closed():
                self._loop.remove_reader(self._monitor.fileno())
            self._monitor.close()
            self._monitor = None
        self._events = False
        self.strike()

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
        # What happened before the subscription was not told: have it read again.
        self.strike()

    def _readable(self) -> None:
        try:
            while self._monitor is not None and self._monitor.read(0) is not None:
                pass
        except LivepatchError:
            # Nothing more will come this way.
            self.close()
        else:
            self.strike()


def pauses() -> Iterator[float]:
    """Seconds to sleep, one after the other."""
    pause = _FIRST_PAUSE
    while True:
        yield pause
        pause = min(2 * pause, _LONGEST_PAUSE)
