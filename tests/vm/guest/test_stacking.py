# SPDX-License-Identifier: MIT
"""Several patches: stacked, replaced, foreign, and of modules that come and go."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import MODULES, KernelLog, cmdline, until

from pylivepatch import Core, Patch, PatchState, PatchStateError, UnsupportedError

Payload = Callable[[str], Path]
TARGET = Path("/proc/plp_target")


def loadavg() -> str:
    """What /proc/loadavg says."""
    return Path("/proc/loadavg").read_text().strip()


def load_foreign(core: Core, payload: Payload) -> Patch:
    """Load the ordinary livepatch module, and wait for its transition."""
    patch = core.load(payload("plp_foreign"))
    transition = patch.transition
    if transition is not None:
        transition.wait()
    return patch


@pytest.mark.smoke
def test_the_newest_of_two_stacked_patches_wins(core: Core, payload: Payload) -> None:
    """Two patches of one function stack; reverting the upper one uncovers the lower."""
    original = cmdline()
    lower, upper = core.load(payload("plp_cmdline")), core.load(payload("plp_cmdline2"))
    lower.enable()
    upper.enable()
    assert cmdline() == "cmdline: patched twice"
    upper.revert()
    assert cmdline() == "cmdline: patched"
    upper.enable()
    lower.revert()
    assert cmdline() == "cmdline: patched twice"
    upper.revert()
    assert cmdline() == original


@pytest.mark.smoke
def test_an_atomic_replace_replaces_all_others(core: Core, payload: Payload) -> None:
    """After an atomic replace the others are replaced, can be unloaded, and can be enabled anew."""
    lower, upper = core.load(payload("plp_cmdline")), core.load(payload("plp_cmdline2"))
    foreign = load_foreign(core, payload)
    other = core.load(payload("plp_module"))
    lower.enable()
    upper.enable()

    replace = core.load(payload("plp_replace"))
    assert replace.replace is True
    replace.enable()
    assert cmdline() == "cmdline: replaced"
    assert loadavg() != "loadavg: foreign"
    assert [patch.state for patch in (lower, upper, foreign)] == [PatchState.REPLACED] * 3
    assert other.state is PatchState.REGISTERED

    foreign.unload()
    upper.unload()
    lower.enable()
    assert cmdline() == "cmdline: patched"
    lower.revert()
    assert cmdline() == "cmdline: replaced"
    replace.revert()


def test_a_replaced_patch_is_not_enabled(core: Core, payload: Payload) -> None:
    """A replaced patch cannot be reverted."""
    lower, replace = core.load(payload("plp_cmdline")), core.load(payload("plp_replace"))
    lower.enable()
    replace.enable()
    with pytest.raises(PatchStateError, match="not enabled"):
        lower.revert()


@pytest.mark.smoke
def test_a_foreign_patch_is_enabled_by_loading(core: Core, payload: Payload) -> None:
    """An ordinary livepatch module is seen, shown and reverted like any other."""
    original_fields = len(loadavg().split())
    patch = load_foreign(core, payload)
    assert loadavg() == "loadavg: foreign"
    assert patch.state is PatchState.ENABLED
    assert not patch.registered
    assert [(obj.name, [func.name for func in obj.funcs]) for obj in patch.objects] == [
        ("vmlinux", ["loadavg_proc_show"])
    ]
    patch.revert()
    assert patch.state is PatchState.DISABLED
    assert len(loadavg().split()) == original_fields
    patch.unload()
    assert core.patches() == []


def test_a_foreign_patch_is_not_enabled_again_by_name(core: Core, payload: Payload) -> None:
    """An ordinary livepatch module that was disabled must be loaded anew: its patch says so."""
    load_foreign(core, payload).revert()
    with pytest.raises(UnsupportedError, match="load"):
        core["plp_foreign"].enable()
    assert core["plp_foreign"].state is PatchState.DISABLED


@pytest.mark.smoke
def test_a_module_that_is_loaded_later_is_patched_then(core: Core, payload: Payload) -> None:
    """A patch of a module that is not there is enabled all the same, and takes effect when it comes."""
    patch = core.load(payload("plp_module"))
    patch.enable()
    assert patch.state is PatchState.ENABLED
    for _ in range(2):
        subprocess.run(["insmod", MODULES / "plp_target.ko"], check=True)
        assert TARGET.read_text() == "target: patched\n"
        subprocess.run(["rmmod", "plp_target"], check=True)
    subprocess.run(["insmod", MODULES / "plp_target.ko"], check=True)
    patch.revert()
    assert TARGET.read_text() == "target: original\n"


def test_a_patch_of_two_objects_patches_both(core: Core, payload: Payload, target: str) -> None:
    """A patch of vmlinux and of a module changes both, and changes both back."""
    patch = core.load(payload("plp_states"))
    patch.enable()
    assert (cmdline(), TARGET.read_text()) == ("state", "state\n")
    patch.revert()
    assert TARGET.read_text() == "target: original\n"
    assert cmdline() != "state"


def test_a_failed_enable_leaves_stacked_patches_alone(core: Core, payload: Payload, log: KernelLog) -> None:
    """A patch that the core refuses changes nothing of those that are enabled."""
    log.expect("pre-patch callback failed")
    log.expect("failed to enable patch")
    lower = core.load(payload("plp_cmdline"))
    lower.enable()
    failing = core.load(payload("plp_prefail"), params={"fail": -123})
    with pytest.raises(OSError, match="plp_prefail"):
        failing.enable()
    assert failing.state is PatchState.REGISTERED
    assert lower.state is PatchState.ENABLED
    assert cmdline() == "cmdline: patched"
    until(lambda: not Path("/sys/kernel/livepatch/plp_prefail").exists())
