# SPDX-License-Identifier: MIT
"""Installed patches: applied at boot by the unit's own command, the kill switch, and the memory of crashes."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pylivepatch import lab

TOP = Path(__file__).parents[2]
SCRIPT = TOP / "tests/vm/alone/boot.py"
UNIT = TOP / "systemd/pylivepatch.service"
PATCHES = ("plp_foreign", "plp_cmdline")
ENABLED = dict.fromkeys(PATCHES, "enabled")
KILL_SWITCH = "pylivepatch.enable=0"
OTHER = {"6.1": "6.12", "6.12": "6.1"}

Boot = Callable[..., dict[str, Any]]


@pytest.fixture
def boot(pytestconfig: pytest.Config, tmp_path: Path) -> Boot:
    """Boot a machine whose store outlives it: what the boot told, before it ended as was asked."""
    store = tmp_path / "store"
    store.mkdir()

    def run(end: str, *install: str, kernel: str | None = None, parameters: str = "") -> dict[str, Any]:
        out = io.BytesIO()
        lost = None
        try:
            status = lab.run(
                ["python3", str(SCRIPT), str(store), str(UNIT), end, *install],
                kernel=kernel or pytestconfig.getoption("kernel"),
                flavour=pytestconfig.getoption("flavour"),
                shares=[TOP],
                writable=[store],
                modules=[TOP / "tests/payloads"],
                parameters=parameters,
                timeout=900,
                stdout=out,
            )
        except lab.GuestLostError as error:
            lost = error
        else:
            assert status == 0
        assert (lost is not None) is end.endswith("crash"), lost
        if lost:
            assert "sysrq triggered crash" in lost.console
        told: dict[str, Any] = json.loads(out.getvalue())
        return told

    return run


def test_installed_patches_are_applied_at_boot(boot: Boot) -> None:
    """They are applied in their order, and again after an ordinary reboot, though within the minute."""
    first = boot("shutdown", *PATCHES)
    assert first["patches"] == ENABLED
    assert first["during"] == list(PATCHES)
    assert first["after"] == []
    assert first["status"] == 0
    assert first["output"].splitlines() == [f"{name}: applied" for name in PATCHES]
    assert first["notified"][-1] == "READY=1"
    second = boot("shutdown")
    assert second["patches"] == ENABLED
    assert second["output"] == first["output"]
    assert [each["crashed"] for each in second["installed"]] == [False, False]


def test_the_kill_switch(boot: Boot) -> None:
    """With pylivepatch.enable=0 on the kernel's command line nothing is applied, by the unit or by the command."""
    told = boot("settle", *PATCHES, parameters=KILL_SWITCH)
    assert told["patches"] == {}
    assert told["during"] == []
    assert told["status"] == 0
    assert KILL_SWITCH in told["output"]
    [condition] = told["unit"]["ConditionKernelCommandLine"]
    assert condition == f"!{KILL_SWITCH}"
    assert KILL_SWITCH in told["cmdline"]


def test_a_crash_within_the_minute_is_remembered(boot: Boot) -> None:
    """A patch after which the machine crashed is not applied again, and says so, until it is installed again."""
    assert boot("crash", "plp_cmdline")["patches"] == {"plp_cmdline": "enabled"}
    told = boot("shutdown", "plp_foreign")
    assert told["before"] == ["plp_cmdline"]
    assert told["patches"] == {"plp_foreign": "enabled"}
    assert told["during"] == ["plp_foreign"]
    assert [(each["name"], each["crashed"]) for each in told["installed"]] == [
        ("plp_cmdline", True),
        ("plp_foreign", False),
    ]
    assert "plp_cmdline is not applied: the machine crashed within a minute" in told["output"]
    assert "the machine crashed within a minute" in told["listed"]
    assert told["status"] == 0  # it was stopped
    third = boot("settle")
    assert third["patches"] == {"plp_foreign": "enabled"}
    assert "plp_cmdline is not applied" in third["output"]
    assert third["status"] == 8
    fourth = boot("shutdown", "plp_cmdline")
    assert fourth["patches"] == ENABLED
    assert [each["name"] for each in fourth["installed"]] == ["plp_cmdline", "plp_foreign"]


def test_a_crash_after_the_minute_is_another_matter(boot: Boot) -> None:
    """When the trial has ended, the machine may crash: the patch is applied at the next boot."""
    settled = boot("settle+crash", "plp_cmdline")
    assert settled["patches"] == {"plp_cmdline": "enabled"}
    assert settled["during"] == []
    told = boot("settle")
    assert told["patches"] == {"plp_cmdline": "enabled"}
    assert told["output"] == "plp_cmdline: applied\n"
    assert told["status"] == 0


@pytest.mark.once
def test_another_kernel_gets_nothing(boot: Boot, pytestconfig: pytest.Config) -> None:
    """What is installed for one kernel is not applied when another one runs."""
    boot("shutdown", "plp_cmdline")
    told = boot("settle", kernel=OTHER[pytestconfig.getoption("kernel")])
    assert told["patches"] == {}
    assert told["output"] == ""
    assert [each["name"] for each in told["installed"]] == ["plp_cmdline"]
