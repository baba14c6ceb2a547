# SPDX-License-Identifier: MIT
"""Commit-confirm: the kernel takes back what nobody confirms."""

from __future__ import annotations

import contextlib
import math
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from conftest import Sleeper, cmdline, until
from support import kernel

from pylivepatch import Action, Core, PatchState, PatchStateError, TransitionBusyError

Payload = Callable[[str], Path]
Sleep = Callable[..., Sleeper]

OWNER = """
import sys, time
from pylivepatch import Core
with Core("klpctl") as core:
    patch = core["{name}"]
    if "{when}" == "before":
        print("ready", flush=True)
        time.sleep(60)
    patch.enable(timeout=None, wait="{when}" != "during", confirm_within=float("{window}"))
    print("ready", flush=True)
    time.sleep(60)
"""


def owner(name: str, when: str, window: float = 60.0) -> subprocess.Popen[str]:
    """A process that enables a patch and never confirms it; ready when it says so."""
    code = OWNER.format(name=name, when=when, window=window)
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return process


@contextlib.contextmanager
def unchanged_but_disabled() -> Iterator[None]:
    """Insist that all is as before, but that a patch which was only registered is disabled now."""
    before = kernel()
    yield
    after = kernel()
    assert before.pop("patches") != after.pop("patches")
    assert after == before


def kill(process: subprocess.Popen[str]) -> None:
    """kill -9."""
    process.send_signal(signal.SIGKILL)
    process.wait(20)
    assert process.stdout is not None
    process.stdout.close()


@pytest.mark.smoke
def test_a_confirmed_patch_stays(core: Core, payload: Payload) -> None:
    """A patch that is confirmed in time stays enabled after its window, and after its owner."""
    patch = core.load(payload("plp_cmdline"))
    with Core("klpctl") as other, other.monitor() as monitor:
        other["plp_cmdline"].enable(confirm_within=60)
        assert patch.status().confirm_until is not None
        patch.confirm()
        assert patch.status().confirm_until is None
        event = monitor.read(timeout=20)
        while event is not None and event.action is not Action.CONFIRMED:
            event = monitor.read(timeout=20)
        assert event is not None
    assert patch.state is PatchState.ENABLED
    with pytest.raises(PatchStateError, match="no confirmation is awaited"):
        patch.confirm()
    assert cmdline() == "cmdline: patched"


@pytest.mark.smoke
def test_a_patch_that_nobody_confirms_is_taken_back(core: Core, payload: Payload) -> None:
    """When the window ends the kernel reverts the patch by itself, and says so."""
    before = cmdline()
    patch = core.load(payload("plp_cmdline"))
    with core.monitor() as monitor:
        patch.enable(confirm_within=8, owned=False)
        assert cmdline() == "cmdline: patched"
        until(lambda: patch.state is PatchState.DISABLED)
        assert cmdline() == before
        actions = []
        while (event := monitor.read(timeout=1)) is not None:
            if event.action is not Action.PROGRESS:
                actions.append((event.action, event.target and str(event.target)))
    assert actions == [
        (Action.STARTED, "patched"),
        (Action.COMPLETED, "patched"),
        (Action.EXPIRED, None),
        (Action.STARTED, "unpatched"),
        (Action.COMPLETED, "unpatched"),
    ]
    with pytest.raises(PatchStateError, match="its time is over"):
        patch.confirm()


def test_a_window_that_ends_in_mid_transition(core: Core, payload: Payload, sleeper: Sleep) -> None:
    """A window that ends while the patch is still being enabled turns the transition round."""
    sleeper()
    patch = core.load(payload("plp_hold"))
    transition = patch.enable(timeout=None, wait=False, confirm_within=1, owned=False)
    with pytest.raises(TransitionBusyError):
        patch.confirm()
    until(lambda: patch.state is PatchState.DISABLED)
    assert transition.blockers == []


@pytest.mark.parametrize("when", ["before", "during", "after"])
def test_killing_the_owner_takes_the_patch_back(core: Core, payload: Payload, sleeper: Sleep, when: str) -> None:
    """kill -9 of the owner before the start, in mid-transition or after completion: unpatched, nothing left."""
    if when == "during":
        sleeper()
    patch = core.load(payload("plp_hold"))
    # Infinite: no window runs, and the owner's end alone takes the patch back.
    process = owner("plp_hold", when, math.inf)
    expected = {"before": PatchState.REGISTERED, "during": PatchState.ENABLING, "after": PatchState.ENABLED}
    assert patch.state is expected[when]
    kill(process)
    until(lambda: patch.state in (PatchState.DISABLED, PatchState.REGISTERED))
    until(lambda: Path("/sys/module/plp_hold/refcnt").read_text() == "0\n")
    assert not Path("/sys/kernel/livepatch/plp_hold").exists()
    patch.unload()


@pytest.mark.smoke
def test_killing_the_owner_before_the_confirmation(core: Core, payload: Payload) -> None:
    """kill -9 after completion, while the window is still open: the kernel is as it was before."""
    patch = core.load(payload("plp_cmdline"))
    with unchanged_but_disabled():
        process = owner("plp_cmdline", "after", 600)
        assert patch.state is PatchState.ENABLED
        assert patch.status().confirm_until is not None
        assert cmdline() == "cmdline: patched"
        kill(process)
        until(lambda: patch.state is PatchState.DISABLED)
        until(lambda: Path("/sys/module/plp_cmdline/refcnt").read_text() == "0\n")
    assert patch.status().confirm_until is None
    patch.unload()


def test_taking_back_waits_for_another_transition(core: Core, payload: Payload, sleeper: Sleep) -> None:
    """While another patch is in transition the revert is tried again until it can start."""
    patch, other = core.load(payload("plp_cmdline")), core.load(payload("plp_hold"))
    process = owner("plp_cmdline", "after")
    held = sleeper()
    transition = other.enable(timeout=None, wait=False)
    kill(process)
    until(lambda: transition.progress().pending == 1)
    assert patch.state is PatchState.ENABLED
    held.wake()
    transition.wait()
    until(lambda: patch.state is PatchState.DISABLED)


def test_a_revert_ends_the_wait(core: Core, payload: Payload) -> None:
    """A patch that was reverted by hand and enabled anew is not taken back by the old window."""
    patch = core.load(payload("plp_cmdline"))
    patch.enable(confirm_within=60)
    patch.revert()
    assert patch.status().confirm_until is None
    patch.enable()
    assert patch.status().confirm_until is None


def test_a_foreign_patch_awaits_nothing(core: Core, payload: Payload) -> None:
    """Only registered patches can be enabled with a confirmation; others are as before."""
    core.load(payload("plp_foreign")).revert(timeout=60)
    with pytest.raises(Exception, match="plp_foreign"):
        core["plp_foreign"].enable(confirm_within=5)
    assert core["plp_foreign"].state is PatchState.DISABLED


@pytest.mark.parametrize("seconds", [0, -1, math.nan, math.inf])
def test_a_window_must_be_a_time(core: Core, payload: Payload, seconds: float) -> None:
    """No time, or no end without an owner, is refused before anything is asked of the kernel."""
    patch = core.load(payload("plp_cmdline"))
    with pytest.raises(ValueError, match="confirm"):
        patch.enable(confirm_within=seconds, owned=False)
    assert patch.state is PatchState.REGISTERED


def cli(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the command line."""
    return subprocess.run(
        [sys.executable, "-m", "pylivepatch", *arguments], capture_output=True, text=True, check=False, cwd="/"
    )


def test_a_check_that_succeeds_confirms(core: Core, payload: Payload) -> None:
    """enable --check lets the patch stay when the command succeeds, which sees the new behaviour."""
    patch = core.load(payload("plp_cmdline"))
    done = cli("enable", "plp_cmdline", "--check", "grep -q patched /proc/cmdline")
    assert done.returncode == 0, done.stderr
    assert patch.state is PatchState.ENABLED
    assert patch.status().confirm_until is None


def test_a_check_that_fails_takes_the_patch_back(core: Core, payload: Payload) -> None:
    """enable --check reverts when the command fails, and its exit code is 6."""
    patch = core.load(payload("plp_cmdline"))
    done = cli("enable", "plp_cmdline", "--check", "grep -q unheard-of /proc/cmdline")
    assert done.returncode == 6
    assert "the check of plp_cmdline failed with exit status 1" in done.stderr
    assert patch.state is PatchState.DISABLED


def test_a_check_that_fails_too_late(core: Core, payload: Payload) -> None:
    """A failed check is what is reported when the kernel has taken the patch back meanwhile, too."""
    patch = core.load(payload("plp_cmdline"))
    done = cli("enable", "plp_cmdline", "--confirm-within", "1", "--check", "sleep 4; false")
    assert done.returncode == 6, done.stderr
    assert patch.state is PatchState.DISABLED


def test_the_command_line_confirms_from_another_process(core: Core, payload: Payload) -> None:
    """enable --confirm-within leaves the patch to a later confirm."""
    patch = core.load(payload("plp_cmdline"))
    assert cli("enable", "plp_cmdline", "--confirm-within", "120").returncode == 0
    assert patch.status().confirm_until is not None
    assert cli("confirm", "plp_cmdline").returncode == 0
    assert patch.status().confirm_until is None
    assert patch.state is PatchState.ENABLED
    assert cli("confirm", "plp_cmdline").returncode == 8
