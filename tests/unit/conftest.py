# SPDX-License-Identifier: MIT
"""Captured trees as directories, and live patch modules as real ELF files."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import hypothesis
import pytest

# A change is judged by the same examples each time; others are looked for with --hypothesis-profile=search.
hypothesis.settings.register_profile("same", derandomize=True, database=None, deadline=None)
hypothesis.settings.register_profile("search", max_examples=5000, deadline=None)
hypothesis.settings.load_profile("same")

FIXTURES = Path(__file__).with_name("fixtures")


def expand(name: str, root: Path) -> Path:
    """Lay a captured tree out below `root`."""
    for path, content in json.loads((FIXTURES / f"{name}.json").read_text()).items():
        file = root / path
        if content is None:
            file.mkdir(parents=True, exist_ok=True)
        else:
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(content)
    return root


@pytest.fixture
def enabling(tmp_path: Path) -> Path:
    """6.1: plp_foreign enabled, plp_hold being enabled, plp_cmdline registered."""
    return expand("6.1-enabling", tmp_path / "root")


@pytest.fixture
def disabling(tmp_path: Path) -> Path:
    """6.12: plp_foreign enabled, plp_hold being disabled, plp_cmdline registered."""
    return expand("6.12-disabling", tmp_path / "root")


SOURCE = """
__attribute__((section(".modinfo"), used)) static const char info[] = {modinfo};
{extra}
"""


@pytest.fixture
def build_module(tmp_path: Path) -> Callable[..., Path]:
    """Make module files: `build_module(name, extra=C source, key=modinfo value)`."""

    def build(stem: str = "plp_tiny", /, extra: str = "", **modinfo: str) -> Path:
        info = {"name": stem, "livepatch": "Y", "vermagic": "6.1.0-1 SMP mod_unload", **modinfo}
        strings = " ".join(f'"{key}={value}\\0"' for key, value in info.items() if value)
        path = tmp_path / f"{stem}.ko"
        subprocess.run(
            ["gcc", "-c", "-x", "c", "-o", path, "-"],
            input=SOURCE.format(modinfo=strings or '""', extra=extra).encode(),
            check=True,
        )
        return path

    return build
