# SPDX-License-Identifier: MIT
"""Events for asyncio."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Self

from pylivepatch import monitor as _monitor
from pylivepatch.aio.loop import Notifier

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from pylivepatch.monitor import Event, EventSource


class Monitor:
    """Listens to events of all patches, as `pylivepatch.Monitor`; several tasks share them.

    Use it in an ``async with`` statement and iterate over it with ``async for``.

    Args:
        source: "netlink", from klpctl itself; or "udev", after udevd.

    Raises:
        UnsupportedError: klpctl is not loaded, or pyudev is not installed.
        BadDataError: There is no such source.
    """

    def __init__(self, source: EventSource = "netlink") -> None:
        self.source: EventSource = source
        self._monitor = _monitor.Monitor(source)
        self._notifier = Notifier()
        self._readers = 0

    @property
    def lost(self) -> int:
        """How many events were lost so far, by the gaps in their numbers."""
        return self._monitor.lost

    def fileno(self) -> int:
        """The descriptor, readable when there is an event."""
        return self._monitor.fileno()

    async def read(self, timeout: float | None = None) -> Event | None:
        """Read the next event.

        Args:
            timeout: Seconds to wait; 0 to take only what is there, None for ever.

        Returns:
            The event, or None when there was none in time. A cancelled read has
            taken none.
        """
        end = None if timeout is None else time.monotonic() + timeout
        while True:
            generation = self._notifier.generation
            event = self._monitor.read(0)
            left = None if end is None else end - time.monotonic()
            if event is not None or (left is not None and left <= 0):
                return event
            await self._readable(generation, left)

    def __aiter__(self) -> AsyncIterator[Event]:
        return self

    async def __anext__(self) -> Event:
        event = None
        while event is None:
            event = await self.read()
        return event

    def close(self) -> None:
        """Stop listening. Nobody may be reading."""
        self._monitor.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc: object) -> None:
        self.close()

    async def _readable(self, generation: int, timeout: float | None) -> None:
        loop = asyncio.get_running_loop()
        if not self._readers:
            loop.add_reader(self.fileno(), self._notifier.notify)
        self._readers += 1
        try:
            await self._notifier.wait_after(generation, timeout)
        finally:
            self._readers -= 1
            if not self._readers:
                loop.remove_reader(self.fileno())
