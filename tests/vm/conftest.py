# SPDX-License-Identifier: MIT
"""The vm lane: `test_*.py` here run on the host, those in guest/ inside a kernel of the lab."""

from __future__ import annotations

import os

import pytest

collect_ignore = [] if os.environ.get("PYLIVEPATCH_LAB") else ["guest"]


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("vm")
    group.addoption("--kernel", default="6.1", help="kernel series (default: 6.1)")
    group.addoption("--flavour", default="standard", help="standard, cloud or rt")
    group.addoption("--smoke", action="store_true", help="only the tests marked smoke")
