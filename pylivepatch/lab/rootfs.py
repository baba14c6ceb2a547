# SPDX-License-Identifier: MIT
"""Root file systems made of a distribution's packages, without installing anything and without root."""

from __future__ import annotations

import re
import shutil
from collections.abc import Sequence
from pathlib import Path

from pylivepatch.lab import apt, tools

LEFT_OUT = re.compile(r"dpkg|tar|debconf|adduser|gcc-\d+-base|media-types|tzdata|install-info|sensible-utils")
"""Dependencies that only maintainer scripts need, and those are never run."""

CLUTTER = ("usr/share/doc", "usr/share/man", "usr/share/locale", "usr/share/info", "usr/share/bash-completion",
           "usr/share/zoneinfo", "usr/share/lintian", "lib/udev/hwdb.d", "usr/lib/udev/hwdb.d")

_MERGED = ("bin", "sbin", "lib", "lib64")


def closure(names: Sequence[str], distribution: str, leave_out: re.Pattern[str] = LEFT_OUT) -> list[apt.Package]:
    """Return the packages that a root file system with *names* is made of."""
    return [package for package in apt.closure(names, distribution) if not leave_out.fullmatch(package.name)]


def make(packages: Sequence[apt.Package], tree: Path, scratch: Path, distribution: str) -> None:
    """Unpack *packages* into *tree*, and do what their scripts would have done for all programs to start.

    Args:
        packages: What it is made of.
        tree: The directory to fill.
        scratch: Where the packages are kept meanwhile; removed again.
        distribution: Where they come from.
    """
    apt.unpack(packages, tree, scratch, distribution)
    for name in _MERGED:  # as usrmerge leaves it, and as base-files has it from Debian 13 on
        top, merged = tree / name, tree / "usr" / name
        if top.is_dir() and not top.is_symlink():
            shutil.copytree(top, merged, symlinks=True, dirs_exist_ok=True)
            shutil.rmtree(top)
        merged.mkdir(parents=True, exist_ok=True)
        if not top.is_symlink():
            top.symlink_to(f"usr/{name}")
    for clutter in CLUTTER:
        shutil.rmtree(tree / clutter, ignore_errors=True)
    (tree / "etc").mkdir(exist_ok=True)
    (tree / "etc/ld.so.conf").write_text("/usr/local/lib\n/usr/lib/x86_64-linux-gnu\n/usr/lib\n")
    tools.call([tools.find("ldconfig"), "-r", tree], what="indexing its libraries")
