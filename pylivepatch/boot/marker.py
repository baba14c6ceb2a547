# SPDX-License-Identifier: MIT
"""The crash memory: which patches are on trial, in which boot.

A patch is on trial from before it is applied at boot until it has been applied for
a while. The marker is on the disk before the kernel is asked for anything. It is
removed when the trial ends, and when the system goes down in an orderly way; so a
marker of another boot means that the machine crashed.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, NamedTuple

from pylivepatch.boot import files
from pylivepatch.errors import BadDataError

if TYPE_CHECKING:
    from pathlib import Path

MARKER = "trying.json"


class Marker(NamedTuple):
    """What a marker says: the patches on trial, and the boot_id of the boot they are on trial in."""

    boot: str
    names: tuple[str, ...]


def read(folder: Path) -> Marker | None:
    """Read the marker of a kernel release.

    Args:
        folder: The part of the store for that release.

    Raises:
        BadDataError: It cannot be understood.
    """
    path = folder / MARKER
    try:
        data = json.loads(path.read_bytes())
        return Marker(str(data["boot"]), tuple(str(name) for name in data["names"]))
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError) as error:
        raise BadDataError(
            f"{path} is damaged: {error}",
            after="nothing was applied",
            remedy="remove it; it named the patches that were being applied when the machine crashed",
        ) from None


class CrashMarker:
    """The marker of this boot, as it is kept.

    Args:
        folder: The part of the store for the running release.
        boot: This boot's boot_id.
    """

    def __init__(self, folder: Path, boot: str) -> None:
        self._folder = folder
        self._boot = boot
        left = read(folder)
        self.names: tuple[str, ...] = left.names if left is not None and left.boot == boot else ()

    def begin(self, name: str) -> None:
        """Put a patch on trial. It is on the disk when this returns.

        Raises:
            KernelError: It cannot be written: do not apply the patch then.
        """
        self._keep((*(each for each in self.names if each != name), name))

    def drop(self, name: str) -> None:
        """End the trial of a patch that was not applied after all."""
        self._keep(tuple(each for each in self.names if each != name))

    def end(self) -> None:
        """End the trial: from now on a crash has nothing to do with it."""
        self._keep(())

    def _keep(self, names: tuple[str, ...]) -> None:
        path = self._folder / MARKER
        with files.translate_errors("the crash memory", path):
            if names:
                data = {"boot": self._boot, "names": names}
                files.write(path, json.dumps(data).encode() + b"\n")
            else:
                files.remove(path)
        self.names = names
