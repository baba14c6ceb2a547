# SPDX-License-Identifier: MIT
"""The pylivepatch package as the guest gets it: this one, compiled for the guest's Python."""

from __future__ import annotations

import importlib.metadata
import os
import shutil
from pathlib import Path

import pylivepatch
from pylivepatch.lab import cache
from pylivepatch.lab.image import Image, compile_python
from pylivepatch.lab.script import PYTHON

LEFT_OUT = frozenset({"__pycache__", "_kmod"})


def source() -> Path:
    """Return the directory of the package that runs: a checkout's or an installed one's."""
    return Path(pylivepatch.__path__[0]).resolve()


def _files(top: Path) -> list[Path]:
    found: list[Path] = []
    for folder, folders, names in os.walk(top, followlinks=True):  # in a checkout, some are links
        folders[:] = [name for name in folders if name not in LEFT_OUT]
        found += [Path(folder, name) for name in names]
    return found


def resolve(image: Image) -> Path:
    """Return a directory with the package as the guest is to import it."""
    top = source()
    files = _files(top)
    try:
        version = importlib.metadata.version("pylivepatch")
    except importlib.metadata.PackageNotFoundError:
        version = ""

    def fill(into: Path) -> None:
        for path in files:
            target = into / "python/pylivepatch" / path.relative_to(top)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, target)
        if version:
            info = into / f"python/pylivepatch-{version}.dist-info"
            info.mkdir()
            (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: pylivepatch\nVersion: {version}\n")
        compile_python(image.tree, into / "python", as_seen=PYTHON)

    key = cache.digest([image.key, version, cache.tree_digest(top, files)])
    return cache.entry("packages", key, fill, check=("python/pylivepatch/__init__.py",)) / "python"
