# SPDX-License-Identifier: MIT
"""Entries of the lab's cache are whole or absent."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from pylivepatch.lab import cache
from pylivepatch.lab.errors import LabError


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


def test_an_ordinary_user_s_cache_follows_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Without a cache of its own the lab uses XDG_CACHE_HOME; nobody else can look into it."""
    monkeypatch.delenv("PYLIVEPATCH_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    monkeypatch.setattr(cache, "SYSTEM", tmp_path / "system")
    root = os.geteuid() == 0
    assert cache.root() == (tmp_path / ("system" if root else "xdg/pylivepatch")).resolve()
    assert cache.root().stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize("mode", [0o770, 0o707, 0o722])
def test_a_cache_that_others_may_write_is_refused(own_cache: Path, mode: int) -> None:
    """What is in the cache is executed: nobody else may put something there."""
    own_cache.mkdir()
    own_cache.chmod(mode)
    with pytest.raises(LabError, match="can be written by others"):
        cache.root()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a directory away")
def test_a_cache_of_somebody_else_is_refused(own_cache: Path) -> None:
    """Root with another user's $HOME would execute that user's files."""
    own_cache.mkdir()
    os.chown(own_cache, 65534, 65534)
    with pytest.raises(LabError, match="belongs to uid 65534"):
        cache.root()


@pytest.mark.parametrize("marker", ["{}", '{"other": ["", 0, 0, 0, 0]}', "[]", "null", '{"big": 10}', '{"big": []}'])
def test_a_marker_that_vouches_for_nothing_does_not_count(marker: str) -> None:
    """An entry is complete when the marker has each file that is asked for, not when it has none that is missing."""
    fill = Filler()
    path = cache.entry("things", "key", fill, check=("big",))
    (path / cache.MARKER).write_text(marker)
    cache.entry("things", "key", fill, check=("big",))
    assert fill.times == 2


def test_a_file_that_was_changed_is_made_again() -> None:
    """Neither the size nor the times that a program can set hide a change."""
    fill = Filler()
    path = cache.entry("things", "key", fill, check=("big",)) / "big"
    before = path.stat()
    path.write_bytes(b"evil123456")
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert cache.entry("things", "key", fill, check=("big",)) == path.parent
    assert (path.read_bytes(), fill.times) == (b"0123456789", 2)


def test_a_file_that_was_only_touched_is_kept() -> None:
    """The same content with another time is the same content."""
    fill = Filler()
    path = cache.entry("things", "key", fill, check=("big",)) / "big"
    os.utime(path, ns=(1, 1))
    cache.entry("things", "key", fill, check=("big",))
    assert fill.times == 1


def test_a_full_disk_is_an_error_with_a_way_out(own_cache: Path) -> None:
    """No traceback, and no half of an entry."""

    def fail(into: Path) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(into / "big"))

    with pytest.raises(LabError, match=r"No space left on device .*make room"):
        cache.entry("things", "key", fail, check=())
    assert list((own_cache / "things").iterdir()) == []


def test_digest_tells_parts_apart() -> None:
    """Moving a byte from one part to the next changes the digest."""
    assert cache.digest(["ab", "c"]) != cache.digest(["a", "bc"])
