# SPDX-License-Identifier: MIT
"""A build: what is refused before anything is done, and what the patch is called."""

from __future__ import annotations

from pathlib import Path
from typing import cast

import pytest

from pylivepatch import BadDataError, PatchNotFoundError
from pylivepatch.build import Target, build
from pylivepatch.build.builder import _stem

TARGET = cast(Target, None)


@pytest.mark.parametrize("name", ["foo", "CVE-2026", "cve-2026-12345", "CVE-2026-123", "CVE-2026-1234 ", "CVE-26-1234"])
def test_names_of_cves_are_checked(name: str, tmp_path: Path) -> None:
    """One that is none is refused, before the diff is read."""
    with pytest.raises(BadDataError, match="not the name of a CVE"):
        build([tmp_path / "none.diff"], target=TARGET, cves=["CVE-2026-12345", name])


def test_a_diff_that_does_not_exist(tmp_path: Path) -> None:
    """It is named, and nothing is prepared."""
    with pytest.raises(PatchNotFoundError, match=r"none\.diff"):
        build([str(tmp_path / "none.diff")], target=TARGET)


@pytest.mark.parametrize(("given", "stem"), [
    ("a/fix.diff", "fix"), ("fix.patch.xz", "fix"), ("series.mbox.gz", "series"), ("fix-1.2.diff", "fix-1.2"),
    ("fix", "fix"), ("/a/debian/", "debian"),
])  # fmt: skip
def test_what_a_patch_is_called(given: str, stem: str) -> None:
    """It is called after its first diff."""
    assert _stem(given) == stem


def test_standard_input_has_no_name() -> None:
    """The module file has to be named."""
    with pytest.raises(BadDataError, match=r"name the module file: -o"):
        _stem("-")
