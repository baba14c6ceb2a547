# SPDX-License-Identifier: MIT
"""A build: what is refused before anything is done, and what the patch is called."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import cast

import pytest

from pylivepatch import BadDataError, BuildError, PatchNotFoundError
from pylivepatch.build import Target, build
from pylivepatch.build.builder import _stem
from pylivepatch.build.glue import module_name, quoted

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


@pytest.mark.parametrize("name", ["klpctl", "vmlinux", "KLPCTL", "!"])
def test_names_that_no_patch_can_have(name: str) -> None:
    """A patch that could never be loaded beside what has its name is not built."""
    with pytest.raises(BuildError, match=r"can(not)? be called") as caught:
        module_name(name)
    assert caught.value.kind == "name"


@pytest.mark.parametrize("text", ["plain", 'a "quote" \\ and 100%', "\U0001f600 \u00e9", "two\nlines", "what??/"])
def test_any_text_is_a_string_of_c(text: str, tmp_path: Path) -> None:
    """A description is in the module as it was given, whatever characters it has."""
    source = tmp_path / "x.c"
    source.write_text(f"#include <stdio.h>\nint main(void) {{ return fputs({quoted(text)}, stdout) < 0; }}\n")
    subprocess.run(["gcc", "-trigraphs", "-o", tmp_path / "x", source], check=True)
    assert subprocess.run([tmp_path / "x"], check=True, capture_output=True).stdout.decode() == text
