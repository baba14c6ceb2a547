# SPDX-License-Identifier: MIT
"""The lab's own view of the distribution's archive: package lists in the cache, of all suites that have kernels.

The host's package lists are neither read nor changed, and nothing here needs root. Of the host's apt only its
mirror, its proxies and its credentials are used.

A *state* is what the archive offered at one time: lists that are never changed once they are made. A command
works with one state from its start to its end; the environment variable `PYLIVEPATCH_ARCHIVE` names it for the
processes that belong to the same command.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache as remembered
from pathlib import Path

from pylivepatch.lab import cache, lists
from pylivepatch.lab.errors import LabError
from pylivepatch.lab.lists import Listed

VARIABLE = "PYLIVEPATCH_ARCHIVE"
"""Environment variable that names the state of the archive to work with."""

AGE = 24 * 3600.0
"""Seconds after which the lists are looked at anew."""

KEPT = 3
"""States that are kept; what changed little between two of them is there once."""


@dataclass(frozen=True, slots=True)
class State:
    """One state of the archive.

    Attributes:
        path: Its directory.
    """

    path: Path

    @property
    def name(self) -> str:
        """What `VARIABLE` has for it."""
        return self.path.name

    @property
    def lacking(self) -> Mapping[str, str]:
        """The suites that could not be had from the mirror, each with the reason."""
        facts = json.loads((self.path / "facts.json").read_text())
        return {str(suite): str(reason) for suite, reason in facts["lacking"].items()}

    @property
    def mirror(self) -> str:
        """The mirror that it came from."""
        return str(json.loads((self.path / "facts.json").read_text())["mirror"])

    def options(self, distribution: str) -> list[str]:
        """Return the arguments that make a program of apt see the suites of one distribution, and them alone."""
        return lists.options(self.path, distribution)

    def libraries(self) -> Mapping[str, str]:
        """Return distribution to the version of its C library."""
        facts = json.loads((self.path / "facts.json").read_text())
        return {str(name): str(version) for name, version in facts["libc"].items()}

    def kernels(self) -> list[Listed]:
        """Return the packages that have kernels, their headers and their sources, in all suites."""
        return _kernels(self.path / "kernels.json")


@remembered
def _kernels(path: Path) -> list[Listed]:
    return [Listed(*fields) for fields in json.loads(path.read_text())]


def state() -> State:
    """Return the state of the archive that this command works with.

    The first call decides: lists that are older than `AGE` are refreshed, by one process at a time. Without a
    network those in the cache are used, with a notice. From then on `VARIABLE` names it, for this process and
    those that it starts.

    Raises:
        LabError: There are no lists, and they cannot be fetched.
    """
    if named := os.environ.get(VARIABLE):
        path = _folder() / named
        if "/" in named or not _usable(path):
            raise LabError(f"{VARIABLE} names {named!r}, a state of the archive that is not in {_folder()}: unset it")
        return State(path)
    with cache.lock("archive"):
        current = _current()
        if current is None or _age(current) > AGE:
            current = _renewed(current)
    _choose(current)
    return current


class OutdatedError(LabError):
    """The archive no longer has what the lists name; newer lists have been fetched for the next command."""


def refresh(reason: LabError) -> LabError:
    """Look at the archive again, after a download from it failed, and return the error to raise.

    Args:
        reason: Why the download failed.

    Returns:
        An `OutdatedError` when the archive has changed, otherwise *reason*.
    """
    used = state()
    with cache.lock("archive"):
        current = _current()
        if current is None or current.name == used.name:
            current = _renewed(current)
    if current.name == used.name:
        return reason
    return OutdatedError(f"{reason}\nthe archive has changed since its lists were fetched; they have been refreshed: "
                         "run the command again")


def follow() -> bool:
    """Work with the newest state from now on, unless the command was told which one to use; tell whether it is so."""
    current = _current()
    if current is None or os.environ.get(VARIABLE) != _chosen or current.name == _chosen:
        return False
    _choose(current)
    return True


_chosen = ""
"""The state that this process has chosen itself."""


def _choose(current: State) -> None:
    global _chosen
    os.environ[VARIABLE] = _chosen = current.name


def _folder() -> Path:
    return cache.root() / "archive"


def _current() -> State | None:
    path = _folder() / "current"
    return State(path.resolve()) if _usable(path) else None


def _usable(path: Path) -> bool:
    """Tell whether a state is there, and was made as states are made now."""
    try:
        return bool(json.loads((path / "facts.json").read_text())["format"] == lists.FORMAT)
    except (OSError, ValueError, KeyError, TypeError):
        return False


def _age(current: State) -> float:
    return abs(time.time() - (current.path / "facts.json").stat().st_mtime)


def _renewed(current: State | None) -> State:
    """Return the newest state, or *current* with a notice when the mirror cannot be reached."""
    cache.say("refreshing the package lists of the lab")
    folder = _folder()
    folder.mkdir(exist_ok=True)
    for stale in folder.glob(".new-*"):
        shutil.rmtree(stale, ignore_errors=True)
    fresh = Path(tempfile.mkdtemp(prefix=".new-", dir=folder))
    try:
        found = folder / lists.fetch(fresh, current.path if current else None)
        if found.exists():
            shutil.rmtree(fresh)
        else:
            fresh.rename(found)
        os.utime(found / "facts.json")
        _switch(found)
    except LabError as error:
        shutil.rmtree(fresh, ignore_errors=True)
        if current is None:
            raise
        cache.say(f"using package lists that are {_age(current) / 86400:.0f} days old: "
                  f"{str(error).splitlines()[-1]}")
        return current
    except BaseException:
        shutil.rmtree(fresh, ignore_errors=True)
        raise
    return State(found)


def _switch(found: Path) -> None:
    """Make *found* the current state, and forget old ones."""
    link = _folder() / f".current-{os.getpid()}"
    link.symlink_to(found.name)
    link.rename(_folder() / "current")
    old = sorted((path for path in _folder().glob("[!.]*/facts.json") if path.parent.name != "current"),
                 key=lambda path: path.stat().st_mtime, reverse=True)
    for path in old[KEPT:]:
        if path.parent != found and time.time() - path.stat().st_mtime > AGE:
            shutil.rmtree(path.parent, ignore_errors=True)
