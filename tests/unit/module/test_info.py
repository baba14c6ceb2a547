# SPDX-License-Identifier: MIT
"""What patch files say about themselves, and what is found about loaded ones on captured trees."""

from __future__ import annotations

import lzma
import subprocess
from typing import TYPE_CHECKING

import pytest

from pylivepatch import BadDataError, Core, ModuleFileError, PatchInfo
from pylivepatch.kernel.sysfs import enabled_order
from pylivepatch.module.info import cve_name, cve_names

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

DIFF = "--- a/x.c\n+++ b/x.c\n"


def carrying(build_module: Callable[..., Path], tmp_path: Path, diff: bytes) -> Path:
    """A module with a source diff."""
    path, section = build_module(), tmp_path / "diff"
    section.write_bytes(diff)
    subprocess.run(["objcopy", "--add-section", f".klpctl.diff={section}", path], check=True)
    return path


@pytest.mark.parametrize("pack", [str.encode, lambda text: lzma.compress(text.encode())])
def test_diff(build_module: Callable[..., Path], tmp_path: Path, pack: Callable[[str], bytes]) -> None:
    """The source diff is plain, or xz'd."""
    assert PatchInfo.open(carrying(build_module, tmp_path, pack(DIFF))).diff == DIFF
    assert PatchInfo.open(build_module()).diff is None


def test_damaged_diff(build_module: Callable[..., Path], tmp_path: Path) -> None:
    """A source diff that cannot be unpacked is damage of the file."""
    with pytest.raises(ModuleFileError, match="damaged"):
        PatchInfo.open(carrying(build_module, tmp_path, lzma.compress(DIFF.encode())[:-9]))


def test_cves() -> None:
    """CVEs are read from lists with commas, spaces or both, each once and in order, and nothing else is one."""
    assert cve_names("CVE-2026-11111, cve-2026-9999 CVE-2025-22222 CVE-2026-9999,,CVE-26-1") == (
        "CVE-2025-22222",
        "CVE-2026-9999",
        "CVE-2026-11111",
    )
    assert cve_names("") == ()
    assert cve_name("cve-2026-1234") == "CVE-2026-1234"
    for wrong in ("CVE-2026-123", "CVE-2026-1234 ", "2026-1234", "CVE-2026-1234,CVE-2026-1235", ""):
        with pytest.raises(BadDataError):
            cve_name(wrong)


def test_parameters(build_module: Callable[..., Path]) -> None:
    """Parameters have a type, a description, both or neither."""
    info = PatchInfo.open(build_module(parm="hold:who waits: all", parmtype="hold:bool"))
    assert [(each.name, each.type, each.description) for each in info.parameters] == [
        ("hold", "bool", "who waits: all")
    ]
    assert PatchInfo.open(build_module()).parameters == ()


def test_a_loaded_patch(enabling: Path) -> None:
    """What is not known of a loaded patch is None, and why is told; its parameter tells its CVEs."""
    with Core(root=enabling) as core:
        info = core.info("plp-cmdline")
        assert (info.objects, info.cves, info.file, info.replace) == (None, None, None, None)
        assert "not known" in info.unreadable
        parameter = enabling / "sys/module/plp_foreign/parameters/cve"
        parameter.parent.mkdir()
        parameter.write_text("CVE-2026-1234\n")
        assert core.info("plp_foreign").cves == ("CVE-2026-1234",)
        assert [info.name for info in core.fixes("CVE-2026-1234")] == ["plp_foreign"]


def test_order(enabling: Path) -> None:
    """Where the kernel tells the order of patches, that is it."""
    for name, order in (("plp_foreign", "2\n"), ("plp_hold", "1\n")):
        (enabling / "sys/kernel/livepatch" / name / "stack_order").write_text(order)
    assert enabled_order(enabling / "sys") == ["plp_hold", "plp_foreign"]
    assert enabled_order(enabling / "none") is None
