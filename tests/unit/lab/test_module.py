# SPDX-License-Identifier: MIT
"""Which files are a module's sources."""

from __future__ import annotations

from pathlib import Path

import pytest

from pylivepatch.lab import module, toolchain
from pylivepatch.lab.errors import LabError
from pylivepatch.lab.kernel import Kernel


def test_results_of_a_build_are_no_sources(tmp_path: Path) -> None:
    """A build in the directory itself changes nothing about what is built in the cache."""
    for name in ("Kbuild", "a.c", "include/a.h", "a.o", "a.ko", "a.mod", "a.mod.c", ".a.o.cmd", "Module.symvers",
                 "modules.order", ".tmp/x.c"):  # fmt: skip
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    names = [str(path.relative_to(tmp_path)) for path in module.sources(tmp_path)]
    assert names == ["Kbuild", "a.c", "include/a.h"]


def test_a_directory_without_kbuild_is_named(tmp_path: Path) -> None:
    """A directory that is no module's is refused before anything is fetched."""
    kernel = Kernel("6.1", "standard", "6.1.0-1-amd64", "6.1.1-1", tmp_path)
    with pytest.raises(LabError, match="neither Kbuild nor Makefile"):
        module.build(kernel, tmp_path)


@pytest.mark.parametrize(
    ("text", "package"),
    [
        ("gcc-12 (Debian 12.2.0-14+deb12u1) 12.2.0", "gcc-12"),
        ("x86_64-linux-gnu-gcc-14 (Debian 14.2.0-19) 14.2.0", "gcc-14"),
    ],
)
def test_the_compiler_s_package(tmp_path: Path, text: str, package: str) -> None:
    """It is the one of the version that the kernel's configuration names."""
    (tmp_path / "config").write_text(f'CONFIG_X=y\nCONFIG_CC_VERSION_TEXT="{text}"\n')
    assert toolchain.compiler_package(Kernel("6.1", "standard", "6.1.0-1-amd64", "6.1.1-1", tmp_path)) == package


@pytest.mark.parametrize("text", ["Debian clang version 19.1.7", "../evil-gcc; sh (x) 1", ""])
def test_a_kernel_of_another_compiler(tmp_path: Path, text: str) -> None:
    """Nothing but a number is taken from the configuration."""
    (tmp_path / "config").write_text(f'CONFIG_CC_VERSION_TEXT="{text}"\n')
    with pytest.raises(LabError, match="not built with gcc"):
        toolchain.compiler_package(Kernel("6.1", "standard", "6.1.0-1-amd64", "6.1.1-1", tmp_path))


@pytest.mark.usefixtures("state")
def test_a_kernel_whose_headers_are_gone_has_no_klpctl(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """The archive keeps images longer than headers: a guest boots all the same, and it is said what it lacks."""
    kernel = Kernel("7.0", "standard", "7.0.4+deb13-amd64", "7.0.4-1~bpo13+1", tmp_path, "trixie-backports", "trixie")
    assert module.klpctl(kernel) is None
    assert "the archive has no headers of 7.0.4+deb13-amd64" in capfd.readouterr().err
