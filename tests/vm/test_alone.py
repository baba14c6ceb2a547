# SPDX-License-Identifier: MIT
"""What leaves a kernel changed for good, or needs another klpctl: each in a guest of its own."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest

from pylivepatch import lab

TOP = Path(__file__).parents[2]
SCRIPTS = TOP / "tests/vm/alone"
VERSION = re.compile(r"(?<=#define KLPCTL_VERSION\t\t)\d+")


def test_force(pytestconfig: pytest.Config) -> None:
    """A forced transition ends at once, is an event, and pins the module for ever."""
    status = lab.run(
        ["python3", str(SCRIPTS / "force.py")],
        kernel=pytestconfig.getoption("kernel"),
        flavour=pytestconfig.getoption("flavour"),
        shares=[TOP],
        modules=[TOP / "tests/payloads"],
        timeout=300,
    )
    assert status == 0


def test_an_idle_task_is_a_blocker(pytestconfig: pytest.Config) -> None:
    """The idle task of a running CPU holds a transition up, and is named as the blocker."""
    status = lab.run(
        ["python3", str(SCRIPTS / "idle.py")],
        kernel=pytestconfig.getoption("kernel"),
        flavour=pytestconfig.getoption("flavour"),
        cpus=2,
        shares=[TOP],
        modules=[TOP / "tests/payloads"],
        timeout=300,
    )
    assert status == 0


def test_a_klpctl_of_another_version_and_none(pytestconfig: pytest.Config, tmp_path: Path) -> None:
    """Without klpctl there is sysfs; a klpctl of another version is refused, with both versions."""
    other = tmp_path / "klpctl"
    shutil.copytree(TOP / "kmod", other, ignore=shutil.ignore_patterns("*.o", "*.ko", "*.mod*", ".*", "*.symvers"))
    header = other / "uapi/klpctl.h"
    text = header.read_text()
    [version] = VERSION.findall(text)
    header.write_text(VERSION.sub(str(int(version) + 1), text))
    status = lab.run(
        ["python3", str(SCRIPTS / "version.py"), version],
        kernel=pytestconfig.getoption("kernel"),
        flavour=pytestconfig.getoption("flavour"),
        shares=[TOP],
        modules=[other],
        klpctl=False,
        timeout=300,
    )
    assert status == 0
