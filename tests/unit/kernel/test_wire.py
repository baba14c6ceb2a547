# SPDX-License-Identifier: MIT
"""Messages of klpctl become values."""

from __future__ import annotations

from pylivepatch import Action, Func, Object, PatchState, Target, Task
from pylivepatch._shim import lib
from pylivepatch.kernel import wire as wire
from pylivepatch.kernel.wire import Attribute


def number(kind: int, value: int, depth: int = 0, parent: int = 0) -> Attribute:
    """A number, as the shim walks it."""
    return Attribute(kind, depth, parent, False, value, "")


def text(kind: int, value: str, depth: int = 0, parent: int = 0) -> Attribute:
    """A string, as the shim walks it."""
    return Attribute(kind, depth, parent, False, 0, value)


def nest(kind: int, depth: int = 0, parent: int = 0) -> Attribute:
    """A nest, as the shim walks it."""
    return Attribute(kind, depth, parent, True, 0, "")


def patch_message() -> list[Attribute]:
    """A patch in transition with two objects, of which one has two functions."""
    transition, part, func = lib.KLPCTL_A_TRANSITION, lib.KLPCTL_A_OBJECT, lib.KLPCTL_A_OBJECT_FUNC
    return [
        text(lib.KLPCTL_A_NAME, "fix"),
        number(lib.KLPCTL_A_STATE, lib.KLPCTL_STATE_ENABLING),
        number(lib.KLPCTL_A_FLAGS, lib.KLPCTL_PATCH_REGISTERED | lib.KLPCTL_PATCH_REPLACE),
        nest(transition),
        number(lib.KLPCTL_A_TRANSITION_TARGET, lib.KLPCTL_TARGET_PATCHED, 1, transition),
        number(lib.KLPCTL_A_TRANSITION_TOTAL, 66, 1, transition),
        number(lib.KLPCTL_A_TRANSITION_DONE, 65, 1, transition),
        number(lib.KLPCTL_A_TRANSITION_START, 2_000_000_000, 1, transition),
        nest(part),
        text(lib.KLPCTL_A_OBJECT_NAME, "vmlinux", 1, part),
        nest(func, 1, part),
        text(lib.KLPCTL_A_FUNC_NAME, "one", 2, func),
        number(lib.KLPCTL_A_FUNC_SYMPOS, 0, 2, func),
        nest(func, 1, part),
        text(lib.KLPCTL_A_FUNC_NAME, "two", 2, func),
        number(lib.KLPCTL_A_FUNC_SYMPOS, 3, 2, func),
        nest(part),
        text(lib.KLPCTL_A_OBJECT_NAME, "ext4", 1, part),
    ]


def test_patch() -> None:
    """A patch message has its objects and functions in their nests."""
    status = wire.patch_status(wire.tree(patch_message()), now=3.5)
    assert (status.name, status.state) == ("fix", PatchState.ENABLING)
    assert (status.registered, status.replace, status.forced) == (True, True, False)
    assert status.objects == (Object("vmlinux", (Func("one", 0), Func("two", 3))), Object("ext4"))


def test_progress() -> None:
    """The transition of a patch message counts tasks, and seconds since its start."""
    progress = wire.patch_status(wire.tree(patch_message()), now=3.5).progress
    assert progress is not None
    assert (progress.target, progress.done, progress.total) == (Target.PATCHED, 65, 66)
    assert progress.elapsed == 1.5


def test_tasks() -> None:
    """A task message tells idle tasks by their CPU."""
    task = lib.KLPCTL_A_TASK
    message = [
        text(lib.KLPCTL_A_NAME, "fix"),
        nest(task),
        number(lib.KLPCTL_A_TASK_PID, 0, 1, task),
        number(lib.KLPCTL_A_TASK_TID, 0, 1, task),
        text(lib.KLPCTL_A_TASK_COMM, "swapper/1", 1, task),
        number(lib.KLPCTL_A_TASK_CPU, 1, 1, task),
    ]
    assert list(wire.tasks(wire.tree(message))) == [Task(0, 0, "swapper/1", True, 1)]


def event_message() -> list[Attribute]:
    """The end of a transition."""
    transition = lib.KLPCTL_A_TRANSITION
    return [
        number(lib.KLPCTL_A_SEQ, 7),
        number(lib.KLPCTL_A_TIME, 8_080_735_244),
        number(lib.KLPCTL_A_ACTION, lib.KLPCTL_ACTION_COMPLETED),
        text(lib.KLPCTL_A_NAME, "fix"),
        number(lib.KLPCTL_A_FLAGS, lib.KLPCTL_PATCH_REGISTERED),
        number(lib.KLPCTL_A_STATE, lib.KLPCTL_STATE_DISABLED),
        nest(transition),
        number(lib.KLPCTL_A_TRANSITION_TARGET, lib.KLPCTL_TARGET_UNPATCHED, 1, transition),
    ]


def properties() -> dict[str, str]:
    """The same event as udev has it."""
    return {
        "SUBSYSTEM": "livepatch",
        "LIVEPATCH_NAME": "fix",
        "LIVEPATCH_ACTION": "completed",
        "LIVEPATCH_SEQ": "7",
        "LIVEPATCH_STATE": "disabled",
        "LIVEPATCH_TIME": "8080735244",
        "LIVEPATCH_TARGET": "unpatched",
        "LIVEPATCH_FLAGS": "1",
    }


def test_event() -> None:
    """An event message has its number, time, action, states and target."""
    event = wire.event(wire.tree(event_message()))
    assert (event.sequence, event.action, event.name) == (7, Action.COMPLETED, "fix")
    assert (event.state, event.target) == (PatchState.DISABLED, Target.UNPATCHED)
    assert abs(event.time - 8.080735244) < 1e-9
    assert event.registered
    assert event.source == "netlink"


def test_udev_says_the_same() -> None:
    """An event by udev differs from the one by netlink in its source only."""
    by_udev, by_netlink = wire.uevent(properties()), wire.event(wire.tree(event_message()))
    assert by_udev is not None
    assert by_udev.source == "udev"
    for field in ("sequence", "time", "action", "name", "state", "target", "registered", "forced"):
        assert getattr(by_udev, field) == getattr(by_netlink, field)


def test_other_uevents_are_passed_over() -> None:
    """A uevent without our properties, as udevadm trigger sends it, is no event."""
    assert wire.uevent({"SUBSYSTEM": "livepatch", "ACTION": "change"}) is None
    assert wire.uevent({**properties(), "LIVEPATCH_ACTION": "danced"}) is None


def test_every_number_has_its_word() -> None:
    """States, targets and actions of the wire are those of the API, one to one."""
    assert set(wire.STATES.values()) == set(PatchState)
    assert set(wire.TARGETS.values()) == set(Target)
    assert set(wire.ACTIONS.values()) == set(Action)
    assert sorted(wire.STATES) == list(range(len(PatchState)))
    assert sorted(wire.ACTIONS) == list(range(len(Action)))
