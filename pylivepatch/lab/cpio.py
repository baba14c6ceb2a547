# SPDX-License-Identifier: MIT
"""Archives in the format that the kernel unpacks as its first file system (cpio "newc")."""

from __future__ import annotations

import stat
from pathlib import Path


class Archive:
    """A cpio archive in the making; every entry belongs to root.

    Several archives may be put one after the other: the kernel unpacks each.
    """

    def __init__(self) -> None:
        self._parts: list[bytes] = []
        self._folders: set[str] = set()
        self._number = 0

    def _add(self, name: str, mode: int, data: bytes = b"", device: tuple[int, int] = (0, 0)) -> None:
        self._number += 1
        encoded = name.encode() + b"\0"
        numbers = (self._number, mode, 0, 0, 1, 0, len(data), 0, 0, *device, len(encoded), 0)
        head = b"070701" + b"".join(b"%08X" % number for number in numbers) + encoded
        self._parts += [head, b"\0" * (-len(head) % 4), data, b"\0" * (-len(data) % 4)]

    def folder(self, name: str) -> None:
        """Add the directory *name* and those above it, unless they are there."""
        name = name.strip("/")
        if not name or name in self._folders:
            return
        if "/" in name:
            self.folder(name.rpartition("/")[0])
        self._folders.add(name)
        self._add(name, stat.S_IFDIR | 0o755)

    def file(self, name: str, data: bytes, mode: int = 0o644) -> None:
        """Add the regular file *name*."""
        name = name.strip("/")
        self.folder(name.rpartition("/")[0])
        self._add(name, stat.S_IFREG | mode, data)

    def link(self, name: str, target: str) -> None:
        """Add the symbolic link *name* to *target*."""
        name = name.strip("/")
        self.folder(name.rpartition("/")[0])
        self._add(name, stat.S_IFLNK | 0o777, target.encode())

    def device(self, name: str, major: int, minor: int) -> None:
        """Add the character device *name*."""
        name = name.strip("/")
        self.folder(name.rpartition("/")[0])
        self._add(name, stat.S_IFCHR | 0o600, device=(major, minor))

    def tree(self, name: str, source: Path) -> None:
        """Add the directory *source* of the host, with all that is below it, as *name*."""
        self.folder(name)
        for path in sorted(source.rglob("*")):
            inside = f"{name}/{path.relative_to(source)}"
            if path.is_symlink():
                self.link(inside, str(path.readlink()))
            elif path.is_dir():
                self.folder(inside)
            else:
                self.file(inside, path.read_bytes(), 0o755 if path.stat().st_mode & 0o100 else 0o644)

    def data(self) -> bytes:
        """Return the finished archive."""
        trailer = Archive()
        trailer._add("TRAILER!!!", 0)
        joined = b"".join([*self._parts, *trailer._parts])
        return joined + b"\0" * (-len(joined) % 512)
