# SPDX-License-Identifier: MIT
"""Messages of the klpctl family, from attributes to values.

Every number comes from ``kmod/uapi/klpctl.h`` by way of the C compiler.
"""

from __future__ import annotations

import math
import time
from typing import TYPE_CHECKING, NamedTuple

from pylivepatch._shim import lib
from pylivepatch.monitor import Action, Event
from pylivepatch.state import Blocker, Func, Object, PatchState, PatchStatus, Progress, Reason, Target, Task

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

STATES = {
    lib.KLPCTL_STATE_REGISTERED: PatchState.REGISTERED,
    lib.KLPCTL_STATE_ENABLING: PatchState.ENABLING,
    lib.KLPCTL_STATE_ENABLED: PatchState.ENABLED,
    lib.KLPCTL_STATE_DISABLING: PatchState.DISABLING,
    lib.KLPCTL_STATE_DISABLED: PatchState.DISABLED,
    lib.KLPCTL_STATE_REPLACED: PatchState.REPLACED,
}
TARGETS = {
    lib.KLPCTL_TARGET_UNPATCHED: Target.UNPATCHED,
    lib.KLPCTL_TARGET_PATCHED: Target.PATCHED,
}
ACTIONS = {
    lib.KLPCTL_ACTION_REGISTERED: Action.REGISTERED,
    lib.KLPCTL_ACTION_STARTED: Action.STARTED,
    lib.KLPCTL_ACTION_REVERSED: Action.REVERSED,
    lib.KLPCTL_ACTION_FORCED: Action.FORCED,
    lib.KLPCTL_ACTION_COMPLETED: Action.COMPLETED,
    lib.KLPCTL_ACTION_REPLACED: Action.REPLACED,
    lib.KLPCTL_ACTION_UNREGISTERED: Action.UNREGISTERED,
    lib.KLPCTL_ACTION_PROGRESS: Action.PROGRESS,
    lib.KLPCTL_ACTION_CONFIRMED: Action.CONFIRMED,
    lib.KLPCTL_ACTION_EXPIRED: Action.EXPIRED,
}
REASONS = {
    lib.KLPCTL_REASON_UNKNOWN: Reason.UNKNOWN,
    lib.KLPCTL_REASON_RUNNING: Reason.RUNNING,
    lib.KLPCTL_REASON_UNRELIABLE: Reason.UNRELIABLE,
    lib.KLPCTL_REASON_SLEEPING: Reason.SLEEPING,
}
FOR_EVER = 2**64 - 1
NANOSECONDS = 1e-9


class Attribute(NamedTuple):
    """One attribute as the shim walks a message: depth first, a nest before its content."""

    type: int
    depth: int
    parent: int
    nested: bool
    number: int
    text: str


class Values:
    """The attributes directly inside one nest, by type; and the nests there."""

    def __init__(self) -> None:
        self.numbers: dict[int, int] = {}
        self.texts: dict[int, str] = {}
        self.nests: list[tuple[int, Values]] = []

    def nested(self, kind: int) -> list[Values]:
        """All nests of one type, in order."""
        return [values for nest, values in self.nests if nest == kind]


def tree(attributes: Iterable[Attribute]) -> Values:
    """Put the attributes of one message into their nests."""
    path = [Values()]
    for attribute in attributes:
        del path[attribute.depth + 1 :]
        inside = path[-1]
        if attribute.nested:
            values = Values()
            inside.nests.append((attribute.type, values))
            path.append(values)
        else:
            inside.numbers[attribute.type] = attribute.number
            inside.texts[attribute.type] = attribute.text
    return path[0]


def patch_status(message: Values, now: float | None = None) -> PatchStatus:
    """Read an answer to KLPCTL_CMD_PATCH_GET.

    Args:
        message: The answer.
        now: CLOCK_MONOTONIC time in seconds.
    """
    flags = message.numbers.get(lib.KLPCTL_A_FLAGS, 0)
    progress = started = None
    for transition in message.nested(lib.KLPCTL_A_TRANSITION):
        start = transition.numbers.get(lib.KLPCTL_A_TRANSITION_START, 0)
        started = start * NANOSECONDS if start else None
        now = time.monotonic() if now is None else now
        progress = Progress(
            target=TARGETS[transition.numbers[lib.KLPCTL_A_TRANSITION_TARGET]],
            done=transition.numbers.get(lib.KLPCTL_A_TRANSITION_DONE, 0),
            total=transition.numbers.get(lib.KLPCTL_A_TRANSITION_TOTAL, 0),
            elapsed=max(0.0, now - started) if started is not None else 0.0,
        )
    return PatchStatus(
        name=message.texts[lib.KLPCTL_A_NAME],
        state=STATES[message.numbers[lib.KLPCTL_A_STATE]],
        registered=bool(flags & lib.KLPCTL_PATCH_REGISTERED),
        replace=bool(flags & lib.KLPCTL_PATCH_REPLACE),
        forced=bool(flags & lib.KLPCTL_PATCH_FORCED),
        objects=_objects(message.nested(lib.KLPCTL_A_OBJECT)),
        progress=progress,
        started=started,
        confirm_until=_confirm_until(message.numbers.get(lib.KLPCTL_A_CONFIRM)),
    )


def _confirm_until(nanoseconds: int | None) -> float | None:
    if nanoseconds is None:
        return None
    return math.inf if nanoseconds == FOR_EVER else nanoseconds * NANOSECONDS


def _objects(nests: Iterable[Values]) -> tuple[Object, ...]:
    """One with very many functions comes in several nests of the same name."""
    found: dict[str, list[Func]] = {}
    for nest in nests:
        found.setdefault(nest.texts[lib.KLPCTL_A_OBJECT_NAME], []).extend(
            Func(func.texts[lib.KLPCTL_A_FUNC_NAME], func.numbers.get(lib.KLPCTL_A_FUNC_SYMPOS, 0))
            for func in nest.nested(lib.KLPCTL_A_OBJECT_FUNC)
        )
    return tuple(Object(name, tuple(funcs)) for name, funcs in found.items())


def tasks(message: Values) -> Iterable[Task]:
    """Read an answer to KLPCTL_CMD_TASK_GET."""
    for task in message.nested(lib.KLPCTL_A_TASK):
        yield Task(
            pid=task.numbers[lib.KLPCTL_A_TASK_PID],
            tid=task.numbers[lib.KLPCTL_A_TASK_TID],
            comm=task.texts.get(lib.KLPCTL_A_TASK_COMM, ""),
            pending=True,
            cpu=task.numbers.get(lib.KLPCTL_A_TASK_CPU),
        )


def blockers(message: Values) -> Iterable[Blocker]:
    """Read an answer to KLPCTL_CMD_TASK_GET about pending tasks."""
    for task in message.nested(lib.KLPCTL_A_TASK):
        stack = task.texts.get(lib.KLPCTL_A_TASK_STACK)
        yield Blocker(
            patch=message.texts[lib.KLPCTL_A_NAME],
            pid=task.numbers[lib.KLPCTL_A_TASK_PID],
            tid=task.numbers[lib.KLPCTL_A_TASK_TID],
            comm=task.texts.get(lib.KLPCTL_A_TASK_COMM, ""),
            reason=REASONS.get(task.numbers.get(lib.KLPCTL_A_TASK_REASON, 0), Reason.UNKNOWN),
            func=task.texts.get(lib.KLPCTL_A_TASK_FUNC),
            stack=tuple(stack.splitlines()) if stack else (),
            cpu=task.numbers.get(lib.KLPCTL_A_TASK_CPU),
        )


def event(message: Values) -> Event | None:
    """Read a KLPCTL_CMD_EVENT; None when its action is newer than this package."""
    action = ACTIONS.get(message.numbers[lib.KLPCTL_A_ACTION])
    if action is None:
        return None
    flags = message.numbers.get(lib.KLPCTL_A_FLAGS, 0)
    target = done = total = None
    for transition in message.nested(lib.KLPCTL_A_TRANSITION):
        target = TARGETS[transition.numbers[lib.KLPCTL_A_TRANSITION_TARGET]]
        done = transition.numbers.get(lib.KLPCTL_A_TRANSITION_DONE)
        total = transition.numbers.get(lib.KLPCTL_A_TRANSITION_TOTAL)
    return Event(
        sequence=message.numbers[lib.KLPCTL_A_SEQ],
        time=message.numbers[lib.KLPCTL_A_TIME] * NANOSECONDS,
        action=action,
        name=message.texts[lib.KLPCTL_A_NAME],
        state=STATES[message.numbers[lib.KLPCTL_A_STATE]],
        target=target,
        registered=bool(flags & lib.KLPCTL_PATCH_REGISTERED),
        replace=bool(flags & lib.KLPCTL_PATCH_REPLACE),
        forced=bool(flags & lib.KLPCTL_PATCH_FORCED),
        source="netlink",
        done=done,
        total=total,
    )


def uevent(properties: Mapping[str, str]) -> Event | None:
    """Read a uevent of SUBSYSTEM=livepatch; None when it is not klpctl's.

    ``udevadm trigger`` sends uevents of its own, without the LIVEPATCH_ properties.
    """
    try:
        target = properties.get("LIVEPATCH_TARGET")
        flags = int(properties.get("LIVEPATCH_FLAGS", "0"), 0)
        return Event(
            sequence=int(properties["LIVEPATCH_SEQ"]),
            time=int(properties["LIVEPATCH_TIME"]) * NANOSECONDS,
            action=Action(properties["LIVEPATCH_ACTION"]),
            name=properties["LIVEPATCH_NAME"],
            state=PatchState(properties["LIVEPATCH_STATE"]),
            target=Target(target) if target else None,
            registered=bool(flags & lib.KLPCTL_PATCH_REGISTERED),
            replace=bool(flags & lib.KLPCTL_PATCH_REPLACE),
            forced=bool(flags & lib.KLPCTL_PATCH_FORCED),
            source="udev",
        )
    except (KeyError, ValueError):
        return None
