# SPDX-License-Identifier: MIT
"""Commit-confirm: the kernel takes back what nobody confirms."""

from __future__ import annotations

import contextlib
import json
import math
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Literal

import pytest
from conftest import Sleeper, cmdline, until, window
from support import kernel

from pylivepatch import (
    Action,
    AlreadyError,
    ClosedError,
    ConfirmationExpiredError,
    Core,
    PatchState,
    PatchStateError,
    TransitionBusyError,
    UnsupportedError,
)

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
    patch.enable(timeout=None, wait="{when}" != "during", confirm_within=float("{window}"), owned=True)
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
    process.wait(120)
    assert process.stdout is not None
    process.stdout.close()


@pytest.mark.smoke
def test_a_confirmed_patch_stays(core: Core, payload: Payload) -> None:
    """A patch that is confirmed in time stays enabled after its window, and after its owner."""
    patch = core.load(payload("plp_cmdline"))
    with pytest.raises(PatchStateError, match="it is registered; nothing has changed; enable it, with a time"):
        patch.confirm()
    with Core("klpctl") as other, other.monitor() as monitor:
        other["plp_cmdline"].enable(confirm_within=60)
        assert patch.status().confirm_until is not None
        patch.confirm()
        assert patch.status().confirm_until is None
        event = monitor.read(timeout=120)
        while event is not None and event.action is not Action.CONFIRMED:
            event = monitor.read(timeout=120)
        assert event is not None
    assert patch.state is PatchState.ENABLED
    with pytest.raises(AlreadyError, match="awaits no confirmation"):
        patch.confirm()
    assert not patch.confirm(if_needed=True)
    assert cmdline() == "cmdline: patched"


@pytest.mark.smoke
def test_a_patch_that_nobody_confirms_is_taken_back(core: Core, payload: Payload) -> None:
    """When the window ends the kernel reverts the patch by itself, and says so."""
    before = cmdline()
    patch = core.load(payload("plp_cmdline"))
    seconds = window(patch, 4)
    with core.monitor() as monitor:
        patch.enable(confirm_within=seconds)
        assert cmdline() == "cmdline: patched"
        until(lambda: patch.state is PatchState.DISABLED)
        assert cmdline() == before
        actions = []
        while actions[-1:] != [(Action.COMPLETED, "unpatched")]:
            event = monitor.read(timeout=120)
            assert event is not None
            if event.action is not Action.PROGRESS:
                actions.append((event.action, event.target and str(event.target)))
    assert actions == [
        (Action.STARTED, "patched"),
        (Action.COMPLETED, "patched"),
        (Action.EXPIRED, None),
        (Action.STARTED, "unpatched"),
        (Action.COMPLETED, "unpatched"),
    ]
    with pytest.raises(ConfirmationExpiredError, match="not confirmed in time") as info:
        patch.confirm()
    assert info.value.state is PatchState.DISABLED
    with pytest.raises(PatchStateError, match="was not confirmed in time, or was reverted"):
        core["plp_cmdline"].confirm()


def test_a_window_that_ends_in_mid_transition(core: Core, payload: Payload, sleeper: Sleep) -> None:
    """A window that ends while the patch is still being enabled turns the transition round."""
    patch = core.load(payload("plp_hold"))
    seconds = window(patch)
    sleeper()
    transition = patch.enable(timeout=None, wait=False, confirm_within=seconds)
    with pytest.raises(TransitionBusyError):
        patch.confirm()
    until(lambda: patch.state is PatchState.DISABLED)
    assert transition.blockers() == []
    with pytest.raises(ConfirmationExpiredError, match="not confirmed in time"):
        transition.wait()


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
    with pytest.raises(UnsupportedError, match="plp_foreign"):
        core["plp_foreign"].enable(confirm_within=5)
    assert core["plp_foreign"].state is PatchState.DISABLED


@pytest.mark.once
@pytest.mark.parametrize("seconds", [0, -1, math.nan, math.inf])
def test_a_window_must_be_a_time(core: Core, payload: Payload, seconds: float) -> None:
    """No time, or no end without an owner, is refused before anything is asked of the kernel."""
    patch = core.load(payload("plp_cmdline"))
    with pytest.raises(ValueError, match="confirm"):
        patch.enable(confirm_within=seconds, owned=False)
    assert patch.state is PatchState.REGISTERED


def descriptors() -> list[str]:
    """What this process has open of klpctl."""
    names = [str(path.readlink()) for path in Path("/proc/self/fd").iterdir() if path.is_symlink()]
    return sorted(name for name in names if name == "/dev/klpctl" or name.startswith("socket:"))


@pytest.mark.parametrize("backend", ["klpctl", "sysfs"])
def test_a_closed_core_changes_nothing(core: Core, payload: Payload, backend: Literal["klpctl", "sysfs"]) -> None:
    """What is closed is closed: each call raises, nothing is asked of the kernel, and nothing is opened again."""
    core.load(payload("plp_cmdline"))
    closed = Core(backend)
    patch, before = closed["plp_cmdline"], descriptors()
    closed.close()
    assert len(descriptors()) <= len(before)
    left = descriptors()
    for call in (
        patch.status, patch.enable, lambda: patch.enable(confirm_within=5), patch.confirm, patch.revert, patch.unload,
        lambda: patch.transition, lambda: patch.force(accept_risk=True), closed.patches, closed.status,
        closed.blockers, closed.monitor, lambda: closed["plp_cmdline"], lambda: closed.features,
        lambda: closed.load(payload("plp_cmdline2")), lambda: closed.preflight(payload("plp_cmdline2")),
        lambda: closed.info("plp_cmdline"), lambda: closed.fixes("CVE-2026-1234"), closed.unload_replaced,
    ):  # fmt: skip
        with pytest.raises(ClosedError):
            call()
    closed.close()
    assert descriptors() == left
    assert core["plp_cmdline"].state is PatchState.REGISTERED
    assert list(core) == ["plp_cmdline"]


def test_a_forked_child_holds_nothing(core: Core, payload: Payload) -> None:
    """The end of the owner reverts the patch though a child lives, and the two do not share a connection."""
    patch = core.load(payload("plp_cmdline"))
    owning = Core("klpctl")
    owned = owning["plp_cmdline"]
    owned.enable(confirm_within=math.inf, owned=True)
    down, up = os.pipe(), os.pipe()
    child = os.fork()
    if child == 0:
        result = 1
        try:
            os.read(down[0], 1)
            try:
                owned.status()
            except ClosedError as error:
                result = 0 if "forked" in str(error) and Core("klpctl")["plp_cmdline"] else 2
            os.write(up[1], b"x")
            os.read(down[0], 1)
        finally:
            os._exit(result)
    os.write(down[1], b"x")
    for _ in range(50):
        assert owned.status().state is PatchState.ENABLED
    os.read(up[0], 1)
    owning.close()
    until(lambda: patch.state is PatchState.DISABLED)
    os.write(down[1], b"x")
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    for end in (*down, *up):
        os.close(end)


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


@pytest.mark.once
def test_a_check_that_fails_takes_the_patch_back(core: Core, payload: Payload) -> None:
    """enable --check reverts when the command fails, and its exit code is 6."""
    patch = core.load(payload("plp_cmdline"))
    done = cli("enable", "plp_cmdline", "--check", "grep -q unheard-of /proc/cmdline")
    assert done.returncode == 6
    assert "the check of plp_cmdline failed with exit status 1" in done.stderr
    assert patch.state is PatchState.DISABLED


@pytest.mark.once
def test_a_check_that_fails_too_late(core: Core, payload: Payload) -> None:
    """A failed check is what is reported when the kernel has taken the patch back meanwhile, too."""
    patch = core.load(payload("plp_cmdline"))
    late = "while [ -e /sys/kernel/livepatch/plp_cmdline ]; do sleep 0.2; done; false"
    done = cli("enable", "plp_cmdline", "--confirm-within", str(window(patch)), "--check", late)
    assert done.returncode == 6, done.stderr
    assert patch.state is PatchState.DISABLED


@pytest.mark.once
def test_a_check_that_succeeds_too_late(core: Core, payload: Payload) -> None:
    """When the kernel has reverted the patch before the check has succeeded, that is what is reported."""
    patch = core.load(payload("plp_cmdline"))
    done = cli("enable", "plp_cmdline", "--confirm-within", "1", "--check", "sleep 4", "--json")
    assert done.returncode == 6, done.stderr
    error = json.loads(done.stderr)["error"]
    assert error["type"] == "ConfirmationExpiredError"
    assert "not confirmed in time (1 s)" in error["message"]
    assert error["state"] == "disabled"
    assert patch.state is PatchState.DISABLED


def test_a_window_that_is_shorter_than_the_transition(core: Core, payload: Payload, sleeper: Sleep) -> None:
    """The command does not blame somebody else for what its own --confirm-within did."""
    sleeper()
    patch = core.load(payload("plp_hold"))
    done = cli("enable", "plp_hold", "--timeout", "60", "--confirm-within", "1")
    assert done.returncode == 6, done.stderr
    assert "not confirmed in time (1 s)" in done.stderr
    assert "somebody else" not in done.stderr
    assert patch.state is PatchState.DISABLED


def test_the_command_line_confirms_from_another_process(core: Core, payload: Payload) -> None:
    """enable --confirm-within leaves the patch to a later confirm."""
    patch = core.load(payload("plp_cmdline"))
    assert cli("enable", "plp_cmdline", "--confirm-within", "120").returncode == 0
    assert patch.status().confirm_until is not None
    assert cli("confirm", "plp_cmdline").returncode == 0
    assert patch.status().confirm_until is None
    assert patch.state is PatchState.ENABLED
    assert cli("confirm", "plp_cmdline").returncode == 10
