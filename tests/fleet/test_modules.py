# SPDX-License-Identifier: MIT
"""Runs the tests of the Ansible collection's modules in a guest of their own: they take minutes."""

from __future__ import annotations

from pathlib import Path

from pylivepatch import lab

TOP = Path(__file__).parents[2]


def test_modules() -> None:
    """Every test of them passes."""
    command = ["python3", "-m", "pytest", "-p", "no:cacheprovider", "-ra", "tests/vm/guest/ansible_modules.py"]
    status = lab.run(command, kernel="6.1", cpus=1, shares=[TOP], modules=[TOP / "tests/payloads"], timeout=1200)
    assert status == 0
