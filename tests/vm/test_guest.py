# SPDX-License-Identifier: MIT
"""Runs guest/ in one guest."""

from __future__ import annotations

from pathlib import Path

import pytest

from pylivepatch import lab

TOP = Path(__file__).parents[2]
SECONDS = 2400.0


def test_guest(pytestconfig: pytest.Config, capfd: pytest.CaptureFixture[str]) -> None:
    """Every test in guest/ passes on the kernel and flavour that were asked for."""
    command = ["python3", "-m", "pytest", "-p", "no:cacheprovider", "-ra", "--durations=5", "tests/vm/guest"]
    if pytestconfig.getoption("smoke"):
        command += ["-m", "smoke"]
    # From 6.4 on a transition rewrites code on all CPUs, which takes seconds where two are emulated.
    cpus = pytestconfig.getoption("cpus") or (2 if pytestconfig.getoption("kernel") == "6.1" else 1)
    # What the guest's own pytest says counts: it belongs into the output.
    with capfd.disabled():
        status = lab.run(
            command,
            kernel=pytestconfig.getoption("kernel"),
            flavour=pytestconfig.getoption("flavour"),
            cpus=cpus,
            shares=[TOP],
            modules=[TOP / "tests/payloads"],
            timeout=SECONDS,
        )
    assert status == 0
