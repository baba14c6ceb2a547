# SPDX-License-Identifier: MIT
"""Runs guest/ in one guest."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from pylivepatch import lab
from pylivepatch.lab import accel

TOP = Path(__file__).parents[2]
SECONDS = 2400.0


def test_guest(pytestconfig: pytest.Config, capfd: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """Every test in guest/ passes on the kernel and flavour that were asked for."""
    report = tmp_path / "guest.xml"
    command = ["python3", "-m", "pytest", "-p", "no:cacheprovider", "-ra", f"--junit-xml={report}", "tests/vm/guest"]
    if pytestconfig.getoption("smoke"):
        command += ["-m", "smoke"]
    elif pytestconfig.getoption("share") == "kernel":
        command += ["-m", "not once"]
    kernel, flavour = pytestconfig.getoption("kernel"), pytestconfig.getoption("flavour")
    # Where a transition rewrites code on all CPUs, it takes seconds with two that are emulated.
    quick = accel.for_kernel(accel.TCG, lab.resolve(kernel, flavour).vmlinux) == accel.TCG
    cpus = pytestconfig.getoption("cpus") or (2 if quick else 1)
    # What the guest's own pytest says counts: it belongs into the output.
    with capfd.disabled():
        status = lab.run(
            command,
            kernel=kernel,
            flavour=flavour,
            cpus=cpus,
            shares=[TOP],
            writable=[tmp_path],
            modules=[TOP / "tests/payloads"],
            timeout=SECONDS,
        )
    if pytestconfig.option.xmlpath and report.exists():
        shutil.copy(report, Path(pytestconfig.option.xmlpath).with_suffix(".guest.xml"))
    assert status == 0
