# SPDX-License-Identifier: MIT
"""Archives for the kernel's first file system."""

from __future__ import annotations

import stat
from pathlib import Path

from pylivepatch.lab.cpio import Archive


def entries(data: bytes) -> dict[str, tuple[int, bytes]]:
    """Return name to (mode, content) of the newc archive *data*, read as the kernel reads it."""
    found = {}
    at = 0
    while True:
        assert data[at : at + 6] == b"070701"
        numbers = [int(data[at + 6 + 8 * n : at + 14 + 8 * n], 16) for n in range(13)]
        mode, size, length = numbers[1], numbers[6], numbers[11]
        name = data[at + 110 : at + 110 + length - 1].decode()
        start = (at + 110 + length + 3) & ~3
        if name == "TRAILER!!!":
            return found
        assert name not in found
        found[name] = (mode, data[start : start + size])
        at = (start + size + 3) & ~3


def test_files_links_devices_and_their_folders() -> None:
    """Every entry comes after the folders above it, each of which is there once."""
    archive = Archive()
    archive.file("a/b/odd", b"12345", 0o755)
    archive.file("/a/b/empty", b"")
    archive.link("a/link", "../target")
    archive.device("dev/console", 5, 1)
    data = archive.data()
    found = entries(data)
    assert list(found) == ["a", "a/b", "a/b/odd", "a/b/empty", "a/link", "dev", "dev/console"]
    assert found["a/b/odd"] == (stat.S_IFREG | 0o755, b"12345")
    assert found["a/link"] == (stat.S_IFLNK | 0o777, b"../target")
    assert stat.S_ISCHR(found["dev/console"][0])
    assert len(data) % 512 == 0


def test_tree(tmp_path: Path) -> None:
    """A directory of the host is copied with its links, and only its executable files stay executable."""
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub/run").write_bytes(b"#!")
    (tmp_path / "sub/run").chmod(0o700)
    (tmp_path / "data").write_bytes(b"x")
    (tmp_path / "link").symlink_to("data")
    archive = Archive()
    archive.tree("top", tmp_path)
    found = entries(archive.data())
    assert found["top/sub/run"][0] == stat.S_IFREG | 0o755
    assert found["top/data"] == (stat.S_IFREG | 0o644, b"x")
    assert found["top/link"][1] == b"data"
