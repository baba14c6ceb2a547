# SPDX-License-Identifier: MIT
"""Events of all patches on the system, as they happen."""

from __future__ import annotations

import errno
import time
from typing import TYPE_CHECKING, Protocol, Self

from pylivepatch.errors import BadDataError, UnsupportedError
from pylivepatch.kernel import wire
from pylivepatch.kernel.netlink import LONGEST, Netlink, RefusedError
from pylivepatch.kernel.refusal import no_klpctl, refusal

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pylivepatch.event import Event, EventSource

__all__ = ["Monitor"]


class Monitor:
    """Listens to events, of registered and of ordinary patches alike.

    Use it in a ``with`` statement and iterate over it. Events that happen from
    its creation on are kept by the kernel until they are read; when that is too
    slow some are lost, which `lost` tells, and the monitor goes on.

    Args:
        source: "netlink", from klpctl itself; or "udev", after udevd and its
            rules have seen the event.

    Raises:
        UnsupportedError: klpctl is not loaded, or pyudev is not installed.
        BadDataError: There is no such source.

    Source: klpctl, KLPCTL_CMD_EVENT and uevents of SUBSYSTEM=livepatch.
    """

    def __init__(self, source: EventSource = "netlink") -> None:
        if source not in ("netlink", "udev"):
            raise BadDataError(f"no event source {source!r}", remedy="take netlink or udev")
        self.source: EventSource = source
        self._lost = 0
        self._newest: int | None = None
        self._reader: _Reader = _NetlinkReader() if source == "netlink" else _UdevReader()

    @property
    def lost(self) -> int:
        """How many events were lost so far, by the gaps in their numbers."""
        return self._lost

    def fileno(self) -> int:
        """The descriptor, to poll: readable when `read` has something to take."""
        return self._reader.fileno()

    def read(self, timeout: float | None = None) -> Event | None:
        """Read the next event.

        Args:
            timeout: Seconds to wait; 0 to take only what is there, None for ever.

        Returns:
            The event, or None when there was none in time.
        """
        event = self._reader.read(timeout)
        if event is not None:
            if self._newest is not None and event.sequence > self._newest + 1:
                self._lost += event.sequence - self._newest - 1
            self._newest = event.sequence
        return event

    def __iter__(self) -> Iterator[Event]:
        while True:
            event = self.read()
            if event is not None:
                yield event

    def close(self) -> None:
        """Stop listening."""
        self._reader.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


class _Reader(Protocol):
    def fileno(self) -> int: ...

    def read(self, timeout: float | None) -> Event | None: ...

    def close(self) -> None: ...


class _NetlinkReader:
    def __init__(self) -> None:
        try:
            self._netlink = Netlink(subscribe=True)
        except RefusedError as error:
            if error.number == errno.ENOENT:
                raise no_klpctl("there are no events", "events") from None
            raise refusal(error.number, "read", "events", extack=error.extack) from None

    def fileno(self) -> int:
        return self._netlink.fileno()

    def read(self, timeout: float | None) -> Event | None:
        end = None if timeout is None else time.monotonic() + timeout
        while True:
            left = None if end is None else max(0.0, end - time.monotonic())
            try:
                message = self._netlink.event(left)
            except RefusedError as error:
                # Some were lost: the next one's number tells how many.
                if error.number == errno.ENOBUFS:
                    continue
                raise refusal(error.number, "read", "events", extack=error.extack) from None
            if message is None:
                return None
            event = wire.event(message)
            if event is not None:
                return event

    def close(self) -> None:
        self._netlink.close()


class _UdevReader:
    def __init__(self) -> None:
        try:
            import pyudev
        except ImportError:
            raise UnsupportedError("events by udev need pyudev", feature="udev", remedy="pip install pyudev") from None
        _NetlinkReader().close()
        context = pyudev.Context()
        self._monitor = pyudev.Monitor.from_netlink(context, source="udev")
        self._monitor.filter_by("livepatch")
        self._monitor.start()

    def fileno(self) -> int:
        return int(self._monitor.fileno())

    def read(self, timeout: float | None) -> Event | None:
        end = None if timeout is None else time.monotonic() + timeout
        while True:
            left = None if end is None else max(0.0, end - time.monotonic())
            device = self._monitor.poll(None if left is None else min(left, LONGEST))
            if device is None:
                if left is not None and time.monotonic() >= (end or 0.0):
                    return None
                continue
            event = wire.uevent(device.properties)
            if event is not None:
                return event

    def close(self) -> None:
        # pyudev closes the descriptor when the monitor is no longer referred to.
        vars(self).pop("_monitor", None)
