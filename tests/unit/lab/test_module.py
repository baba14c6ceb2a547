# SPDX-License-Identifier: MIT
"""Which files are a module's sources."""

from __future__ import annotations

from pathlib import Path

import pytest

from pylivepatch.lab import module
from pylivepatch.lab.errors import LabError
from pylivepatch.lab.kernel import Kernel


def test_results_of_a_build_are_no_sources(tmp_path: Path) -> None:
    """A build in the directory itself changes nothing about what is built in the cache."""
    for name in ("Kbuild", "a.c", "include/a.h", "a.o", "a.ko", "a.mod", "a.mod.c", ".a.o.cmd", "Module.symvers",
                 "modules.order", ".tmp/x.c"):  # fmt: skip
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    names = [str(path.relative_to(tmp_path)) for path in module.sources(tmp_path)]
    assert names == ["Kbuild", "a.c", "include/a.h"]


def test_a_directory_without_kbuild_is_named(tmp_path: Path) -> None:
    """A directory that is no module's is refused before anything is fetched."""
    kernel = Kernel("6.1", "standard", "6.1.0-1-amd64", "6.1.1-1", tmp_path)
    with pytest.raises(LabError, match="neither Kbuild nor Makefile"):
        module.build(kernel, tmp_path)
