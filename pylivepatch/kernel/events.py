# SPDX-License-Identifier: MIT
"""Where events come from: klpctl's netlink family, or udevd."""

from __future__ import annotations

import errno
import time
from typing import TYPE_CHECKING, Protocol

from pylivepatch.errors import UnsupportedError
from pylivepatch.kernel import wire
from pylivepatch.kernel.netlink import LONGEST, Netlink, RefusedError
from pylivepatch.kernel.refusal import no_klpctl, refusal

if TYPE_CHECKING:
    from pylivepatch.monitor import Event, EventSource


def reader(source: EventSource) -> Reader:
    """Listen to a source from now on.

    Raises:
        UnsupportedError: klpctl is not loaded, or pyudev is not installed.
    """
    return _NetlinkReader() if source == "netlink" else _UdevReader()


class Reader(Protocol):
    """Reads events from one source."""

    def fileno(self) -> int:
        """The descriptor, to poll."""

    def read(self, timeout: float | None) -> Event | None:
        """Read the next event; None when there is none in time."""

    def close(self) -> None:
        """Stop listening."""


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
