# SPDX-License-Identifier: MIT
"""No test is left out because pytest does not look where it is."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

TOP = Path(__file__).parents[2]
GUEST = TOP / "tests/vm/guest"


def collected(folder: Path, root: Path, **environment: str) -> set[Path]:
    """Return the files below *folder* of which pytest has tests; it names them from *root* on."""
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-qq", "--collect-only", "-p", "no:cacheprovider", folder],
        cwd=TOP, env=os.environ | environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout
    return {root / line.partition(":")[0] for line in done.stdout.splitlines() if line.startswith("test")}


def test_every_file_is_collected() -> None:
    """By the lanes on the host, and by those in a guest."""
    guest = collected(GUEST, GUEST, PYLIVEPATCH_LAB="1", PYLIVEPATCH_LAB_MODULES="nowhere")
    assert guest == set(GUEST.glob("test_*.py"))
    assert collected(TOP / "tests", TOP) | guest == set(TOP.glob("tests/**/test_*.py"))
