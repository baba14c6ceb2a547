# SPDX-License-Identifier: MIT
"""What has to be said in several files of the tree is the same in all."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

TOP = Path(__file__).parents[2]


def test_one_version() -> None:
    """The Python package, klpctl for DKMS, and the packages of Debian and RPM have one version."""
    version = tomllib.loads((TOP / "pyproject.toml").read_text())["project"]["version"]
    dkms = re.search(r'^PACKAGE_VERSION="(.*)"$', (TOP / "kmod/dkms.conf").read_text(), re.MULTILINE)
    rpm = re.search(r"^Version: +(.*)$", (TOP / "rpm/pylivepatch.spec").read_text(), re.MULTILINE)
    debian = re.match(r"pylivepatch \((.*?)\) ", (TOP / "debian/changelog").read_text())
    assert dkms is not None
    assert rpm is not None
    assert debian is not None
    assert dkms[1] == rpm[1] == debian[1] == version
