# SPDX-License-Identifier: MIT
"""Loading and removing modules, through libkmod."""

from __future__ import annotations

import contextlib
import os
import time
from typing import TYPE_CHECKING

from pylivepatch._shim import lib
from pylivepatch.errors import PatchRejectedError, PatchStateError
from pylivepatch.kernel.refusal import refusal

if TYPE_CHECKING:
    from pathlib import Path

LAST_REFERENCE = 2.0
_PAUSE = 0.002


def insert(path: str, name: str, options: str, busy: str | None) -> None:
    """Load a module file; its init function has run when this returns.

    Args:
        path: The file, plain or compressed.
        name: The module's name, for messages.
        options: Its parameters.
        busy: Name of the patch in transition, for messages.

    Raises:
        KernelError: The kernel refused it; the kernel is as it was before.
    """
    result = lib.plp_module_insert(os.fsencode(path), options.encode())
    if result < 0:
        raise refusal(-result, "load", name, busy=busy, filename=path)


def probe(name: str) -> bool:
    """Load an installed module, quietly: whether it is loaded now."""
    return lib.plp_module_probe(name.encode()) >= 0


def remove(name: str, sysfs: Path, patience: float = LAST_REFERENCE) -> None:
    """Unload a module when the kernel has let go of it.

    Args:
        name: The module.
        sysfs: /sys.
        patience: Seconds that the kernel has to let go of it.

    Raises:
        PatchRejectedError: It is still in use then; by whom is said.
        AccessError: The caller is not root.
        PatchNotFoundError: No such module is loaded.
    """
    module = sysfs / "module" / name
    end = time.monotonic() + patience
    while _references(module) > 0 and time.monotonic() < end:
        time.sleep(_PAUSE)
    result = lib.plp_module_remove(name.encode())
    if result == 0:
        return
    error = refusal(-result, "unload", name, filename=str(module))
    if isinstance(error, PatchRejectedError):
        raise PatchStateError(
            f"cannot unload {name}: its module has {_references(module)} references{_held_by(module)}",
            errno=-result,
            filename=str(module),
            after="it stays loaded",
            remedy="unload what uses it first",
        )
    raise error


def _references(module: Path) -> int:
    with contextlib.suppress(OSError, ValueError):
        return int((module / "refcnt").read_text())
    return 0


def _held_by(module: Path) -> str:
    with contextlib.suppress(OSError):
        holders = sorted(entry.name for entry in (module / "holders").iterdir())
        if holders:
            return ", held by " + ", ".join(holders)
    return ""
