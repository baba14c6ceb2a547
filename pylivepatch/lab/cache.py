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

MARKER = ".complete.json"

KEEP = 30 * 24 * 3600.0
"""Seconds that an entry stays after its last use."""


def root() -> Path:
    """Return the cache's directory, made if absent.

    `$PYLIVEPATCH_CACHE`, else `$XDG_CACHE_HOME/pylivepatch`, else `~/.cache/pylivepatch`.
    """
    if named := os.environ.get("PYLIVEPATCH_CACHE"):
        path = Path(named)
    else:
        path = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "pylivepatch"
    path.mkdir(parents=True, exist_ok=True)
    return path.resolve()


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


def _complete(path: Path) -> bool:
    try:
        sizes = json.loads((path / MARKER).read_text())
        return all((path / name).stat().st_size == size for name, size in sizes.items())
    except (OSError, ValueError, AttributeError):
        return False


def _prune(folder: Path) -> None:
    """Remove the entries of *folder* that nobody has used for `KEEP` seconds."""
    for marker in folder.glob(f"*/{MARKER}"):
        with contextlib.suppress(OSError):
            if time.time() - marker.stat().st_mtime > KEEP:
                marker.unlink()
                shutil.rmtree(marker.parent)


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
        check: Files of the entry, relative, whose sizes are recorded and looked at on each use:
            an entry that lost one, or has a truncated one, is made again.
        notice: Status line printed before a fill.
        in_place: Fill the entry where it stays, for what has its own path in it.

    Returns:
        The entry's directory. It appears by rename, or counts only with the marker that is written last, so it is
        never used half-filled.
    """
    folder = root() / kind
    path = folder / safe(key)
    if _complete(path):
        with contextlib.suppress(OSError):
            os.utime(path / MARKER)
        return path
    with lock(f"{kind}-{key}"):
        if _complete(path):
            return path
        if notice:
            say(notice)
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
            sizes = {name: (fresh / name).stat().st_size for name in check}
            (fresh / MARKER).write_text(json.dumps(sizes))
            if fresh != path:
                if path.exists():
                    shutil.rmtree(path)
                fresh.rename(path)
            _prune(folder)
        except BaseException:
            shutil.rmtree(fresh, ignore_errors=True)
            raise
    return path
