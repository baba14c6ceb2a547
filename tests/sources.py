# SPDX-License-Identifier: MIT
"""Files of the kernel's source packages, for what is judged by the kernel's own tools and tests."""

from __future__ import annotations

import shutil
from pathlib import Path

from pylivepatch.lab import apt, archive, cache, lists, tools


def newest(series: str) -> lists.Listed:
    """Return the newest source package of a series that the archive has."""
    name = f"linux-source-{series}"
    found = [item for item in archive.state().kernels() if item.name == name]
    if not found:
        raise LookupError(f"the archive has no {name}")
    return max(found, key=lambda item: lists.version_key(item.version))


def extract(series: str, *paths: str) -> Path:
    """Return a directory in the cache with some files, or directories, of the newest source of a series."""
    listed = newest(series)

    def fill(into: Path) -> None:
        package = apt.Package(listed.name, listed.version)
        apt.unpack([package], into / "package", into / "debs", listed.distribution)
        [ball] = (into / "package").rglob(f"{listed.name}.tar.*")
        members = [f"{listed.name}/{path}" for path in paths]
        tools.call(["tar", "-xf", ball, "-C", into, "--strip-components=1", *members], what=f"unpacking {ball.name}")
        shutil.rmtree(into / "package")
        (into / "files").write_text("".join(f"{path}\n" for path in sorted(into.rglob("*"))))

    key = cache.digest([listed.name, listed.version, *paths])
    notice = f"fetching {listed.name} {listed.version}"
    return cache.entry("sources", f"{series}-{key}", fill, check=("files",), notice=notice)
