# SPDX-License-Identifier: MIT
"""The vm lane: `test_*.py` here run on the host, those in guest/ inside a kernel of the lab."""

from __future__ import annotations

import os

import pytest

ONCE = "6.1"
"""The series whose lane has what does not depend on the kernel."""

collect_ignore = [] if os.environ.get("PYLIVEPATCH_LAB") else ["guest"]


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("vm")
    group.addoption("--kernel", default="6.1", help="kernel series (default: 6.1)")
    group.addoption("--flavour", default="standard", help="standard, cloud or rt")
    group.addoption("--cpus", type=int, help="of the guest that runs guest/ (default: 2 on 6.1, otherwise 1)")
    group.addoption("--smoke", action="store_true", help="in one guest, and only the tests marked smoke there")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if config.getoption("smoke"):
        others = [item for item in items if item.path.name != "test_guest.py"]
    elif config.getoption("kernel") != ONCE:
        others = [item for item in items if item.get_closest_marker("once")]
    else:
        return
    config.hook.pytest_deselected(items=others)
    items[:] = [item for item in items if item not in others]
