# SPDX-License-Identifier: MIT
"""Sequences whose process is killed: the kernel takes back what they had enabled."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import Sleeper, until

from pylivepatch import Core, PatchState

pytestmark = pytest.mark.once

Payload = Callable[[str], Path]
Sleep = Callable[..., Sleeper]
FIRST = ["plp_cmdline", "plp_cmdline2", "plp_module"]


def test_killed_between_steps(target: str, payload: Payload, core: Core, tmp_path: Path) -> None:
    """After kill -9 in a health check the kernel itself takes back all that was enabled; the check holds nothing."""
    file, started = tmp_path / "plan.toml", tmp_path / "started"
    steps = [f'[[step]]\nfile = "{payload(name)}"\n' for name in FIRST]
    steps.append(f'check = "echo $$ > {started}; exec sleep 600"\ncheck_timeout = inf\n')
    file.write_text("".join(steps))
    process = subprocess.Popen([sys.executable, "-m", "pylivepatch", "apply", file], stderr=subprocess.DEVNULL)
    until(lambda: started.exists() and started.read_text().endswith("\n"))
    process.kill()
    process.wait()
    until(lambda: all(status.state is PatchState.DISABLED for status in core.status()))
    assert {status.name for status in core.status()} == set(FIRST)
    os.kill(int(started.read_text()), signal.SIGKILL)


def test_killed_in_the_fourth_of_five(sleeper: Sleep, payload: Payload, core: Core) -> None:
    """After kill -9 the kernel itself takes back all that the sequence had enabled."""
    sleeper()
    names = [*FIRST, "plp_hold"]
    command = [sys.executable, "-m", "pylivepatch", "apply", *(str(payload(name)) for name in names)]
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    until(lambda: any(s.name == "plp_hold" and s.state is PatchState.ENABLING for s in core.status()))
    process.kill()
    process.wait()
    until(lambda: all(status.state is PatchState.DISABLED for status in core.status()))
    assert {status.name for status in core.status()} == set(names)
