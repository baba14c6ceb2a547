# SPDX-License-Identifier: MIT
"""The main job: load, enable, revert, enable again, unload."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import Sleeper, Workload, cmdline, parameter, until

from pylivepatch import Core, PatchState, PatchStateError, Target

pytestmark = pytest.mark.smoke
Payload = Callable[[str], Path]


def test_loading_registers_and_changes_nothing(core: Core, payload: Payload) -> None:
    """A payload that is loaded is registered, and its functions are as before."""
    before = cmdline()
    patch = core.load(payload("plp_cmdline"))
    assert patch.state is PatchState.REGISTERED
    assert patch.registered
    assert cmdline() == before
    assert not Path("/sys/kernel/livepatch/plp_cmdline").exists()
    patch.unload()


def test_objects_name_what_the_patch_replaces(core: Core, payload: Payload) -> None:
    """Objects, functions, sympos and replace are known before the patch is enabled."""
    patch = core.load(payload("plp_states"))
    assert [(obj.name, [(func.name, func.sympos) for func in obj.funcs]) for obj in patch.objects] == [
        ("vmlinux", [("cmdline_proc_show", 1)]),
        ("plp_target", [("plp_target_show", 0)]),
    ]
    assert patch.replace is False


def test_enable_revert_and_enable_again_without_reload(core: Core, payload: Payload, workload: Workload) -> None:
    """A running program sees the new behaviour come, go and come again, without an error."""
    original = cmdline()
    patch = core.load(payload("plp_cmdline"))
    for _ in range(2):
        enabled = patch.enable()
        assert enabled.finished
        assert patch.state is PatchState.ENABLED
        workload.sees("cmdline: patched")
        reverted = patch.revert()
        assert reverted.target is Target.UNPATCHED
        assert patch.state is PatchState.DISABLED
        workload.sees(original)
    workload.stop()
    assert workload.errors == []
    assert workload.seen == [original, "cmdline: patched", original, "cmdline: patched", original]
    patch.unload()
    assert "plp_cmdline" not in core


def test_progress_ends_with_all_tasks(core: Core, payload: Payload) -> None:
    """Iterating over a transition yields progress that never goes back and ends with all tasks done."""
    patch = core.load(payload("plp_cmdline"))
    with patch.enable(wait=False) as transition:
        steps = list(transition)
    assert steps[-1].done == steps[-1].total
    assert all(step.done <= step.total for step in steps)
    assert transition.duration > 0


def test_a_with_block_that_fails_reverts_the_patch(core: Core, payload: Payload) -> None:
    """An exception in the with block leaves the patch reverted."""
    patch = core.load(payload("plp_cmdline"))
    with pytest.raises(ZeroDivisionError), patch.enable(wait=False):
        raise ZeroDivisionError
    until(lambda: not patch.state.in_transition)
    assert patch.state in (PatchState.DISABLED, PatchState.ENABLED)
    if patch.state is PatchState.ENABLED:
        patch.revert()


def test_enabling_twice_is_refused(core: Core, payload: Payload) -> None:
    """An enabled patch cannot be enabled, and stays enabled."""
    patch = core.load(payload("plp_cmdline"))
    patch.enable()
    with pytest.raises(PatchStateError, match="enabled"):
        patch.enable()
    assert patch.state is PatchState.ENABLED


def test_reverting_what_is_not_enabled_is_refused(core: Core, payload: Payload) -> None:
    """A patch that is only registered, or was reverted already, cannot be reverted."""
    patch = core.load(payload("plp_cmdline"))
    with pytest.raises(PatchStateError, match="not enabled"):
        patch.revert()
    patch.enable()
    patch.revert()
    with pytest.raises(PatchStateError, match="not enabled"):
        patch.revert()
    assert patch.state is PatchState.DISABLED


def test_unloading_what_is_enabled_is_refused(core: Core, payload: Payload) -> None:
    """An enabled patch cannot be unloaded, and stays enabled."""
    patch = core.load(payload("plp_cmdline"))
    patch.enable()
    with pytest.raises(PatchStateError, match="revert it first"):
        patch.unload()
    assert cmdline() == "cmdline: patched"


def test_callbacks_run_each_time(core: Core, payload: Payload) -> None:
    """Each enable and each revert runs the callbacks once."""
    patch = core.load(payload("plp_prefail"), params={"fail": 0})
    for count in ("1", "2"):
        patch.enable()
        patch.revert()
        until(lambda: parameter("plp_prefail", "unpost") == count)  # noqa: B023
        assert [parameter("plp_prefail", name) for name in ("pre", "post", "unpre")] == [count] * 3


def test_a_callback_finds_the_states_of_its_patch(core: Core, payload: Payload) -> None:
    """klp_get_state() works in a callback of a registered patch."""
    patch = core.load(payload("plp_states"))
    patch.enable()
    assert parameter("plp_states", "found") == "Y"


def test_transitions_carry_times_of_this_clock(core: Core, payload: Payload) -> None:
    """A transition's start lies between the calls, on the clock of time.monotonic()."""
    patch = core.load(payload("plp_cmdline"))
    before = time.monotonic()
    transition = patch.enable()
    assert before <= transition.started <= time.monotonic()


def test_deadlines_of_months(core: Core, payload: Payload) -> None:
    """A deadline longer than the kernel's own waiting knows is one all the same."""
    with core.monitor() as monitor:
        assert core.load(payload("plp_cmdline")).enable(timeout=1e7).finished
        assert monitor.read(timeout=1e7) is not None


def test_fast_completion_kicks_and_can_be_turned_off(
    core: Core, payload: Payload, sleeper: Callable[..., Sleeper]
) -> None:
    """When the last task has switched the core is made to look at once, unless that is turned off."""
    patch = core.load(payload("plp_hold"))

    def kicks() -> int:
        before = core.features.kicks
        held = sleeper()
        transition = patch.enable(timeout=None, wait=False)
        # Seldom the core's own retry comes first.
        time.sleep(0.3)
        held.wake()
        transition.wait()
        patch.revert()
        return core.features.kicks - before

    assert core.features.fast
    assert any(kicks() > 0 for _ in range(20))
    parameter("klpctl", "fast_completion", "N")
    try:
        assert not core.features.fast
        assert kicks() == 0
    finally:
        parameter("klpctl", "fast_completion", "Y")
