# SPDX-License-Identifier: MIT
"""The patches that are installed, by pylivepatch or by kpatch itself, and how kpatch finds one."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from pylivepatch.boot.store import Store

if TYPE_CHECKING:
    from collections.abc import Iterator

OLD_STORE = Path("/var/lib/kpatch")
"""Where kpatch installs."""


def installed(release: str) -> Iterator[tuple[str, Path]]:
    """Name and file of each patch that is installed for a kernel: ours in their order, then kpatch's own."""
    for patch in Store().patches(release):
        yield patch.name, patch.path
    for path in sorted((OLD_STORE / release).glob("*.ko")):
        yield module_name(path.name), path


def find(name: str) -> Path | None:
    """Find a module as kpatch does: a name with .ko as a file or an installed one, another among the installed."""
    if ".ko" in name and Path(name).is_file():
        return Path(name)
    return next((path for each, path in installed(os.uname().release) if each == module_name(name)), None)


def module_name(word: str) -> str:
    """The name of a module by that of its file, or as people spell it."""
    return Path(word).name.removesuffix(".ko").replace("-", "_")
