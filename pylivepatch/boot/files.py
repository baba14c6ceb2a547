# SPDX-License-Identifier: MIT
"""Files that survive a crash: whole, and on the disk before anything goes on."""

from __future__ import annotations

import contextlib
import fcntl
import os
from pathlib import Path
from typing import TYPE_CHECKING

from pylivepatch.errors import AccessError, KernelError

if TYPE_CHECKING:
    from collections.abc import Iterator


def write(path: Path, data: bytes) -> None:
    """Replace a file; after a crash it is the old one or the new one, never a part of either.

    Args:
        path: The file; its directory exists.
        data: What it is to hold.
    """
    fresh = path.with_name(f".{path.name}.new")
    try:
        with open(fresh, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        fresh.replace(path)
    except BaseException:
        fresh.unlink(missing_ok=True)
        raise
    fsync_directory(path.parent)


def remove(path: Path) -> None:
    """Remove a file, if it is there."""
    with contextlib.suppress(FileNotFoundError):
        path.unlink()
        fsync_directory(path.parent)


def make_directory(path: Path) -> None:
    """Make a directory, with those above it."""
    missing = [each for each in (path, *path.parents) if not each.is_dir()]
    for each in reversed(missing):
        each.mkdir(mode=0o755, exist_ok=True)
        fsync_directory(each.parent)


def fsync_directory(directory: Path) -> None:
    """Write the names in a directory to the disk."""
    number = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(number)
    finally:
        os.close(number)


@contextlib.contextmanager
def exclusive_lock(directory: Path) -> Iterator[None]:
    """Hold an exclusive lock on a directory."""
    number = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(number, fcntl.LOCK_EX)
        yield
    finally:
        os.close(number)


@contextlib.contextmanager
def translate_errors(what: str, where: Path) -> Iterator[None]:
    """Translate an OSError of the body into a KernelError or an AccessError.

    Raises:
        AccessError: The caller may not change it. It is as it was before.
        KernelError: The file system refused it. It is as it was before.
    """
    try:
        yield
    except KernelError:
        raise
    except OSError as error:
        kind = AccessError if isinstance(error, PermissionError) else KernelError
        raise kind(
            f"cannot change {what}: {error.strerror or error}",
            errno=error.errno or 0,
            filename=str(error.filename or where),
            after="nothing has changed",
            remedy="run it as root" if kind is AccessError else f"make {where} writable, with room on its file system",
        ) from None
