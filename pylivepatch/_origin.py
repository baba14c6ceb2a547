# SPDX-License-Identifier: MIT
"""Where a loaded patch comes from, and in which order the enabled ones came."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from pylivepatch.elf.file import SUFFIXES, Image, build_id, module_name
from pylivepatch.errors import LivepatchError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_STORE = "var/lib/pylivepatch"
_NOTE = "notes/.note.gnu.build-id"


def module_file(root: Path, release: str, name: str) -> Path | None:
    """Find the file that a loaded module was loaded from, wherever it may be installed.

    It must be the very build that is loaded: its build ID is compared.

    Args:
        root: Where /sys, /lib and /var are found.
        release: The kernel's release.
        name: The module.

    Source: /sys/module/<name>/notes/.note.gnu.build-id (2.6.23), modules.dep.
    """
    try:
        wanted = build_id((root / "sys/module" / name / _NOTE).read_bytes())
    except OSError:
        return None
    for path in _candidates(root, release, name):
        # Whatever is wrong with a file, it is not the one that was loaded.
        with contextlib.suppress(OSError, LivepatchError):
            if wanted and Image.read(path).build_id == wanted:
                return path
    return None


def _candidates(root: Path, release: str, name: str) -> Iterator[Path]:
    for suffix in SUFFIXES:
        yield root / _STORE / release / f"{name}{suffix}"
    modules = root / "lib/modules" / release
    with contextlib.suppress(OSError):
        for line in (modules / "modules.dep").read_text().splitlines():
            path = line.partition(":")[0]
            if module_name(path) == name:
                yield modules / path


def enabled_order(sysfs: Path) -> list[str] | None:
    """Name the patches that the livepatch core holds, in the order in which they came.

    That is the order of their ``stack_order``, and where there is none that of
    their directories: the core makes one for each patch when it takes it, and
    kernfs numbers them upwards. The number does not wrap: it has 64 bits, of which
    the upper count how often the lower wrapped (40430452fd5d, "kernfs: use 64bit inos
    if ino_t is 64bit", 5.5).

    Returns:
        The names, the oldest first; None when they cannot be read.

    Source: /sys/kernel/livepatch/<patch>/stack_order (6.14), or the directory's
    inode number.
    """
    try:
        found = [(_rank(path), path.name) for path in (sysfs / "kernel/livepatch").iterdir() if path.is_dir()]
    except OSError:
        return None
    return [name for _, name in sorted(found)]


def _rank(path: Path) -> int:
    with contextlib.suppress(OSError, ValueError):
        return int((path / "stack_order").read_text())
    return path.stat().st_ino


def cve_parameter(root: Path, name: str) -> str:
    """Read what a loaded module says that it fixes; "" when it says nothing.

    Source: /sys/module/<name>/parameters/cve, of patches that have it.
    """
    with contextlib.suppress(OSError):
        return (root / "sys/module" / name / "parameters/cve").read_text(errors="replace").strip()
    return ""
