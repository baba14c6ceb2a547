# SPDX-License-Identifier: MIT
"""Which kernel a name means."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pylivepatch.errors import BadDataError
from pylivepatch.lab import archive, kernel, lists
from pylivepatch.lab.errors import LabError


@pytest.fixture(autouse=True)
def fetched(state: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Kernels that are as good as fetched."""

    def fill(image: lists.Listed, into: Path) -> None:
        for name in kernel._check(kernel.release_of(image)):
            (into / name).parent.mkdir(parents=True, exist_ok=True)
            (into / name).touch()
        (into / kernel.FACTS).write_text(json.dumps([image.version, image.suite, image.distribution]))

    monkeypatch.setattr(kernel, "_fill", fill)
    monkeypatch.setattr("platform.machine", lambda: "x86_64")


@pytest.mark.parametrize(
    ("name", "flavour", "suite", "release", "version", "distribution"),
    [
        ("6.1", "standard", "", "6.1.0-56-amd64", "6.1.192-2", "bookworm"),
        ("6.1", "cloud", "", "6.1.0-56-cloud-amd64", "6.1.192-2", "bookworm"),
        ("6.1.0-54-amd64", "standard", "", "6.1.0-54-amd64", "6.1.190-1", "bookworm"),
        ("6.12", "standard", "bookworm", "6.12.117+deb12-amd64", "6.12.117-1~deb12u1", "bookworm"),
        ("6.12", "standard", "trixie-security", "6.12.118+deb13-amd64", "6.12.118-1", "trixie"),
        ("6.12.115+deb12-rt-amd64", "rt", "", "6.12.115+deb12-rt-amd64", "6.12.115-2~deb12u1", "bookworm"),
        ("7.3", "standard", "", "7.3.4+deb13-amd64", "7.3.4-1~bpo13+1", "trixie"),
    ],
)
def test_names(name: str, flavour: str, suite: str, release: str, version: str, distribution: str) -> None:
    """A series means its newest kernel, in the suite that is asked for; a release that one."""
    found = kernel.resolve(name, "standard" if name == release else flavour, suite)
    assert (found.flavour, found.release, found.version, found.distribution) == (
        flavour, release, version, distribution)  # fmt: skip
    assert release.startswith(found.series)


def test_a_release_that_the_archive_dropped_comes_from_the_cache(state: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The cached kernel of that very release is used, and never another one."""
    kernel.resolve("6.1.0-54-amd64")
    monkeypatch.setattr(archive.State, "kernels", lambda _self: [])
    assert kernel.resolve("6.1.0-54-amd64").version == "6.1.190-1"
    assert kernel.resolve("6.1").release == "6.1.0-54-amd64"
    with pytest.raises(LabError, match=r"no kernel 6\.1\.0-56-amd64 in the archive.*pylivepatch lab kernels"):
        kernel.resolve("6.1.0-56-amd64")


def test_what_the_mirror_lacks_is_said(state: Path) -> None:
    """A kernel of a suite that the mirror does not have cannot be had, and the error says why."""
    lacking = {"sid": "the mirror does not have it"}
    facts = {"format": lists.FORMAT, "mirror": "http://m.example/", "lacking": lacking, "libc": {}}
    (state / "facts.json").write_text(json.dumps(facts))
    with pytest.raises(LabError, match=r"series 7\.2 .*sid: the mirror does not have it \(http://m\.example/\)"):
        kernel.resolve("7.2")


def test_a_kernel_of_which_parts_are_gone_is_not_there() -> None:
    """The archive drops the packages of an old kernel one by one."""
    assert not [image for series, _, image in kernel.available() if series == "7.1"]
    with pytest.raises(LabError, match=r"no kernel 7\.1\.3\+deb13-amd64 in the archive"):
        kernel.resolve("7.1.3+deb13-amd64")


def test_a_release_has_its_own_flavour() -> None:
    """Another flavour than that of the release is refused."""
    with pytest.raises(BadDataError, match="not of the flavour 'cloud'"):
        kernel.resolve("6.1.0-54-amd64", "cloud")


def test_an_unknown_suite_is_refused() -> None:
    """A suite that has no kernels of ours is a mistake, named with those that have."""
    with pytest.raises(BadDataError, match=r"suite 'jessie': expected one of bookworm, bookworm-backports"):
        kernel.resolve("6.1", suite="jessie")


def test_split_packages_are_fetched_together() -> None:
    """Since 6.19 the image package is empty: the packages that it is split into belong to it."""
    image = kernel.find("7.3")
    assert [package.name for package in kernel._packages(image)] == [
        "linux-image-7.3.4+deb13-amd64", "linux-base-7.3.4+deb13-amd64", "linux-binary-7.3.4+deb13-amd64",
        "linux-modules-7.3.4+deb13-amd64"]  # fmt: skip
    assert [package.name for package in kernel._packages(kernel.find("6.1"))] == ["linux-image-6.1.0-56-amd64"]
