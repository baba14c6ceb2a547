# SPDX-License-Identifier: MIT
"""The vm lane: `test_*.py` here run on the host, those in guest/ inside a kernel of the lab."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

import pytest

from pylivepatch import lab

ONCE = "6.1"
"""The series whose lane has what does not depend on the kernel."""

RAN = Path(__file__).parents[2] / "build/ran"
"""What passed on which kernel, for the support matrix of the documentation (scripts/matrix)."""

collect_ignore = [] if os.environ.get("PYLIVEPATCH_LAB") else ["guest"]


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("vm")
    group.addoption("--kernel", default="6.1", help="kernel series (default: 6.1)")
    group.addoption("--flavour", default="standard", help="standard, cloud or rt")
    group.addoption("--cpus", type=int, help="of the guest that runs guest/ (default: 2, or 1 where it is slow)")
    group.addoption("--pairs", type=int, default=12, help="of sources, for test_oracle.py (default: 12)")
    group.addoption("--seed", type=int, default=100, help="of the first of them (default: 100)")
    group.addoption("--smoke", action="store_true", help="in one guest, and only the tests marked smoke there")
    group.addoption("--share", metavar="NofALL", help="of the builder's cases only that part: 2of5, or 2-5of5 "
                    "with all that is no case; kernel: of guest/ only what depends on the kernel; "
                    "7.3: of what is done with each of several sources only that with the one of this series")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if config.getoption("smoke"):
        others = [item for item in items if item.path.name != "test_guest.py"]
    elif (share := config.getoption("share")) and re.fullmatch(r"\d+\.\d+", share):
        others = [item for item in items if isinstance(item, pytest.Function) and hasattr(item, "callspec")
                  and item.callspec.params.get("series", share) != share]  # fmt: skip
    elif share and share != "kernel":
        part, of = share.split("of")
        first, to, last = part.partition("-")
        cases = [item for item in items if isinstance(item, pytest.Function) and _is_case(item)]
        kept = {item for number in range(int(first), int(last or first) + 1) for item in cases[number - 1 :: int(of)]}
        if to:
            kept |= set(items) - set(cases)
        others = [item for item in items if item not in kept and item.name != "test_in_a_guest"]
    elif config.getoption("kernel") != ONCE:
        others = [item for item in items if item.get_closest_marker("once")]
    else:
        return
    config.hook.pytest_deselected(items=others)
    items[:] = [item for item in items if item not in others]


def _is_case(item: pytest.Function) -> bool:
    return hasattr(item, "callspec") and "case" in item.callspec.params


def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    """Note a lane that has passed as a whole."""
    config = session.config
    if os.environ.get("PYLIVEPATCH_LAB") or exitstatus or config.option.keyword or config.option.markexpr:
        return
    kernel = lab.resolve(config.getoption("kernel"), config.getoption("flavour"))
    if config.getoption("smoke"):
        scope = "smoke"
    elif config.args == ["tests/vm"]:
        scope = "all" if kernel.series == ONCE else "all that depend on the kernel"
    elif config.args == ["tests/vm/test_guest.py"]:
        scope = "guest suite"
        if config.getoption("share") == "kernel":
            scope += ", but what is about the package"
    else:
        return
    facts = {"series": kernel.series, "flavour": kernel.flavour, "release": kernel.release, "version": kernel.version,
             "suite": kernel.suite, "tests": scope}  # fmt: skip
    RAN.mkdir(parents=True, exist_ok=True)
    (RAN / f"{kernel.release}.json").write_text(json.dumps(facts))
