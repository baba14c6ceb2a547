# SPDX-License-Identifier: MIT
"""The same interface without klpctl: sysfs and /proc, by polling."""

from __future__ import annotations

import os
import stat
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from conftest import Sleeper, cmdline, until
from support import attempt, cli, said, unchanged

from pylivepatch import (
    Core,
    PatchNotFoundError,
    PatchState,
    PatchStateError,
    Target,
    TransitionTimeoutError,
    UnsupportedError,
)

Payload = Callable[[str], Path]
Sleep = Callable[..., Sleeper]
FOREIGN = "loadavg: foreign"


def loadavg() -> str:
    """What /proc/loadavg says."""
    return Path("/proc/loadavg").read_text().strip()


def test_a_patch_that_goes_before_the_write(tmp_path: Path) -> None:
    """ENODEV of a write, which kernfs says of a file that has gone, means that the patch has gone."""
    patch = tmp_path / "sys/kernel/livepatch/gone"
    patch.mkdir(parents=True)
    for name in ("enabled", "transition"):
        (patch / name).write_text("1\n")
    (tmp_path / "proc").mkdir()
    # A misc device that nobody has: open() says ENODEV.
    os.mknod(patch / "force", stat.S_IFCHR | 0o600, os.makedev(10, 254))
    with Core("sysfs", root=tmp_path) as core, pytest.raises(PatchNotFoundError, match="gone"):
        core["gone"].force(accept_risk=True)


@pytest.fixture
def sysfs(log: object) -> Iterator[Core]:
    """The livepatch core of a kernel without klpctl."""
    subprocess.run(["rmmod", "klpctl"], check=True)
    with Core("sysfs") as opened:
        yield opened
        # What a test left behind goes here: with klpctl loaded it would be somebody else's.
        for patch in opened.patches():
            if patch.state in (PatchState.ENABLED, PatchState.ENABLING):
                patch.revert(timeout=60)
            patch.unload()
    subprocess.run(["modprobe", "klpctl"], check=True)


@pytest.mark.smoke
def test_a_foreign_patch_lives_by_sysfs(sysfs: Core, payload: Payload) -> None:
    """Load is enable; status, waiting, revert and unload work as they do with klpctl."""
    assert not Path("/sys/module/klpctl").exists()
    original = len(loadavg().split())
    patch = sysfs.load(payload("plp_foreign"))
    transition = patch.transition
    if transition is not None:
        assert transition.target is Target.PATCHED
        steps = list(transition.within(120))
        assert steps[-1].done == steps[-1].total > 0
    assert patch.state is PatchState.ENABLED
    assert loadavg() == FOREIGN
    assert not patch.registered
    assert [(obj.name, [func.name for func in obj.funcs]) for obj in patch.objects] == [
        ("vmlinux", ["loadavg_proc_show"])
    ]
    assert list(sysfs) == ["plp_foreign"]
    with pytest.raises(PatchStateError, match="enabled"):
        patch.unload()
    reverted = patch.revert()
    assert reverted.finished
    assert len(loadavg().split()) == original
    assert patch.state is PatchState.DISABLED
    patch.unload()
    assert sysfs.patches() == []
    assert not Path("/sys/module/plp_foreign").exists()


def test_a_foreign_patch_is_enabled_again_by_a_reload(sysfs: Core, payload: Payload) -> None:
    """The kernel enables such a patch by loading alone: who loaded it may enable it again, others are told how."""
    patch = sysfs.load(payload("plp_foreign"))
    if transition := patch.transition:
        transition.wait()
    patch.revert()
    with unchanged("sysfs"), pytest.raises(UnsupportedError, match="load") as info:
        sysfs["plp_foreign"].enable()
    said(info.value, "plp_foreign", "load it again")
    patch.enable()
    assert loadavg() == FOREIGN


def test_progress_is_counted_in_proc(sysfs: Core, payload: Payload, sleeper: Sleep) -> None:
    """A held transition shows as pending the task that sleeps; it ends when that wakes, and waiting sees it."""
    held = sleeper()
    patch = sysfs.load(payload("plp_foreign_hold"), timeout=None, wait=False)
    transition = patch.transition
    assert transition is not None
    assert patch.state is PatchState.ENABLING
    until(lambda: transition.progress().pending == 1)
    pending = [task for task in transition.tasks() if task.pending]
    assert [(task.pid, task.comm) for task in pending] == [(held.process.pid, "echo")]
    progress = transition.progress()
    assert progress.total == pytest.approx(len(list(Path("/proc").glob("[0-9]*/task/*"))), abs=5)

    with pytest.raises(TransitionTimeoutError) as info:
        patch.transition.within(0.5, "report").wait()  # type: ignore[union-attr]
    assert not info.value.reversed
    held.wake()
    transition.within(60).wait()
    assert patch.state is PatchState.ENABLED


def test_a_deadline_reverses_by_sysfs_too(sysfs: Core, payload: Payload, sleeper: Sleep) -> None:
    """At the deadline the transition of a foreign patch is reversed through its `enabled` file."""
    sleeper()
    patch = sysfs.load(payload("plp_foreign_hold"), timeout=None, wait=False)
    with pytest.raises(TransitionTimeoutError) as info:
        patch.transition.within(0.5).wait()  # type: ignore[union-attr]
    assert info.value.reversed
    assert info.value.state is PatchState.DISABLED
    assert patch.state is PatchState.DISABLED


def test_what_is_missing_says_why(sysfs: Core, payload: Payload) -> None:
    """Without klpctl each absent feature has a reason and a remedy, and insisting on it repeats them."""
    features = sysfs.features
    assert features.progress
    for name in ("registered", "events", "fast", "standalone", "idle"):
        assert not getattr(features, name)
        assert "klpctl" in features.missing[name].reason
        assert "install klpctl" in features.missing[name].remedy
        with pytest.raises(UnsupportedError, match="klpctl is not used") as info:
            features.require(name)
        said(info.value, name)
    with pytest.raises(UnsupportedError, match="events"):
        sysfs.monitor()
    original = cmdline()
    with unchanged("sysfs"), pytest.raises(UnsupportedError, match="registers with klpctl") as info:
        sysfs.load(payload("plp_cmdline"))
    said(info.value, "plp_cmdline", "install klpctl")
    assert cmdline() == original
    done = cli("--backend", "sysfs", "load", payload("plp_cmdline"))
    assert done.returncode == 9, done
    # Nobody but root may count the tasks of others.
    [(kind, words)] = attempt(lambda core: core.features.require("progress"), backend="sysfs")
    assert kind == "UnsupportedError"
    assert "run it as root" in words


def test_both_backends_agree_on_a_foreign_patch(core: Core, payload: Payload, sleeper: Sleep) -> None:
    """In each state of a foreign patch klpctl and sysfs say the same of it, as far as sysfs can."""
    held = sleeper()
    patch = core.load(payload("plp_foreign_hold"), timeout=None, wait=False)
    with Core("sysfs") as other:

        def agree(state: PatchState) -> None:
            mine, theirs = patch.status(), other["plp_foreign_hold"].status()
            assert mine.state is theirs.state is state
            assert (mine.name, mine.registered, mine.forced) == (theirs.name, theirs.registered, theirs.forced)
            assert theirs.replace in (mine.replace, None)
            if state is not PatchState.DISABLED:
                assert [part.name for part in mine.objects] == [part.name for part in theirs.objects]
                funcs = [[func.name for func in part.funcs] for part in mine.objects]
                assert funcs == [[func.name for func in part.funcs] for part in theirs.objects]
            assert (mine.progress and mine.progress.target) == (theirs.progress and theirs.progress.target)

        agree(PatchState.ENABLING)
        until(lambda: patch.status().progress.pending == 1)  # type: ignore[union-attr]
        counted = other["plp_foreign_hold"].status().progress
        assert counted is not None
        assert counted.pending == 1
        held.wake()
        transition = patch.transition
        if transition:
            transition.wait()
        agree(PatchState.ENABLED)
        patch.revert()
        agree(PatchState.DISABLED)
