# SPDX-License-Identifier: MIT
"""Entries of the lab's cache are whole or absent."""

from __future__ import annotations

from pathlib import Path

import pytest

from pylivepatch.lab import cache


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Give each test a cache of its own."""
    monkeypatch.setenv("PYLIVEPATCH_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


class Filler:
    """Fills entries and counts how often."""

    def __init__(self) -> None:
        self.times = 0

    def __call__(self, into: Path) -> None:
        """Fill *into*."""
        self.times += 1
        (into / "big").write_bytes(b"0123456789")


def test_an_entry_is_filled_once() -> None:
    """A whole entry is used as it is."""
    fill = Filler()
    first = cache.entry("things", "key:1~2", fill, check=("big",))
    assert cache.entry("things", "key:1~2", fill, check=("big",)) == first
    assert fill.times == 1
    assert first.name == "key_1_2"


@pytest.mark.parametrize("damage", ["truncated", "removed", "unmarked", "garbled"])
def test_a_broken_entry_is_made_again(damage: str) -> None:
    """An entry that lost something is filled anew at its next use."""
    fill = Filler()
    path = cache.entry("things", "key", fill, check=("big",))
    if damage == "truncated":
        (path / "big").write_bytes(b"0")
    elif damage == "removed":
        (path / "big").unlink()
    elif damage == "unmarked":
        (path / cache.MARKER).unlink()
    else:
        (path / cache.MARKER).write_text("[")
    assert (cache.entry("things", "key", fill, check=("big",)) / "big").read_bytes() == b"0123456789"
    assert fill.times == 2


def test_a_failed_fill_leaves_nothing(own_cache: Path) -> None:
    """A fill that raises leaves no entry, and no half of one."""

    def fail(into: Path) -> None:
        (into / "half").touch()
        raise RuntimeError("no network")

    with pytest.raises(RuntimeError, match="no network"):
        cache.entry("things", "key", fail, check=())
    assert list((own_cache / "things").iterdir()) == []


def test_root_follows_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Without a cache of its own the lab uses XDG_CACHE_HOME."""
    monkeypatch.delenv("PYLIVEPATCH_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache.root() == (tmp_path / "xdg/pylivepatch").resolve()


def test_digest_tells_parts_apart() -> None:
    """Moving a byte from one part to the next changes the digest."""
    assert cache.digest(["ab", "c"]) != cache.digest(["a", "bc"])
