# SPDX-License-Identifier: MIT
"""Modules that are not of the kernel's tree: which file is in use, and where their commands run."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest

from pylivepatch import MismatchError
from pylivepatch.build import Target
from pylivepatch.build.external import External, ExternalTree, find

HEADERS = Path("/headers")


def module(top: Path, name: str) -> Path:
    """Make the file of a module."""
    path = top / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
    return path


def test_find(tmp_path: Path) -> None:
    """A module is found by its name, however its file is spelled and compressed."""
    path = module(tmp_path, "updates/dkms/some-module.ko.xz")
    module(tmp_path, "kernel/some-module-more.ko")
    assert find(tmp_path, "some_module") == path
    with pytest.raises(MismatchError, match="has no module other"):
        find(tmp_path, "other")


def test_of_two_files_the_one_that_modprobe_loads(tmp_path: Path) -> None:
    """Where two files have one name, depmod's index decides; without one, nothing does."""
    module(tmp_path, "kernel/fs/own.ko")
    path = module(tmp_path, "updates/own.ko")
    with pytest.raises(MismatchError, match="2 modules called own"):
        find(tmp_path, "own")
    (tmp_path / "modules.dep").write_text("kernel/fs/more.ko: updates/own.ko\nupdates/own.ko:\n")
    assert find(tmp_path, "own") == path


@pytest.mark.parametrize(("command", "moved", "where"), [
    ("gcc -fmacro-prefix-map=/tree/=/was/ /tree/a.c", "gcc -fmacro-prefix-map=/shadow/=/was/ /shadow/a.c", HEADERS),
    ("gcc -I/trees -I/tree -o x a.c", "gcc -I/trees -I/shadow -o x a.c", Path("/shadow")),
])
def test_a_command_for_a_shadow(command: str, moved: str, where: Path) -> None:
    """kbuild compiles by absolute paths from the headers or, since 6.13, by relative ones in the source."""
    target = cast("Target", SimpleNamespace(headers=HEADERS))
    tree = ExternalTree(Path("/tree"), target, external=External(Path("/source")), modules=())
    assert tree.relocated(command, Path("/shadow")) == (moved, where)
