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
        timeout=900,
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
        timeout=900,
    )
    assert status == 0


def variant(place: Path, **changes: tuple[str, str]) -> Path:
    """Copy klpctl's sources, and change words in some of them."""
    shutil.copytree(TOP / "kmod", place, ignore=shutil.ignore_patterns("*.o", "*.ko", "*.mod*", ".*", "*.symvers"))
    for name, (old, new) in changes.items():
        path = place / (name if name == "Kbuild" else f"{name}.c")
        text = path.read_text()
        assert old in text, f"{old} is not in {path.name}"
        path.write_text(text.replace(old, new))
    return place


def test_a_klpctl_that_sees_nothing(pytestconfig: pytest.Config, tmp_path: Path) -> None:
    """Where nothing can be probed klpctl says the truth all the same; where nothing can be read it is not loaded."""
    names = ("klpctl.o\n", "klpctl_none.o\n"), ("klpctl-y", "klpctl_none-y")
    blind = variant(
        tmp_path / "blind",
        watch=('"klp_start_transition"', '"klp_start_transition_not"'),
        reason=('"klp_check_and_switch_task"', '"klp_check_and_switch_task_not"'),
    )
    none = variant(tmp_path / "none", symbol=('"klp_target_state"', '"klp_target_state_not"'), Kbuild=names[0])
    (none / "Kbuild").write_text((none / "Kbuild").read_text().replace(*names[1]))
    status = lab.run(
        ["python3", str(SCRIPTS / "blind.py")],
        kernel=pytestconfig.getoption("kernel"),
        flavour=pytestconfig.getoption("flavour"),
        shares=[TOP],
        modules=[TOP / "tests/payloads", blind, none],
        timeout=900,
    )
    assert status == 0


def test_a_klpctl_of_another_version_and_none(pytestconfig: pytest.Config, tmp_path: Path) -> None:
    """Without klpctl there is sysfs; a klpctl of another version is refused, with both versions."""
    other = variant(tmp_path / "klpctl")
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
        timeout=900,
    )
    assert status == 0
