# SPDX-License-Identifier: MIT
"""After a kernel upgrade: installed patches that the new kernel does not have."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from pylivepatch.boot.store import Store

__all__ = ["Missing", "missing"]


@dataclass(frozen=True, slots=True)
class Missing:
    """A patch that is installed for other kernels and not for this one.

    Attributes:
        name: Name of the patch.
        release: The kernel release that it is not installed for.
        running: Whether that is the running kernel; one that can be booted next otherwise.
        installed_for: The kernel releases that it is installed for, newest last.
        path: The store's copy of its module for the newest of them.
    """

    name: str
    release: str
    running: bool
    installed_for: tuple[str, ...]
    path: Path

    @property
    def build(self) -> tuple[str, ...]:
        """The commands that build it for `release`, from the diff that its module carries."""
        diff = f"{self.name}.diff"
        return (
            f"pylivepatch info {self.path} --diff > {diff}",
            f"pylivepatch build --release {self.release} {diff}",
        )


def missing(store: Store) -> list[Missing]:
    """Find patches that are installed for other kernels and not for the running one, or for a newer one.

    Whether that kernel has the fixes itself cannot be known here. A patch that is no longer
    needed is uninstalled for the kernels that it is installed for.

    Raises:
        AccessError: The caller may not read the store.
        BadDataError: The store's own files are damaged.

    Source: /var/lib/pylivepatch, /lib/modules, /boot.
    """
    where: dict[str, dict[str, Path]] = {}
    for release in sorted(store.releases(), key=_order):
        for patch in store.patches(release):
            where.setdefault(patch.name, {})[release] = patch.path
    if not where:
        return []
    running = store.release
    return [
        Missing(name, release, release == running, tuple(paths), list(paths.values())[-1])
        for release in (running, *_newer(store.root, running))
        for name, paths in where.items()
        if release not in paths
    ]


def _newer(root: Path, running: str) -> list[str]:
    """Name the kernels newer than `running` that can be booted: that have modules, and an image."""
    found = [
        folder.name
        for folder in (root / "lib/modules").glob("*")
        if (folder / "vmlinuz").exists() or (root / f"boot/vmlinuz-{folder.name}").exists()
    ]
    return sorted((name for name in found if _order(name) > _order(running)), key=_order)


def _order(release: str) -> list[tuple[int, str]]:
    """A key that sorts 6.1.0-9 before 6.1.0-10."""
    return [(int(digits or -1), letters) for letters, digits in re.findall(r"([^0-9]*)([0-9]*)", release)]
