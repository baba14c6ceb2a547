# SPDX-License-Identifier: MIT
"""Installed patches in a kernel that runs: applied by hand as at boot, and not by everybody."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from conftest import KernelLog, Sleeper
from support import cli, unchanged

from pylivepatch import Boot, BootOutcome, Core, PatchState, Store, TransitionReversedError

pytestmark = pytest.mark.once

VAR = Path("/var/lib/pylivepatch")
Payload = Callable[[str], Path]


@pytest.fixture
def store() -> Iterator[Store]:
    """The machine's store, empty before and after."""
    shutil.rmtree(VAR, ignore_errors=True)
    yield Store()
    shutil.rmtree(VAR)


def outcomes(store: Store) -> list[tuple[str, BootOutcome]]:
    """One boot, with an orderly end."""
    with Boot(store) as boot:
        return [(step.patch.name, step.outcome) for step in boot.apply()]


def test_by_hand(core: Core, payload: Payload, store: Store) -> None:
    """Patches of both kinds are applied in their order; a second time they are left alone."""
    for name in ("plp_foreign", "plp_cmdline"):
        store.install(payload(name))
    with Boot(store) as boot:
        assert [step.outcome for step in boot.apply()] == [BootOutcome.APPLIED] * 2
        assert boot.on_trial == ("plp_foreign", "plp_cmdline")
    assert [patch.state for patch in core.patches()] == [PatchState.ENABLED] * 2
    assert outcomes(store) == [("plp_foreign", BootOutcome.ALREADY), ("plp_cmdline", BootOutcome.ALREADY)]


def test_parameters(core: Core, payload: Payload, store: Store, log: KernelLog) -> None:
    """A patch is loaded with its parameters; one that refuses itself leaves nothing, and does not stop the next."""
    log.expect("pre-patch callback failed")
    log.expect("failed to enable patch")
    store.install(payload("plp_prefail"), params={"fail": -123})
    store.install(payload("plp_cmdline"))
    with Boot(store) as boot:
        assert [step.outcome for step in boot.apply()] == [BootOutcome.FAILED, BootOutcome.APPLIED]
        assert boot.on_trial == ("plp_cmdline",)
    assert [patch.name for patch in core.patches()] == ["plp_cmdline"]


def test_reversed(core: Core, payload: Payload, store: Store, sleeper: Callable[..., Sleeper]) -> None:
    """A patch whose transition was reversed has failed, stays on trial until the end, and is unloaded."""
    sleeper()
    store.install(payload("plp_hold"))
    with core.monitor() as monitor, Boot(store) as boot:
        steps = boot.apply()

        def reverse() -> None:
            while (event := monitor.read(timeout=120)) and str(event.action) != "started":
                pass
            core.patch("plp_hold").revert(wait=False)

        thread = threading.Thread(target=reverse)
        thread.start()
        (step,) = steps
        thread.join()
        assert step.outcome is BootOutcome.FAILED
        assert isinstance(step.error, TransitionReversedError)
        assert boot.on_trial == ("plp_hold",)
    assert core.patches() == []


def test_an_ordinary_user(payload: Payload, store: Store) -> None:
    """An ordinary user is told nothing of what is installed, and changes neither that nor the kernel."""
    with unchanged():
        denied = cli("install", payload("plp_cmdline"), user=True)
        assert denied.returncode == 3, denied.stderr
        store.install(payload("plp_cmdline"))
        for words in (["install", "--list"], ["uninstall", "plp_cmdline"], ["boot"], ["install", "--system"]):
            denied = cli(*words, user=True)
            assert denied.returncode == 3, denied.stderr
            assert "run it as root" in denied.stderr
            assert ("cannot read the installed patches" in denied.stderr) is (words[-1] != "--system"), denied.stderr
    assert [patch.name for patch in store.patches()] == ["plp_cmdline"]
