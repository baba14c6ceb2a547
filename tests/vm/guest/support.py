# SPDX-License-Identifier: MIT
"""What several test files need besides the fixtures: the kernel at one moment, and less mighty callers."""

from __future__ import annotations

import contextlib
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from pylivepatch import Core

USER = 1000
HEADER = Path(__file__).parents[3] / "kmod/uapi/klpctl.h"
ADDRESS = re.compile(r"(?i)\b(?:0x)?ffff[0-9a-f]{12}\b")

# Tries what the arguments say, and prints a line of JSON for each: what was raised, and its words.
ATTEMPTS = """
import json, sys
import pylivepatch
with pylivepatch.Core(sys.argv[1]) as core:
    for code in sys.argv[2:]:
        try:
            eval(code)
        except Exception as error:
            print(json.dumps([type(error).__name__, str(error)]))
        else:
            print(json.dumps(["", ""]))
"""


def kernel() -> dict[str, object]:
    """All of the kernel that an operation on patches can change."""
    with Core() as core:
        patches = {
            status.name: (status.state, status.registered, status.forced, status.objects)
            for status in core.status()
        }
    modules = [line.split()[:3] for line in Path("/proc/modules").read_text().splitlines()]
    return {
        "patches": patches,
        "livepatch": sorted(str(path) for path in Path("/sys/kernel/livepatch").rglob("*")),
        "class": sorted(path.name for path in Path("/sys/class/livepatch").glob("*")),
        "modules": sorted((name, size, references) for name, size, references in modules),
        "cmdline": Path("/proc/cmdline").read_text(),
    }


@contextlib.contextmanager
def unchanged() -> Iterator[None]:
    """Insist that the body leaves the kernel exactly as it was."""
    before = kernel()
    yield
    assert kernel() == before


def as_user(*command: str | Path) -> subprocess.CompletedProcess[str]:
    """Run a command as the ordinary user."""
    return subprocess.run(
        command, user=USER, group=USER, extra_groups=[], capture_output=True, text=True, cwd="/", check=False
    )


def attempt(
    *codes: str, backend: str = "klpctl", prefix: tuple[str, ...] = (), user: bool = True
) -> list[tuple[str, str]]:
    """Evaluate expressions about `core` in another process; what each raised, and with which words."""
    command = [*prefix, sys.executable, "-c", ATTEMPTS, backend, *codes]
    if user:
        done = as_user(*command)
    else:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return [(kind, words) for kind, words in map(json.loads, done.stdout.splitlines())]


def cli(*arguments: str | Path, user: bool = False) -> subprocess.CompletedProcess[str]:
    """Run the command line."""
    if user:
        return as_user("pylivepatch", *arguments)
    return subprocess.run(["pylivepatch", *arguments], capture_output=True, text=True, check=False)
