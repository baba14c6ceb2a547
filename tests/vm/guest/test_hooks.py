# SPDX-License-Identifier: MIT
"""The shipped udev rule: it runs every program in the hook directory at each event."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from conftest import until
from support import cli

from pylivepatch import Core

HOOKS = Path("/etc/pylivepatch/hooks.d")
SAID = Path("/run/plp-hooks")
CYCLE = [
    "registered plp_cmdline",
    "started plp_cmdline",
    "completed plp_cmdline",
    "started plp_cmdline",
    "completed plp_cmdline",
    "unregistered plp_cmdline",
]


@pytest.fixture
def hooks() -> Iterator[Callable[..., None]]:
    """Make hooks, with what `install --system` has written."""
    SAID.mkdir()
    done = cli("install", "--system")
    assert done.returncode == 0, done.stderr
    subprocess.run(["udevadm", "control", "--reload"], check=True)

    def make(name: str, end: str = "", *, mode: int = 0o755) -> None:
        text = f'#!/bin/sh\necho "$LIVEPATCH_ACTION $LIVEPATCH_NAME" >>{SAID}/all\necho {name} >>{SAID}/order\n{end}\n'
        (HOOKS / name).write_text(text.replace("all", name))
        (HOOKS / name).chmod(mode)

    yield make
    for path in [*HOOKS.iterdir(), *SAID.iterdir()]:
        path.unlink()
    SAID.rmdir()
    assert cli("uninstall", "--system").returncode == 0
    assert not HOOKS.exists()
    subprocess.run(["udevadm", "control", "--reload"], check=True)


def cycle(core: Core, payload: Callable[[str], Path]) -> None:
    """Let a patch live."""
    patch = core.load(payload("plp_cmdline"))
    patch.enable()
    patch.revert()
    patch.unload()


def heard(name: str) -> list[str]:
    """What a hook was told."""
    path = SAID / name
    return path.read_text().splitlines() if path.exists() else []


@pytest.mark.smoke
def test_hooks_see_every_event(core: Core, payload: Callable[[str], Path], hooks: Callable[..., None]) -> None:
    """Each hook runs at each event of a patch's life, with the event in its environment, in the order of names."""
    hooks("20-second")
    hooks("10-first")
    cycle(core, payload)
    until(lambda: len(heard("order")) == 2 * len(CYCLE))
    assert heard("10-first") == heard("20-second") == CYCLE
    assert heard("order") == ["10-first", "20-second"] * len(CYCLE)


@pytest.mark.once
def test_a_failing_hook_stops_no_other(
    core: Core, payload: Callable[[str], Path], hooks: Callable[..., None]
) -> None:
    """A hook that fails, kills itself, or cannot even be run, leaves the others as they are."""
    hooks("10-fails", "exit 3")
    hooks("20-dies", "kill -KILL $$")
    hooks("30-nonsense")
    (HOOKS / "30-nonsense").write_text("#!/no/such/interpreter\n")
    hooks("40-works")
    cycle(core, payload)
    until(lambda: len(heard("40-works")) == len(CYCLE))
    assert heard("40-works") == heard("10-fails") == heard("20-dies") == CYCLE


@pytest.mark.once
def test_what_is_no_hook_is_left_alone(
    core: Core, payload: Callable[[str], Path], hooks: Callable[..., None]
) -> None:
    """Files that may not be executed, backups, leftovers of a package manager and directories are passed over."""
    (HOOKS / "05-directory").mkdir()
    hooks("10-notes", mode=0o644)
    for name in ("20-hook~", "30-hook.bak", "40-hook.dpkg-old", ".50-hidden", "60-hook.swp"):
        hooks(name)
    hooks("90-works")
    cycle(core, payload)
    until(lambda: len(heard("order")) == len(CYCLE))
    (HOOKS / "05-directory").rmdir()
    assert heard("order") == ["90-works"] * len(CYCLE)


@pytest.mark.once
def test_a_hook_that_hangs_is_stopped(
    core: Core, payload: Callable[[str], Path], hooks: Callable[..., None]
) -> None:
    """A hook that does not end is stopped, and the next one runs then, and so do the next events."""
    hooks("10-hangs", '[ "$LIVEPATCH_ACTION" != registered ] || exec sleep 1000')
    hooks("20-works")
    cycle(core, payload)
    until(lambda: len(heard("20-works")) == len(CYCLE), 120)
    assert heard("20-works") == heard("10-hangs") == CYCLE


@pytest.mark.once
def test_a_hook_that_others_may_write_is_passed_over(
    core: Core, payload: Callable[[str], Path], hooks: Callable[..., None]
) -> None:
    """Root runs nothing that somebody else can change: not the file, nor what a link leads to."""
    hooks("10-writable", mode=0o777)
    hooks("20-owned")
    os.chown(HOOKS / "20-owned", 1000, 1000)
    hooks("30-elsewhere")
    elsewhere = SAID / "elsewhere"
    shutil.move(HOOKS / "30-elsewhere", elsewhere)
    os.chown(elsewhere, 1000, 1000)
    (HOOKS / "30-elsewhere").symlink_to(elsewhere)
    hooks("90-works")
    cycle(core, payload)
    until(lambda: len(heard("order")) == len(CYCLE))
    assert heard("order") == ["90-works"] * len(CYCLE)
    HOOKS.chmod(0o777)
    cycle(core, payload)
    subprocess.run(["udevadm", "settle", "--timeout=120"], check=True)
    HOOKS.chmod(0o755)
    assert heard("order") == ["90-works"] * len(CYCLE)


@pytest.mark.once
def test_a_trigger_is_no_event(core: Core, payload: Callable[[str], Path], hooks: Callable[..., None]) -> None:
    """Coldplug and `udevadm trigger` send uevents that tell of nothing; no hook runs for them."""
    core.load(payload("plp_cmdline"))
    subprocess.run(["udevadm", "settle", "--timeout=120"], check=True)
    hooks("10-hook")
    for action in ("add", "change"):
        command = ["udevadm", "trigger", "--settle", f"--action={action}", "--subsystem-match=livepatch"]
        subprocess.run(command, check=True)
    assert heard("order") == []
