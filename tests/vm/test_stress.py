# SPDX-License-Identifier: MIT
"""Everything at once, for a minute, always with the same seed."""

from __future__ import annotations

from pathlib import Path

import pytest

from pylivepatch import lab

TOP = Path(__file__).parents[2]


def test_everything_at_once(pytestconfig: pytest.Config) -> None:
    """However many use klpctl at the same time: it says what the core says, and the kernel's log is clean."""
    status = lab.run(
        ["python3", str(TOP / "tests/harden/stress.py"), "60", "1"],
        kernel=pytestconfig.getoption("kernel"),
        flavour=pytestconfig.getoption("flavour"),
        cpus=2,
        shares=[TOP],
        modules=[TOP / "tests/payloads"],
        timeout=600,
    )
    assert status == 0
