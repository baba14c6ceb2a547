# SPDX-License-Identifier: MIT
"""The lint of the glossary's words finds them, and nothing else."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "scripts/lint-words.py"


def lint(tree: Path) -> subprocess.CompletedProcess[str]:
    """Run a copy of it in a tree of its own."""
    copy = tree / "scripts/lint-words.py"
    copy.parent.mkdir(exist_ok=True)
    copy.write_text(SCRIPT.read_text())
    return subprocess.run([sys.executable, copy], capture_output=True, text=True, check=False)


@pytest.mark.parametrize(
    ("text", "better"),
    [
        ("Ctrl-C turns the transition round.", "reverse"),
        ("it was turned\nround", "reverse"),
        ("the patch is taken back", "revert"),
        ("the kernel takes\n   this patch back", "revert"),
        ("a foreign patch", "standalone patch"),
        ("no backend 'x'", "unknown ... '"),
    ],
)
def test_found(text: str, better: str, tmp_path: Path) -> None:
    """In a page, on one line or two; with the place, and what to write."""
    page = tmp_path / "docs/howto/page.rst"
    page.parent.mkdir(parents=True)
    page.write_text(f"Title\n\n{text}\n")
    result = lint(tmp_path)
    assert result.returncode == 1
    assert result.stdout.startswith(f"docs/howto/page.rst:3: write {better!r}, not ")


def test_not_found(tmp_path: Path) -> None:
    """What only looks like them."""
    (tmp_path / "README.md").write_text("It is no longer there. The feedback takes time. A round number; go back.\n")
    result = lint(tmp_path)
    assert (result.returncode, result.stdout) == (0, "")
