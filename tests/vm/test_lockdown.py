# SPDX-License-Identifier: MIT
"""Closes a kernel to unsigned modules and then to all, in a guest of its own: there is no way back."""

from __future__ import annotations

from pathlib import Path

import pytest

from pylivepatch import lab

TOP = Path(__file__).parents[2]


def test_a_kernel_closed_to_modules(pytestconfig: pytest.Config) -> None:
    """Lockdown, enforced signatures and disabled modules are each found before the load, and refuse it."""
    status = lab.run(
        ["python3", str(TOP / "tests/vm/alone/lockdown.py")],
        kernel=pytestconfig.getoption("kernel"),
        flavour=pytestconfig.getoption("flavour"),
        shares=[TOP],
        modules=[TOP / "tests/payloads"],
        timeout=900,
    )
    assert status == 0
