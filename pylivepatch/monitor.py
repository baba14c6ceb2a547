# SPDX-License-Identifier: MIT
"""Events of all patches on the system, as they happen."""

from __future__ import annotations

import dataclasses
import enum
from typing import TYPE_CHECKING, Literal, NoReturn, Self

from pylivepatch.errors import BadDataError
from pylivepatch.kernel import close_after_fork, closed, require_shim

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pylivepatch.kernel.events import Reader
    from pylivepatch.state import PatchState, Target

__all__ = ["Action", "Event", "EventSource", "Monitor"]

EventSource = Literal["netlink", "udev"]


class Action(enum.StrEnum):
    """What happened."""

    REGISTERED = "registered"
    """Registered, or a standalone patch seen first."""
    STARTED = "started"
    """A transition started."""
    REVERSED = "reversed"
    """The transition was reversed; the target is the new one."""
    FORCED = "forced"
    """The transition is being forced."""
    COMPLETED = "completed"
    """The transition ended."""
    REPLACED = "replaced"
    """Another patch took its place."""
    UNREGISTERED = "unregistered"
    """The patch does not exist any more."""
    PROGRESS = "progress"
    """Tasks have switched; ten times a second at the most, and not by udev. Has the
    number of the event before it."""
    CONFIRMED = "confirmed"
    """Somebody confirmed the patch."""
    EXPIRED = "expired"
    """Nobody confirmed the patch in time, or its owner has ended: the kernel reverts it."""


@dataclasses.dataclass(frozen=True, slots=True)
class Event:
    """Something that happened to a patch.

    Attributes:
        sequence: Rises by one with every event on the system; after a gap, read
            the patches again.
        time: Seconds, CLOCK_MONOTONIC, as `time.monotonic` gives.
        action: What happened.
        name: Name of the patch.
        state: Where the patch stood after the event.
        target: Where the transition leads; None when the event is of none.
        registered: Registered with klpctl; otherwise a standalone patch.
        replace: It replaces all patches before it.
        forced: A transition of it was forced.
        source: How the event came: "netlink" or "udev".
        done: Tasks that have switched, with progress only.
        total: All tasks, with progress only.
    """

    sequence: int
    time: float
    action: Action
    name: str
    state: PatchState
    target: Target | None
    registered: bool
    replace: bool
    forced: bool
    source: EventSource
    done: int | None = None
    total: int | None = None


class Monitor:
    """Listens to events, of registered and of standalone patches alike.

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
            raise BadDataError(f"unknown event source {source!r}", remedy="give netlink or udev")
        require_shim()
        from pylivepatch.kernel.events import reader

        self.source: EventSource = source
        self._lost = 0
        self._newest: int | None = None
        self._open: Reader | None = reader(source)
        self._pid = close_after_fork(self)

    def __reduce__(self) -> NoReturn:
        raise TypeError("a Monitor cannot be pickled or copied: it is a connection of this process; open another there")

    @property
    def lost(self) -> int:
        """How many events were lost so far, by the gaps in their numbers."""
        return self._lost

    def fileno(self) -> int:
        """The descriptor, to poll: readable when `read` has something to take."""
        return self._reader().fileno()

    def read(self, timeout: float | None = None) -> Event | None:
        """Read the next event.

        Args:
            timeout: Seconds to wait; 0 to take only what is there, None for ever.

        Returns:
            The event, or None when there was none in time.
        """
        event = self._reader().read(timeout)
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
        """Stop listening; using it afterwards raises `ClosedError`. The second time does nothing."""
        reader, self._open = self._open, None
        if reader is not None:
            reader.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def _reader(self) -> Reader:
        if self._open is None:
            raise closed("Monitor", self._pid)
        return self._open
