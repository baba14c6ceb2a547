# SPDX-License-Identifier: MIT
"""Arguments that cannot be right are refused before anything is done."""

from __future__ import annotations

from pathlib import Path

import pytest

from pylivepatch import BadDataError, lab
from pylivepatch.lab import session, share


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Keep the tests away from the real cache."""
    monkeypatch.setenv("PYLIVEPATCH_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.mark.parametrize(
    ("text", "size"), [("1G", 1 << 30), ("512m", 512 << 20), ("524288K", 512 << 20), ("2GiB", 2 << 30)]
)
def test_sizes(text: str, size: int) -> None:
    """Sizes are read as QEMU's users write them."""
    assert session.parse_size(text) == size


@pytest.mark.parametrize("text", ["", "G", "1T", "-1G", "64M", "1.5G", "0"])
def test_bad_sizes(text: str) -> None:
    """A size that is none, or too small to boot, is refused."""
    with pytest.raises(BadDataError, match="memory size"):
        session.parse_size(text)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"command": []}, "no command"),
        ({"cpus": 0}, "0 CPUs"),
        ({"timeout": 0.0}, "timeout"),
        ({"timeout": float("nan")}, "timeout"),
        ({"memory": "1"}, "memory size"),
        ({"shares": ["/nonexistent"]}, "not a directory"),
        ({"kernel": "6"}, "MAJOR.MINOR"),
        ({"kernel": "../6.1"}, "MAJOR.MINOR"),
        ({"flavour": "realtime"}, "expected one of standard, cloud, rt"),
    ],
)
def test_bad_arguments(arguments: dict[str, object], words: str, own_cache: Path) -> None:
    """Each wrong argument is named, and the cache stays untouched."""
    whole: dict[str, object] = {"command": ["true"], "kernel": "6.1", **arguments}
    with pytest.raises(BadDataError, match=words):
        lab.run(**whole)  # type: ignore[arg-type]
    assert not own_cache.exists()


@pytest.mark.parametrize("path", ["/", "/usr", "/proc", "/dev"])
def test_the_guests_own_places_are_not_shared(path: str) -> None:
    """A share that would hide the guest's system is refused."""
    with pytest.raises(BadDataError, match="the guest has its own"):
        share.plan([Path(path)])


def test_shares_are_mounted_outer_first(tmp_path: Path) -> None:
    """Equal directories are shared once, and inner ones mounted over outer ones."""
    inner = tmp_path / "a/b"
    inner.mkdir(parents=True)
    planned = share.plan([inner, tmp_path, tmp_path / "a/../a/b"])
    assert [item.target for item in planned] == [str(tmp_path), str(inner)]


def test_what_a_guest_prints_is_kept_up_to_a_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    """A guest that prints without end does not fill the host's memory."""
    monkeypatch.setattr(session, "KEPT", 1 << 20)
    kept = session.Kept()
    kept.write(bytes(1 << 20))
    with pytest.raises(lab.LabError, match="more than 1 MiB"):
        kept.write(b"x")


@pytest.mark.usefixtures("state")
def test_a_console_that_cannot_be_written_is_known_before_anything_is_done(tmp_path: Path) -> None:
    """The error names the file; nothing is fetched for it."""
    with pytest.raises(lab.LabError, match=r"No such file or directory .*/missing/console"):
        lab.run(["true"], kernel="6.1", console=tmp_path / "missing/console")
