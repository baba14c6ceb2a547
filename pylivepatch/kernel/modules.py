# SPDX-License-Identifier: MIT
"""Loading and removing modules, through libkmod."""

from __future__ import annotations

import contextlib
import errno
from typing import TYPE_CHECKING

from pylivepatch.errors import KernelError, PatchRejectedError, PatchStateError
from pylivepatch.kernel import require_shim
from pylivepatch.kernel.log import explained
from pylivepatch.kernel.refusal import refusal

if TYPE_CHECKING:
    from pathlib import Path

    from pylivepatch._shim import Lib
    from pylivepatch.kernel import Kernel


def insert(path: str, opened: int, name: str, options: str, kernel: Kernel) -> None:
    """Load a module file; its init function has run when this returns.

    Args:
        path: The file, plain or compressed, for messages.
        opened: A descriptor of it.
        name: The module's name.
        options: Its parameters.
        kernel: Where it is loaded.

    Raises:
        KernelError: The kernel refused it; the kernel is as it was before.
    """
    if (kernel.sysfs / "module" / name).exists():
        raise PatchStateError(
            f"cannot load {name}: a module of that name is loaded already",
            errno=errno.EEXIST,
            filename=path,
            after="nothing has changed",
            remedy="enable it, or unload it first",
        )
    lib = _lib()
    running = _in_transition(kernel)
    with explained(name):
        result = lib.plp_module_insert(f"/proc/self/fd/{opened}".encode(), options.encode())
        if result < 0:
            raise refusal(-result, "load", name, busy=running or _in_transition(kernel), filename=path)
    if not (kernel.sysfs / "module" / name).exists():
        raise KernelError(
            f"{path} is not {name} any more: it was changed while it was loaded",
            errno=errno.ESTALE,
            filename=path,
            after="another module than was checked is loaded",
            remedy="find out which by lsmod, and who can write the file",
        )


def _in_transition(kernel: Kernel) -> str | None:
    return next((status.name for status in kernel.backend.patches() if status.progress), None)


def probe(name: str) -> bool:
    """Load an installed module, quietly: whether it is loaded now."""
    lib = _lib()
    return lib.plp_module_probe(name.encode()) >= 0


def remove(name: str, sysfs: Path) -> None:
    """Unload a module, if the kernel has released it.

    Args:
        name: The module.
        sysfs: /sys.

    Raises:
        PatchStateError: It is still in use, by whom is said; with EAGAIN when it
            has references, which may be released soon.
        AccessError: The caller is not root.
        PatchNotFoundError: No such module is loaded.
    """
    lib = _lib()
    result = lib.plp_module_remove(name.encode())
    if result == 0:
        return
    module = sysfs / "module" / name
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


def _lib() -> Lib:
    require_shim()
    from pylivepatch._shim import lib

    return lib
