# SPDX-License-Identifier: MIT
"""The example of README.md, unchanged."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import KernelLog
from support import unchanged

pytestmark = pytest.mark.once

README = Path(__file__).parents[3] / "README.md"
Payload = Callable[[str], Path]


def test_the_example_of_the_readme_runs(payload: Payload, tmp_path: Path, log: KernelLog) -> None:
    """The first Python block of the README runs as it stands, tells what it does, and leaves nothing behind."""
    block = re.search(r"^```python\n(.*?)^```$", README.read_text(), re.DOTALL | re.MULTILINE)
    assert block
    shutil.copy(payload("plp_cmdline"), tmp_path / "fix.ko")
    with unchanged():
        done = subprocess.run(
            [sys.executable, "-c", block[1]], cwd=tmp_path, capture_output=True, text=True, check=False
        )
    assert (done.returncode, done.stderr) == (0, "")
    *steps, last = done.stdout.splitlines()
    assert last == "plp_cmdline is enabled"
    counts = [re.fullmatch(r"(\d+) of (\d+) tasks run the new code", step) for step in steps]
    assert counts
    assert all(counts)
    assert counts[-1] is not None
    assert counts[-1][1] == counts[-1][2]
    said = log.lines()
    assert sum("enabling patch 'plp_cmdline'" in line for line in said) == 2
    assert sum("'plp_cmdline': unpatching complete" in line for line in said) == 2
