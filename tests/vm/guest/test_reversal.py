# SPDX-License-Identifier: MIT
"""Transitions that cannot end: a task sleeps in the function that changes."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import KernelLog, Sleeper, cmdline, until

from pylivepatch import (
    Core,
    PatchState,
    Target,
    TransitionBusyError,
    TransitionReversedError,
    TransitionTimeoutError,
)

Payload = Callable[[str], Path]
Sleep = Callable[..., Sleeper]
SHORT = 0.5


@pytest.mark.smoke
def test_an_enable_is_reversed_at_its_deadline(core: Core, payload: Payload, sleeper: Sleep) -> None:
    """An enable that a sleeping task holds up is reversed at the deadline: nothing has changed."""
    sleeper()
    patch = core.load(payload("plp_hold"))
    with pytest.raises(TransitionTimeoutError) as info:
        patch.enable(timeout=SHORT)
    assert info.value.reversed
    assert info.value.state is PatchState.DISABLED
    assert info.value.progress.pending >= 1
    assert patch.state is PatchState.DISABLED
    assert patch.transition is None


def test_a_deadline_can_leave_the_transition_going(core: Core, payload: Payload, sleeper: Sleep) -> None:
    """With the policy "report" the transition goes on after the deadline, and ends when it can."""
    held = sleeper()
    patch = core.load(payload("plp_hold"))
    with pytest.raises(TransitionTimeoutError) as info:
        patch.enable(timeout=SHORT, on_timeout="report")
    assert not info.value.reversed
    assert patch.state is PatchState.ENABLING
    transition = patch.transition
    assert transition is not None
    assert transition.target is Target.PATCHED
    held.wake()
    transition.wait()
    assert patch.state is PatchState.ENABLED


@pytest.mark.smoke
def test_a_revert_is_reversed_at_its_deadline(core: Core, payload: Payload, sleeper: Sleep) -> None:
    """A revert that a task sleeping in the new code holds up is reversed: the patch stays enabled."""
    patch = core.load(payload("plp_hold"))
    patch.enable()
    sleeper("plp_hold")
    with pytest.raises(TransitionTimeoutError) as info:
        patch.revert(timeout=SHORT)
    assert info.value.reversed
    assert patch.state is PatchState.ENABLED


@pytest.mark.smoke
def test_a_reversal_in_mid_transition(core: Core, payload: Payload, sleeper: Sleep) -> None:
    """Reverting what is being enabled, and enabling what is being disabled, turn the transition round."""
    held = sleeper()
    patch = core.load(payload("plp_hold"))
    patch.enable(wait=False)
    assert patch.state is PatchState.ENABLING
    patch.revert()
    assert patch.state is PatchState.DISABLED
    held.wake()

    patch.enable()
    held = sleeper("plp_hold")
    patch.revert(wait=False)
    assert patch.state is PatchState.DISABLING
    patch.enable()
    assert patch.state is PatchState.ENABLED
    held.wake()
    patch.revert()
    assert patch.state is PatchState.DISABLED


def test_ctrl_c_in_a_bare_call_reverses(core: Core, payload: Payload, sleeper: Sleep) -> None:
    """Ctrl-C while enable() itself waits turns the transition round, and waits for that."""
    sleeper()
    patch = core.load(payload("plp_hold"))
    waiter = threading.get_ident()

    def interrupt() -> None:
        with Core("klpctl") as other:
            until(lambda: other["plp_hold"].state is PatchState.ENABLING)
        time.sleep(SHORT)
        signal.pthread_kill(waiter, signal.SIGINT)

    thread = threading.Thread(target=interrupt)
    thread.start()
    with pytest.raises(KeyboardInterrupt):
        patch.enable(timeout=None)
    thread.join()
    assert patch.state is PatchState.DISABLED


def test_the_waiter_learns_that_another_reversed(core: Core, payload: Payload, sleeper: Sleep) -> None:
    """Who waits for a transition that somebody else turns round gets an error that says so."""
    sleeper()
    patch = core.load(payload("plp_hold"))
    transition = patch.enable(wait=False)
    with Core("klpctl") as other:
        other["plp_hold"].revert()
    with pytest.raises(TransitionReversedError):
        transition.wait()
    assert patch.state is PatchState.DISABLED


@pytest.mark.smoke
def test_one_transition_at_a_time(core: Core, payload: Payload, sleeper: Sleep) -> None:
    """While a patch is in transition no other can be enabled, reverted or loaded; it is named."""
    original = cmdline()
    enabled, second = core.load(payload("plp_cmdline2")), core.load(payload("plp_cmdline"))
    enabled.enable()
    sleeper()
    first = core.load(payload("plp_hold"))
    first.enable(wait=False)

    for operation in (second.enable, enabled.revert, lambda: core.load(payload("plp_foreign"))):
        with pytest.raises(TransitionBusyError, match="plp_hold") as info:
            operation()
        assert info.value.patch == "plp_hold"
    assert second.state is PatchState.REGISTERED
    assert enabled.state is PatchState.ENABLED
    assert not Path("/sys/module/plp_foreign").exists()
    assert cmdline() == "cmdline: patched twice"
    first.revert()
    enabled.revert()
    assert cmdline() == original


def test_tasks_tell_who_is_pending(core: Core, payload: Payload, sleeper: Sleep) -> None:
    """The task dump names the sleeping task as pending and this process as done; the counts agree."""
    held = sleeper()
    patch = core.load(payload("plp_hold"))
    transition = patch.enable(wait=False)
    until(lambda: transition.progress().pending == 1)
    tasks = transition.tasks()
    assert [(task.pid, task.comm) for task in tasks if task.pending] == [(held.process.pid, "echo")]
    assert any(task.pid == os.getpid() and not task.pending for task in tasks)
    assert {task.cpu for task in tasks if task.pid == 0} == set(range(os.cpu_count() or 0))
    progress = transition.progress()
    assert progress.total == pytest.approx(len(tasks), abs=10)
    patch.revert()
    assert transition.tasks() == []


def test_the_core_s_signals_free_a_task_that_can_be_interrupted(
    core: Core, payload: Payload, sleeper: Sleep, log: KernelLog
) -> None:
    """A task in interruptible sleep is signalled by the core, and restarts its call in the new code."""
    held = sleeper(interruptible=True)
    patch = core.load(payload("plp_hold"))
    patch.enable(timeout=60)
    assert any("signaling remaining tasks" in line for line in log.lines())
    assert held.process.wait(120) == 0
