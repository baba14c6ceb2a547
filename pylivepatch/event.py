# SPDX-License-Identifier: MIT
"""Events: what happened to a patch."""

from __future__ import annotations

import dataclasses
import enum
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from pylivepatch.state import PatchState, Target

__all__ = ["Action", "Event", "EventSource"]

EventSource = Literal["netlink", "udev"]


class Action(enum.StrEnum):
    """What happened."""

    REGISTERED = "registered"
    """Registered, or an ordinary live patch module seen first."""
    STARTED = "started"
    """A transition started."""
    REVERSED = "reversed"
    """The transition turned round; the target is the new one."""
    FORCED = "forced"
    """The transition is being forced."""
    COMPLETED = "completed"
    """The transition ended."""
    REPLACED = "replaced"
    """Another patch took its place."""
    UNREGISTERED = "unregistered"
    """The patch is gone."""
    PROGRESS = "progress"
    """Tasks have switched; ten times a second at the most, and not by udev. Has the
    number of the event before it."""
    CONFIRMED = "confirmed"
    """Somebody confirmed the patch."""
    EXPIRED = "expired"
    """Nobody confirmed the patch in time, or its owner is gone: the kernel reverts it."""


@dataclasses.dataclass(frozen=True, slots=True)
class Event:
    """Something that happened to a patch.

    Attributes:
        sequence: Rises by one with every event on the system; after a gap, read
            the patches anew.
        time: Seconds, CLOCK_MONOTONIC, as `time.monotonic` gives.
        action: What happened.
        name: Name of the patch.
        state: Where the patch stood after the event.
        target: Where the transition leads; None when the event is of none.
        registered: Registered with klpctl; otherwise an ordinary live patch module.
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
