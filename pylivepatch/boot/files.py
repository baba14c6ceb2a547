# SPDX-License-Identifier: MIT
"""Files that survive a crash: whole, and on the disk before anything goes on."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import stat
import time
from pathlib import Path
from typing import TYPE_CHECKING

from pylivepatch.errors import AccessError, BadDataError, KernelError, LivepatchError

if TYPE_CHECKING:
    from collections.abc import Iterator

_PATIENCE = 10.0
_PAUSE = 0.05


def write(path: Path, data: bytes, mode: int = 0o644) -> None:
    """Replace a file; after a crash it is the old one or the new one, never a part of either.

    Args:
        path: The file; its directory exists.
        data: What it is to hold.
        mode: Who may read and write it, whatever the umask is.
    """
    import tempfile

    # In the same directory, so that renaming is one step; for nobody else until it is whole.
    number, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    fresh = Path(name)
    try:
        with open(number, "wb") as file:
            file.write(data)
            os.fchmod(file.fileno(), mode)
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


def make_directory(path: Path, mode: int = 0o755) -> None:
    """Make a directory, with those above it, whatever the umask is; `mode` is that of the last."""
    missing = [each for each in (path, *path.parents) if not each.is_dir()]
    for each in reversed(missing):
        each.mkdir(exist_ok=True)
        each.chmod(mode if each == path else 0o755)
        fsync_directory(each.parent)


def fsync_directory(directory: Path) -> None:
    """Write the names in a directory to the disk."""
    number = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(number)
    finally:
        os.close(number)


@contextlib.contextmanager
def exclusive_lock(path: Path) -> Iterator[None]:
    """Hold an exclusive lock on a file that nobody else may open: a directory that all may open all may lock.

    Args:
        path: The file; it is made.

    Raises:
        BlockingIOError: Another process holds it for longer than 10 s; that is named.
    """
    number = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        end = time.monotonic() + _PATIENCE
        while True:
            try:
                fcntl.flock(number, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() >= end:
                    raise BlockingIOError(errno.EWOULDBLOCK, f"{_holder(number)} holds its lock", str(path)) from None
            time.sleep(_PAUSE)
        yield
    finally:
        os.close(number)


def _holder(number: int) -> str:
    """Who holds the lock on an open file."""
    about = os.fstat(number)
    device = f"{os.major(about.st_dev):02x}:{os.minor(about.st_dev):02x}:{about.st_ino}"
    with contextlib.suppress(OSError):
        for line in Path("/proc/locks").read_text().splitlines():
            fields = line.split()
            if device in fields and "->" not in fields:
                return f"process {fields[fields.index(device) - 1]}"
    return "another process"


def refuse_foreign(path: Path, owners: tuple[int, ...] | None = None, *, sticky: bool = False) -> None:
    """Refuse a file or directory that root would act upon and others may write.

    Args:
        path: The file or directory.
        owners: Who may own it; by default root, and the caller.
        sticky: Whether a directory that all may write is good enough if nobody can rename what is another's.

    Raises:
        BadDataError: It is neither root's nor the caller's, or others may write it.
    """
    about = path.lstat()
    writable = about.st_mode & 0o022 and not stat.S_ISLNK(about.st_mode)
    if sticky and about.st_mode & stat.S_ISVTX:
        writable = False
    if about.st_uid not in (owners or (0, os.geteuid())) or writable:
        raise BadDataError(
            f"{path} may be written by others than root, who could have root load their code",
            after="nothing has changed",
            remedy=f"look at what it is, then chown root {path} and chmod go-w {path}, or remove it",
        )


@contextlib.contextmanager
def translate_errors(what: str, where: Path, verb: str = "change") -> Iterator[None]:
    """Translate an OSError of the body into a KernelError or an AccessError.

    Args:
        what: What the body does something to, in words.
        where: The file or directory concerned.
        verb: What the body does: "change" or "read".

    Raises:
        AccessError: The caller may not do that. It is as it was before.
        KernelError: The file system refused it. It is as it was before.
    """
    try:
        yield
    except LivepatchError:
        raise
    except OSError as error:
        kind = AccessError if isinstance(error, PermissionError) else KernelError
        remedy = f"make {where} readable" if verb == "read" else f"make {where} writable, with room on its file system"
        if isinstance(error, PermissionError):
            remedy = "run it as root"
        elif isinstance(error, BlockingIOError):
            remedy = "try again when it has ended"
        raise kind(
            f"cannot {verb} {what}: {error.strerror or error}",
            errno=error.errno or 0,
            filename=str(error.filename or where),
            after="nothing has changed",
            remedy=remedy,
        ) from None
