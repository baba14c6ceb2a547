# SPDX-License-Identifier: MIT
"""Packages of one distribution: what they depend on, fetched and unpacked without installing."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote

from pylivepatch.lab import archive, tools
from pylivepatch.lab.errors import LabError


@dataclass(frozen=True, slots=True, order=True)
class Package:
    """One version of one binary package."""

    name: str
    version: str

    @property
    def pin(self) -> str:
        """The package as apt-get takes it: `name=version`."""
        return f"{self.name}={self.version}"


def parse_uris(text: str) -> list[Package]:
    """Return the packages that `apt-get --print-uris` lists."""
    found = []
    for line in text.splitlines():
        match = re.match(r"'[^']*' (\S+)_(\S+)_\S+\.deb ", line)
        if match:
            found.append(Package(match[1], unquote(match[2])))
    return sorted(found)


def closure(names: Sequence[str], distribution: str) -> list[Package]:
    """Return *names* and all that they depend on, as a machine with nothing installed would get them.

    Args:
        names: Packages, or pins of certain versions.
        distribution: Where they come from: a key of `lists.DISTRIBUTIONS`.

    Raises:
        LabError: apt knows no way.
    """
    text = tools.call(
        ["apt-get", *archive.state().options(distribution), "install", "--print-uris", "--yes", "--quiet=2",
         "--no-install-recommends", "-o", "Debug::NoLocking=1", *names],
        what=f"resolving the dependencies of {', '.join(names)} in {distribution}",
    )  # fmt: skip
    packages = parse_uris(text.decode())
    if not packages:
        raise LabError(f"apt knows no way to get {', '.join(names)} of {distribution}")
    return packages


def download(packages: Sequence[Package], into: Path, distribution: str) -> list[Path]:
    """Fetch *packages* of *distribution* into the directory *into* and return the files.

    apt checks each file against the signed lists. When one cannot be had, the lists are refreshed for the next
    command.

    Raises:
        LabError: A package cannot be had.
        OutdatedError: The archive has changed meanwhile.
    """
    into.mkdir(parents=True, exist_ok=True)
    what = f"fetching {len(packages)} packages" if len(packages) > 3 else (
        "fetching " + ", ".join(package.name for package in packages))
    try:
        tools.call(["apt-get", *archive.state().options(distribution), "download", "--quiet=2",
                    *(package.pin for package in packages)], what=what, cwd=into, timeout=1800)  # fmt: skip
    except LabError as error:
        raise archive.refresh(error) from error
    return sorted(into.glob("*.deb"))


def unpack(packages: Sequence[Package], tree: Path, scratch: Path, distribution: str) -> None:
    """Fetch *packages* and unpack their files, without their scripts, into *tree*.

    Args:
        packages: What to fetch.
        tree: Where the files go.
        scratch: Where the packages are kept meanwhile; removed again.
        distribution: Where they come from.
    """
    tree.mkdir(parents=True, exist_ok=True)
    for deb in download(packages, scratch, distribution):
        tools.call(["dpkg-deb", "-x", deb, tree], what=f"unpacking {deb.name}")
        deb.unlink()
    scratch.rmdir()
