# SPDX-License-Identifier: MIT
"""The lab's cache: entries that are complete or absent, filled by one process at a time."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import re
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

from pylivepatch.lab.errors import LabError

MARKER = ".complete.json"

KEEP = 30 * 24 * 3600.0
"""Seconds that an entry stays after its last use."""

SYSTEM = Path("/var/cache/pylivepatch")
"""Root's cache: not below $HOME, which sudo may leave as another user's."""


def root() -> Path:
    """Return the cache's directory, made if absent, for its owner alone.

    `$PYLIVEPATCH_CACHE`; else, for root, `/var/cache/pylivepatch`; else `$XDG_CACHE_HOME/pylivepatch` or
    `~/.cache/pylivepatch`. Programs in it are executed, so it must be the caller's own.

    Raises:
        LabError: It belongs to somebody else, or others may write to it, or it cannot be made.
    """
    if named := os.environ.get("PYLIVEPATCH_CACHE"):
        path = Path(named)
    elif os.geteuid() == 0:
        path = SYSTEM
    else:
        path = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "pylivepatch"
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        path = path.resolve(strict=True)
        found = path.stat()
    except OSError as error:
        raise LabError(f"cannot make the cache {path}: {error.strerror}; name a directory of your own: "
                       "PYLIVEPATCH_CACHE") from error
    if found.st_uid != os.geteuid() or found.st_mode & 0o022:
        why = f"belongs to uid {found.st_uid}" if found.st_uid != os.geteuid() else "can be written by others"
        raise LabError(f"the cache {path} {why}, and programs in it would be executed: name a directory of your own "
                       "(PYLIVEPATCH_CACHE)")
    return path


def say(message: str) -> None:
    """Print one status line to standard error."""
    print(f"lab: {message}", file=sys.stderr, flush=True)


def safe(name: str) -> str:
    """Return *name* with everything replaced that make or a shell could misread in a path."""
    return re.sub(r"[^A-Za-z0-9.+_-]", "_", name)


def digest(parts: Iterable[bytes | str]) -> str:
    """Return a short hash of *parts*, each delimited."""
    total = hashlib.sha256()
    for part in parts:
        data = part.encode() if isinstance(part, str) else part
        total.update(len(data).to_bytes(8, "big"))
        total.update(data)
    return total.hexdigest()[:16]


def tree_digest(top: Path, files: Iterable[Path]) -> str:
    """Return a short hash of the names, modes and contents of *files* below *top*."""
    parts: list[bytes | str] = []
    for path in sorted(files):
        parts += [str(path.relative_to(top)), str(path.stat().st_mode & 0o111), path.read_bytes()]
    return digest(parts)


@contextlib.contextmanager
def lock(name: str) -> Iterator[None]:
    """Hold the cache's lock *name*; waits for whoever has it."""
    locks = root() / "locks"
    locks.mkdir(exist_ok=True)
    with open(locks / safe(name), "wb") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        yield


def _stamp(path: Path) -> list[int]:
    """Return what changes whenever *path* is written or replaced; nobody but root's clock can set ctime back."""
    found = path.stat()
    return [found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_ino]


def _mark(path: Path, check: Sequence[str]) -> None:
    """Record what the files *check* of the entry *path* are."""
    facts = {}
    for name in check:
        with open(path / name, "rb") as file:
            facts[name] = [hashlib.file_digest(file, "sha256").hexdigest(), *_stamp(path / name)]
    fresh = path / f"{MARKER}.{os.getpid()}"
    fresh.write_text(json.dumps(facts))
    fresh.rename(path / MARKER)


def _complete(path: Path, check: Sequence[str]) -> bool:
    """Tell whether the entry *path* has all of *check*, as they were when it was filled."""
    try:
        facts = json.loads((path / MARKER).read_text())
        changed = [name for name in check if facts[name][1:] != _stamp(path / name)]
        for name in changed:
            with open(path / name, "rb") as file:
                if hashlib.file_digest(file, "sha256").hexdigest() != facts[name][0]:
                    return False
        if changed:
            _mark(path, check)
    except (OSError, ValueError, AttributeError, KeyError, TypeError, IndexError):
        return False
    return True


def _prune(folder: Path) -> None:
    """Remove the entries of *folder* that nobody has used for `KEEP` seconds."""
    for marker in folder.glob(f"*/{MARKER}"):
        with contextlib.suppress(OSError):
            if time.time() - marker.stat().st_mtime > KEEP:
                marker.unlink()
                shutil.rmtree(marker.parent)


def kept(kind: str, prefix: str, check: Sequence[str]) -> Path | None:
    """Return the entry of *kind* that was used last of those whose names start with *prefix*, or None."""
    found = [path for path in (root() / kind).glob(f"{safe(prefix)}*") if _complete(path, check)]
    return max(found, key=lambda path: (path / MARKER).stat().st_mtime, default=None)


def entry(
    kind: str,
    key: str,
    fill: Callable[[Path], None],
    *,
    check: Sequence[str],
    notice: str = "",
    in_place: bool = False,
) -> Path:
    """Return the cache entry *kind*/*key*, filling it first when it is absent or broken.

    Args:
        kind: Folder of the cache.
        key: Name of the entry; whatever its content depends on must be in it.
        fill: Called with an empty directory to fill; it may raise, and then nothing is kept.
        check: Files of the entry, relative, whose contents are recorded, and looked at on each use: an entry
            that lost one, or whose file was changed, is made again.
        notice: Status line printed before a fill.
        in_place: Fill the entry where it stays, for what has its own path in it.

    Returns:
        The entry's directory. It appears by rename, or counts only with the marker that is written last, so it is
        never used half-filled.

    Raises:
        LabError: The disk is full, or the cache cannot be written.
    """
    folder = root() / kind
    path = folder / safe(key)
    if _complete(path, check):
        with contextlib.suppress(OSError):
            os.utime(path / MARKER)
        return path
    try:
        with lock(f"{kind}-{key}"):
            if not _complete(path, check):
                if notice:
                    say(notice)
                _fill(folder, path, fill, check, in_place)
    except OSError as error:
        raise LabError(f"cannot fill {path}: {error.strerror or error} ({error.filename or 'no file named'}); "
                       "nothing of it was kept; make room, or name another directory (PYLIVEPATCH_CACHE)") from error
    return path


def _fill(folder: Path, path: Path, fill: Callable[[Path], None], check: Sequence[str], in_place: bool) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for stale in folder.glob(f".{path.name}.new-*"):
        shutil.rmtree(stale, ignore_errors=True)
    if in_place:
        shutil.rmtree(path, ignore_errors=True)
        path.mkdir()
    fresh = path if in_place else Path(tempfile.mkdtemp(prefix=f".{path.name}.new-", dir=folder))
    try:
        fresh.chmod(0o755)
        fill(fresh)
        _mark(fresh, check)
        if fresh != path:
            if path.exists():
                shutil.rmtree(path)
            fresh.rename(path)
        _prune(folder)
    except BaseException:
        shutil.rmtree(fresh, ignore_errors=True)
        raise
