# SPDX-License-Identifier: MIT
"""What the type checkers of users find: each symbol of the wheel has a type, and the examples of the docs are right."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import sysconfig
import textwrap
from pathlib import Path

TOP = Path(__file__).parents[2]
GIVEN = """
import asyncio
from collections.abc import Callable
import pylivepatch
core: pylivepatch.Core
look_around: Callable[[], None]
async def page() -> None:
"""
"""What an example takes for granted."""


def examples(page: Path) -> str:
    """The Python of a page: its examples, one after the other."""
    text = page.read_text()
    blocks = re.findall(r"^```python\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    blocks += re.findall(r"^\.\. code-block:: python\n((?:   .*\n|\n)+)", text, re.MULTILINE)
    return "\n".join(map(textwrap.dedent, blocks))


def test_examples(tmp_path: Path) -> None:
    """mypy --strict has no complaint."""
    files = []
    for page in (TOP / "README.md", *(TOP / "docs").glob("**/*.rst")):
        if code := examples(page):
            files.append(tmp_path / f"page_{re.sub(r'[^a-z]', '_', page.stem.lower())}.py")
            files[-1].write_text(GIVEN + textwrap.indent(code, "    "))
    assert len(files) > 5
    command = [sys.executable, "-m", "mypy", "--strict", *map(str, files)]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


def test_every_type_is_known(tmp_path: Path) -> None:
    """pyright --verifytypes, of the build that PyPI has whole, finds no type that checkers could infer differently."""
    scripts = sysconfig.get_path("scripts")
    command = [f"{scripts}/basedpyright", "--verifytypes", "pylivepatch", "--ignoreexternal", "--outputjson"]
    # It looks for packages where the Python is that PATH has.
    path = {**os.environ, "PATH": f"{scripts}:{os.environ['PATH']}"}
    done = subprocess.run(command, cwd=tmp_path, env=path, capture_output=True, text=True, check=False)
    found = json.loads(done.stdout)["typeCompleteness"]
    vague = [
        f"{symbol['name']}: {each['message']}"
        for symbol in found["symbols"]
        if symbol["isExported"] and not symbol["isTypeKnown"]
        for each in symbol["diagnostics"]
    ]
    assert not vague, "\n".join(vague)
    assert found["completenessScore"] == 1
    assert found["exportedSymbolCounts"]["withKnownType"] > 1000
