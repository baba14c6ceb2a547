# SPDX-License-Identifier: MIT
"""Which kernel a name means."""

from __future__ import annotations

from pathlib import Path

import pytest

from pylivepatch.lab import apt, kernel
from pylivepatch.lab.errors import LabError

KNOWN = {
    "linux-image-6.1-amd64": {"Depends": "linux-image-6.1.0-56-amd64 (= 6.1.192-2)"},
    "linux-image-6.1.0-56-amd64": {"Version": "6.1.192-2"},
    "linux-image-6.1.0-54-amd64": {"Version": "6.1.190-1"},
    "linux-image-6.12.115+deb12-rt-amd64": {"Version": "6.12.115-2~deb12u1"},
}


@pytest.fixture(autouse=True)
def archive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An archive with a few packages, a cache of its own, and kernels that are as good as fetched."""

    def show(name: str) -> dict[str, str] | None:
        return {"Package": name, **KNOWN[name]} if name in KNOWN else None

    def fill(_package: apt.Package, release: str, into: Path) -> None:
        for name in ("vmlinuz", "vmlinux", "config", f"lib/modules/{release}/modules.dep.bin"):
            (into / name).parent.mkdir(parents=True, exist_ok=True)
            (into / name).touch()

    monkeypatch.setenv("PYLIVEPATCH_CACHE", str(tmp_path))
    monkeypatch.setattr(apt, "show", show)
    monkeypatch.setattr(apt, "update", lambda: None)
    monkeypatch.setattr(kernel, "_fill", fill)
    monkeypatch.setattr("platform.machine", lambda: "x86_64")


@pytest.mark.parametrize(
    ("name", "series", "flavour", "release", "version"),
    [
        ("6.1", "6.1", "standard", "6.1.0-56-amd64", "6.1.192-2"),
        ("6.1.0-54-amd64", "6.1", "standard", "6.1.0-54-amd64", "6.1.190-1"),
        ("6.12.115+deb12-rt-amd64", "6.12", "rt", "6.12.115+deb12-rt-amd64", "6.12.115-2~deb12u1"),
    ],
)
def test_names(name: str, series: str, flavour: str, release: str, version: str) -> None:
    """A series means its newest kernel, a release that one."""
    found = kernel.resolve(name)
    assert (found.series, found.flavour, found.release, found.version) == (series, flavour, release, version)


def test_a_release_that_the_archive_dropped_comes_from_the_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    """The cached kernel of that very release is used, and never another one."""
    kernel.resolve("6.1.0-54-amd64")
    monkeypatch.setattr(apt, "show", lambda _name: None)
    assert kernel.resolve("6.1.0-54-amd64").version == "6.1.190-1"
    with pytest.raises(LabError, match=r"no kernel 6\.1\.0-56-amd64"):
        kernel.resolve("6.1.0-56-amd64")


def test_a_release_has_its_own_flavour() -> None:
    """Another flavour than that of the release is refused."""
    with pytest.raises(ValueError, match="not of the flavour 'cloud'"):
        kernel.resolve("6.1.0-54-amd64", "cloud")

