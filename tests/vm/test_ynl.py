# SPDX-License-Identifier: MIT
"""The kernel's own netlink client drives the family from its specification."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import pytest
import yaml

from pylivepatch import lab

TOP = Path(__file__).parents[2]
YNL = "tools/net/ynl"
sys.path.insert(0, str(TOP / "tests"))


@pytest.mark.parametrize("series", ["6.12", "7.3"])
def test_ynl(pytestconfig: pytest.Config, tmp_path: Path, series: str) -> None:
    """Features, patches, tasks and events are what the package reads, too."""
    import sources

    client = next((sources.extract(series, YNL) / YNL).rglob("cli.py")).parent
    # The guest has no YAML reader; this one is written in Python.
    shutil.copytree(Path(yaml.__file__).parent, tmp_path / "yaml", ignore=shutil.ignore_patterns("*.so", "__pycache__"))
    shutil.copytree(client, tmp_path / "ynl")
    status = lab.run(
        ["python3", str(TOP / "tests/vm/alone/ynl.py"), str(tmp_path / "ynl/cli.py")],
        kernel=pytestconfig.getoption("kernel"),
        flavour=pytestconfig.getoption("flavour"),
        shares=[TOP, tmp_path],
        modules=[TOP / "tests/payloads"],
        environment={"YAML": str(tmp_path)},
        timeout=900,
    )
    assert status == 0
