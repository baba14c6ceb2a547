# SPDX-License-Identifier: MIT
"""Patches, on captured trees."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from pylivepatch import BadDataError, Core, Patch, PatchState, PatchStateError, Target, UnsupportedError

if TYPE_CHECKING:
    from pathlib import Path

HOLD = "sys/kernel/livepatch/plp_hold"


def test_properties(enabling: Path) -> None:
    """A patch says where it stands and what it changes."""
    patch = Core(root=enabling)["plp_foreign"]
    assert patch.state is PatchState.ENABLED
    assert not patch.registered
    assert patch.replace is None
    assert patch.objects[0].funcs[0].name == "loadavg_proc_show"
    assert patch.transition is None


def test_properties_are_live(enabling: Path) -> None:
    """Each property asks the kernel anew."""
    patch = Core(root=enabling)["plp_hold"]
    states = [patch.state]
    (enabling / HOLD / "transition").write_text("0\n")
    states.append(patch.state)
    assert states == [PatchState.ENABLING, PatchState.ENABLED]


def test_a_running_transition(enabling: Path) -> None:
    """A transition that somebody else started is found, with its target."""
    transition = Core(root=enabling)["plp_hold"].transition
    assert transition is not None
    assert transition.target is Target.PATCHED
    assert not transition.finished
    assert transition.progress().pending == 1
    assert [task.comm for task in transition.tasks() if task.pending] == ["python3"]


def test_enable_twice(enabling: Path) -> None:
    """Enabling an enabled patch is refused, and nothing is waited for."""
    with pytest.raises(PatchStateError, match="already enabled"):
        Core(root=enabling)["plp_foreign"].enable()


def test_a_reload_promises_no_confirmation(enabling: Path) -> None:
    """An ordinary module is not loaded anew for an enable that must be confirmed: nothing would take it back."""
    (enabling / "sys/kernel/livepatch/plp_foreign").rename(enabling / "gone")
    core = Core(root=enabling)
    patch = Patch("plp_foreign", core.kernel, lambda: pytest.fail("it was loaded"))
    assert patch.state is PatchState.DISABLED
    with pytest.raises(UnsupportedError, match="reverts what nobody confirms"):
        patch.enable(confirm_within=5)


@pytest.mark.parametrize("name", ["plp_foreign", "plp_hold"])
def test_unload_what_is_enabled(enabling: Path, name: str) -> None:
    """Unloading an enabled patch, or one in transition, is refused with the way out."""
    with pytest.raises(PatchStateError, match="cannot unload") as error:
        Core(root=enabling)[name].unload()
    assert error.value.remedy


def test_force_needs_a_word(enabling: Path) -> None:
    """Forcing without accepting the risk is refused, and nothing is written."""
    with pytest.raises(BadDataError, match="risk"):
        Core(root=enabling)["plp_hold"].force(accept_risk=False)
    assert (enabling / HOLD / "force").read_text() == ""


def test_bad_timeout(enabling: Path) -> None:
    """A deadline in the past is refused before anything is started."""
    patch = Core(root=enabling)["plp_foreign"]
    with pytest.raises(BadDataError):
        patch.revert(timeout=0)
    assert patch.state is PatchState.ENABLED
