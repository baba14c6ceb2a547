# SPDX-License-Identifier: MIT
"""What the distribution's package lists say, and packages fetched and unpacked without installing."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote

from pylivepatch.lab import cache, tools
from pylivepatch.lab.errors import LabError

LISTS = Path("/var/lib/apt/lists")
"""Where apt keeps the package lists."""


@dataclass(frozen=True, slots=True, order=True)
class Package:
    """One version of one binary package."""

    name: str
    version: str

    @property
    def pin(self) -> str:
        """The package as apt-get takes it: `name=version`."""
        return f"{self.name}={self.version}"


def lists_state() -> str:
    """Return a string that changes whenever the package lists do."""
    try:
        stamps = [(item.name, item.stat().st_mtime_ns) for item in LISTS.iterdir() if item.is_file()]
    except OSError:
        return "none"
    return cache.digest(f"{name} {stamp}" for name, stamp in sorted(stamps))


def update() -> None:
    """Refresh the package lists when root; say what to run otherwise.

    Raises:
        LabError: Not root, or the refresh failed.
    """
    if os.geteuid() != 0:
        raise LabError("the package lists are missing or out of date: run `sudo apt-get update`")
    cache.say("apt-get update")
    tools.call(["apt-get", "update", "-qq"], what="refreshing the package lists")


def parse_stanza(text: str) -> dict[str, str]:
    """Return the fields of the first paragraph of package metadata."""
    fields: dict[str, str] = {}
    name = ""
    for line in text.split("\n\n", 1)[0].splitlines():
        if line[:1] in (" ", "\t"):
            fields[name] += "\n" + line.strip()
        elif ":" in line:
            name, _, value = line.partition(":")
            fields[name] = value.strip()
    return fields


def show(name: str) -> dict[str, str] | None:
    """Return the metadata of the candidate version of package *name*, or None when there is none."""
    try:
        text = tools.call(["apt-cache", "show", "--no-all-versions", name], what=f"looking up {name}")
    except LabError as error:
        if "No packages found" in str(error) or "Unable to locate" in str(error):
            return None
        raise
    fields = parse_stanza(text.decode())
    return fields if fields.get("Package") else None


def parse_uris(text: str) -> list[Package]:
    """Return the packages that `apt-get --print-uris` lists."""
    found = []
    for line in text.splitlines():
        match = re.match(r"'[^']*' (\S+)_(\S+)_\S+\.deb ", line)
        if match:
            found.append(Package(match[1], unquote(match[2])))
    return sorted(found)


def closure(names: Sequence[str]) -> list[Package]:
    """Return *names* and all that they depend on, as a machine with nothing installed would get them."""
    state = cache.root() / "apt"
    for folder in ("archives/partial",):
        (state / folder).mkdir(parents=True, exist_ok=True)
    (state / "status").touch()
    text = tools.call(
        [
            "apt-get", "install", "--print-uris", "--yes", "--quiet=2", "--no-install-recommends",
            "-o", "Debug::NoLocking=1",
            "-o", f"Dir::State::status={state / 'status'}",
            "-o", f"Dir::Cache={state}",
            "-o", f"Dir::Cache::archives={state / 'archives'}",
            *names,
        ],
        what=f"resolving the dependencies of {', '.join(names)}",
    )
    packages = parse_uris(text.decode())
    if not packages:
        raise LabError(f"apt knows no way to get {', '.join(names)}")
    return packages


def download(packages: Sequence[Package], into: Path) -> list[Path]:
    """Fetch *packages* into the directory *into* and return the files.

    apt checks each file against the signed lists. Lists that are out of date are refreshed once when root.

    Raises:
        LabError: A package cannot be had.
    """
    into.mkdir(parents=True, exist_ok=True)
    argv = ["apt-get", "download", "--quiet=2"]
    if os.geteuid() == 0:
        argv += ["-o", "APT::Sandbox::User=root"]  # the cache need not be readable by _apt
    argv += [package.pin for package in packages]
    what = f"fetching {len(packages)} packages" if len(packages) > 3 else (
        "fetching " + ", ".join(package.name for package in packages))
    try:
        tools.call(argv, what=what, cwd=into, timeout=1800)
    except LabError:
        if os.geteuid() != 0:
            raise
        update()
        tools.call(argv, what=what, cwd=into, timeout=1800)
    return sorted(into.glob("*.deb"))


def unpack(packages: Sequence[Package], tree: Path, scratch: Path) -> None:
    """Fetch *packages* and unpack their files, without their scripts, into *tree*.

    Args:
        packages: What to fetch.
        tree: Where the files go.
        scratch: Where the packages are kept meanwhile; emptied again.
    """
    tree.mkdir(parents=True, exist_ok=True)
    for deb in download(packages, scratch):
        tools.call(["dpkg-deb", "-x", deb, tree], what=f"unpacking {deb.name}")
        deb.unlink()
    scratch.rmdir()
