# SPDX-License-Identifier: MIT
"""Why a transition does not end: which task, where, and with what stack."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import Sleeper, until

from pylivepatch import Action, Core, PatchState, Reason, TransitionTimeoutError

Payload = Callable[[str], Path]
Sleep = Callable[..., Sleeper]


@pytest.mark.smoke
@pytest.mark.parametrize("backend", ["klpctl", "sysfs"])
def test_a_sleeping_task_is_named_with_its_function(
    core: Core, payload: Payload, sleeper: Sleep, backend: str
) -> None:
    """The blocker is the task that sleeps in the function: with reason, function and stack, either way."""
    held = sleeper()
    patch = core.load(payload("plp_hold"))
    transition = patch.enable(wait=False)
    until(lambda: transition.progress().pending == 1)
    with Core(backend) as other:  # type: ignore[arg-type]
        (blocker,) = other.blockers()
    assert (blocker.pid, blocker.comm, blocker.patch) == (held.process.pid, "echo", "plp_hold")
    assert blocker.reason is Reason.SLEEPING
    assert blocker.func == "plp_target_hold"
    assert any(line.startswith("plp_target_hold+") for line in blocker.stack), blocker.stack
    assert "echo" in str(blocker)
    assert "plp_target_hold of plp_hold" in str(blocker)
    held.wake()
    transition.wait()
    assert transition.blockers() == []


def test_the_deadline_names_who_held_it_up(core: Core, payload: Payload, sleeper: Sleep) -> None:
    """An enable that is reversed at its deadline tells which task in which function was in the way."""
    sleeper()
    patch = core.load(payload("plp_hold"))
    with pytest.raises(TransitionTimeoutError, match=r"echo .* sleeping in plp_target_hold of plp_hold") as info:
        patch.enable(timeout=3)
    assert [blocker.func for blocker in info.value.blockers] == ["plp_target_hold"]
    assert patch.state is PatchState.DISABLED


def test_a_revert_names_its_blockers_alike(core: Core, payload: Payload, sleeper: Sleep) -> None:
    """A task that sleeps in the new code holds up the revert, and is named with the function's name."""
    patch = core.load(payload("plp_hold"))
    patch.enable()
    held = sleeper("plp_hold")
    with pytest.raises(TransitionTimeoutError) as info:
        patch.revert(timeout=3)
    (blocker,) = info.value.blockers
    assert (blocker.pid, blocker.reason, blocker.func) == (held.process.pid, Reason.SLEEPING, "plp_target_hold")
    assert patch.state is PatchState.ENABLED


def test_a_reversal_that_does_not_end_names_its_blockers(core: Core, payload: Payload, sleeper: Sleep) -> None:
    """When one task sleeps in the old code and one in the new, neither way ends, and both are named."""
    old = sleeper()
    patch = core.load(payload("plp_hold"))
    transition = patch.enable(timeout=None, wait=False)
    new = sleeper("plp_hold")
    until(lambda: [blocker.pid for blocker in transition.blockers()] == [old.process.pid])
    transition.reverse()
    until(lambda: [blocker.pid for blocker in transition.blockers()] == [new.process.pid])
    assert patch.state is PatchState.DISABLING


def test_progress_is_an_event(core: Core, payload: Payload, sleeper: Sleep) -> None:
    """While a transition waits, listeners are told how many tasks have switched."""
    held = sleeper()
    patch = core.load(payload("plp_hold"))
    with core.monitor() as monitor:
        transition = patch.enable(wait=False)
        event = monitor.read(timeout=120)
        while event is not None and event.action is not Action.PROGRESS:
            event = monitor.read(timeout=120)
        assert event is not None
        assert event.name == "plp_hold"
        assert event.total is not None
        assert event.done is not None
        assert event.total - event.done >= 1
        held.wake()
        transition.wait()
        assert monitor.lost == 0
