# SPDX-License-Identifier: MIT
"""The kernel's own livepatch selftests, with klpctl loaded, and what they do to patches done by the package."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from pylivepatch import lab

TOP = Path(__file__).parents[2]
SELFTESTS = "tools/testing/selftests/livepatch"
sys.path.insert(0, str(TOP / "tests"))


@pytest.mark.parametrize("series", ["6.12", "7.3"])
def test_selftests(pytestconfig: pytest.Config, tmp_path: Path, series: str) -> None:
    """What upstream expects of the kernel's log is there, word for word."""
    import sources

    work = tmp_path / "livepatch"
    shutil.copytree(sources.extract(series, SELFTESTS) / SELFTESTS, work)
    modules = tmp_path / "test_modules"
    (work / "test_modules").rename(modules)
    helper = work / "test_klp-call_getpid"
    subprocess.run(["gcc", "-O2", "-static", "-o", helper, helper.with_suffix(".c")], check=True)
    status = lab.run(
        ["bash", str(TOP / "tests/vm/alone/selftests.sh"), str(work)],
        kernel=pytestconfig.getoption("kernel"),
        flavour=pytestconfig.getoption("flavour"),
        cpus=1,
        shares=[TOP, tmp_path],
        modules=[modules],
        timeout=1800,
    )
    assert status == 0
