# SPDX-License-Identifier: MIT
"""The livepatch core through sysfs and /proc: trees captured on real kernels."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from pylivepatch import (
    Func,
    Object,
    PatchNotFoundError,
    PatchState,
    PatchStateError,
    Target,
    UnsupportedError,
)
from pylivepatch.kernel.sysfs import SysfsBackend

if TYPE_CHECKING:
    from pathlib import Path

LIVEPATCH = "sys/kernel/livepatch"


def test_patches(enabling: Path) -> None:
    """Patches have their states, and live patch modules that are not enabled are seen too."""
    states = {status.name: status.state for status in SysfsBackend(enabling).patches()}
    assert states == {
        "plp_cmdline": PatchState.REGISTERED,
        "plp_foreign": PatchState.ENABLED,
        "plp_hold": PatchState.ENABLING,
    }


def test_registered(enabling: Path) -> None:
    """Payloads are told from ordinary live patch modules by who holds klpctl."""
    registered = {status.name: status.registered for status in SysfsBackend(enabling).patches()}
    assert registered == {"plp_cmdline": True, "plp_foreign": False, "plp_hold": True}


def test_objects(enabling: Path) -> None:
    """Objects and functions are those of the directory names."""
    status = SysfsBackend(enabling).patch("plp_foreign")
    assert status.objects == (Object("vmlinux", (Func("loadavg_proc_show", 1),)),)


def test_replace_is_unknown_before_6_11(enabling: Path) -> None:
    """Where sysfs has no attribute replace, nothing is claimed about it."""
    assert SysfsBackend(enabling).patch("plp_foreign").replace is None
    assert not SysfsBackend(enabling).features().replace


def test_replace_is_known_since_6_11(disabling: Path) -> None:
    """Where sysfs has an attribute replace, it is read."""
    assert SysfsBackend(disabling).patch("plp_foreign").replace is False
    assert SysfsBackend(disabling).features().replace


@pytest.mark.parametrize(("tree", "target"), [("enabling", Target.PATCHED), ("disabling", Target.UNPATCHED)])
def test_progress(tree: str, target: Target, request: pytest.FixtureRequest) -> None:
    """Tasks are counted by their patch_state: all but the one that sleeps have switched."""
    backend = SysfsBackend(request.getfixturevalue(tree))
    progress = backend.patch("plp_hold").progress
    assert progress is not None
    assert progress.target is target
    assert progress.total > 1
    assert progress.pending == 1


@pytest.mark.parametrize("tree", ["enabling", "disabling"])
def test_tasks(tree: str, request: pytest.FixtureRequest) -> None:
    """The task that has not switched is known by its name."""
    tasks = SysfsBackend(request.getfixturevalue(tree)).tasks()
    assert [task.comm for task in tasks if task.pending] == ["python3"]
    assert len(tasks) > 1


def test_no_tasks_without_a_transition(enabling: Path) -> None:
    """There are no tasks of a transition when there is none."""
    (enabling / LIVEPATCH / "plp_hold/transition").write_text("0\n")
    assert SysfsBackend(enabling).tasks() == []


def test_a_task_that_exits_is_no_error(enabling: Path) -> None:
    """A process without threads, as one that is just exiting, is passed over."""
    (enabling / "proc/99999").mkdir()
    progress = SysfsBackend(enabling).patch("plp_hold").progress
    assert progress is not None
    assert progress.pending == 1


def test_no_such_patch(enabling: Path) -> None:
    """A patch that does not exist is not found; neither is a module that is no patch."""
    for name in ("gone", "klpctl", "plp_target"):
        with pytest.raises(PatchNotFoundError, match=name):
            SysfsBackend(enabling).patch(name)


def test_revert_writes_zero(enabling: Path) -> None:
    """Reverting an enabled patch is writing 0 to its attribute enabled."""
    SysfsBackend(enabling).revert("plp_foreign")
    assert (enabling / LIVEPATCH / "plp_foreign/enabled").read_text().startswith("0")


def test_revert_reverses(enabling: Path) -> None:
    """Reverting a patch that is being enabled turns it round."""
    SysfsBackend(enabling).revert("plp_hold")
    assert SysfsBackend(enabling).patch("plp_hold").state is PatchState.DISABLING


def test_enable_reverses(disabling: Path) -> None:
    """Enabling a patch that is being disabled turns it round."""
    SysfsBackend(disabling).enable("plp_hold")
    assert SysfsBackend(disabling).patch("plp_hold").state is PatchState.ENABLING


def test_force(enabling: Path) -> None:
    """Forcing is writing 1 to the attribute force of a patch in transition."""
    SysfsBackend(enabling).force("plp_hold")
    assert (enabling / LIVEPATCH / "plp_hold/force").read_text() == "1"


def test_nothing_is_written_in_the_wrong_state(enabling: Path) -> None:
    """Enabling twice, reverting what is not enabled, forcing without a transition: refused."""
    backend = SysfsBackend(enabling)
    before = [status.state for status in backend.patches()]
    with pytest.raises(PatchStateError, match="already enabled"):
        backend.enable("plp_foreign")
    with pytest.raises(PatchStateError, match="already enabled"):
        backend.enable("plp_hold")
    with pytest.raises(PatchStateError, match="not enabled"):
        backend.revert("plp_cmdline")
    with pytest.raises(PatchStateError, match="not in transition"):
        backend.force("plp_foreign")
    assert [status.state for status in backend.patches()] == before


def test_registered_patches_need_klpctl(enabling: Path) -> None:
    """What only klpctl can enable is named as that."""
    with pytest.raises(UnsupportedError, match="registered with klpctl") as error:
        SysfsBackend(enabling).enable("plp_cmdline")
    assert error.value.feature == "registered"


def test_disabled_patches_need_a_reload(enabling: Path) -> None:
    """The kernel does not enable a disabled patch, and that is said."""
    directory = enabling / LIVEPATCH / "plp_foreign"
    (directory / "enabled").write_text("0\n")
    with pytest.raises(UnsupportedError, match="load it again"):
        SysfsBackend(enabling).enable("plp_foreign")


def test_features_say_why(enabling: Path) -> None:
    """Each missing feature has its reason."""
    features = SysfsBackend(enabling).features()
    assert features.progress
    assert not features.events
    assert features.missing["events"].remedy


def test_no_livepatch(tmp_path: Path) -> None:
    """A kernel without the livepatch core is named as that."""
    with pytest.raises(UnsupportedError, match="CONFIG_LIVEPATCH"):
        SysfsBackend(tmp_path)


def test_busy(enabling: Path) -> None:
    """The patch in transition can be named."""
    assert SysfsBackend(enabling).busy() == "plp_hold"
