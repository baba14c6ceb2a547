# SPDX-License-Identifier: MIT
"""The livepatch core of the running kernel."""

from __future__ import annotations

import errno
import os
import platform
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Self

from pylivepatch import _modules
from pylivepatch._klpctl import KlpctlBackend
from pylivepatch._kmsg import explained
from pylivepatch._names import module_options, patch_name
from pylivepatch._netlink import RefusedError
from pylivepatch._refusal import refusal
from pylivepatch._sysfs import SysfsBackend
from pylivepatch.errors import BadDataError, PatchStateError, UnsupportedError
from pylivepatch.module import ModuleFile
from pylivepatch.monitor import Monitor
from pylivepatch.patch import Patch

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pylivepatch._backend import Backend, BackendName
    from pylivepatch.event import EventSource
    from pylivepatch.features import Features
    from pylivepatch.state import PatchStatus

__all__ = ["Core"]

_KLPCTL = "klpctl"


class Core:
    """The livepatch core, through klpctl when it is there, through sysfs otherwise.

    Use it in a ``with`` statement. Iterating over it yields the patches;
    ``core["name"]`` is one of them.

    Args:
        backend: "auto" takes klpctl, loading it when it is installed and the
            caller may, and sysfs otherwise; "klpctl" and "sysfs" insist.
        root: Where /sys and /proc are found. Another root than "/" is a captured
            tree: it is read by the backend "sysfs".

    Raises:
        UnsupportedError: The kernel has no livepatch core; klpctl was asked for
            and is not there; or klpctl is another version than this package.
        AccessError: klpctl may not be used by the caller.
        BadDataError: There is no such backend.

    Source: /sys/kernel/livepatch (4.0); klpctl, KLPCTL_CMD_FEATURES_GET.
    """

    def __init__(
        self,
        backend: Literal["auto", "klpctl", "sysfs"] = "auto",
        *,
        root: str | os.PathLike[str] = "/",
    ) -> None:
        if backend not in ("auto", "klpctl", "sysfs"):
            raise BadDataError(f"no backend {backend!r}", remedy="take auto, klpctl or sysfs")
        self._root = Path(root)
        sysfs = SysfsBackend(self._root)
        self._sysfs = sysfs.sysfs
        captured = self._root.resolve() != Path("/")
        if captured and backend == "klpctl":
            raise BadDataError("a captured tree has no klpctl", remedy="take the backend sysfs")
        self._backend: Backend = sysfs
        if backend != "sysfs" and not captured:
            self._backend = _klpctl_backend(sysfs) or sysfs
        if backend == "klpctl" and self._backend is sysfs:
            raise UnsupportedError(
                "the module klpctl is not loaded, and cannot be loaded",
                feature="klpctl",
                remedy="install klpctl and load it as root, or use the backend sysfs",
            )

    def __repr__(self) -> str:
        return f"<Core {self.release} by {self.backend}>"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the kernel. Patches stay as they are."""
        self._backend.close()

    @property
    def backend(self) -> BackendName:
        """How the livepatch core is reached: "klpctl" or "sysfs"."""
        return self._backend.name

    @property
    def features(self) -> Features:
        """What is there, and why the rest is not."""
        return self._backend.features()

    @property
    def release(self) -> str:
        """The kernel's release, as ``uname -r`` prints it.

        Source: /proc/sys/kernel/osrelease.
        """
        return (self._root / "proc/sys/kernel/osrelease").read_text().strip()

    def patches(self) -> list[Patch]:
        """List all patches: enabled, registered, and disabled ones still loaded."""
        return [self._patch(status.name) for status in self._backend.patches()]

    def status(self) -> list[PatchStatus]:
        """Read all patches at one moment, everything about each."""
        return self._backend.patches()

    def __iter__(self) -> Iterator[Patch]:
        return iter(self.patches())

    def patch(self, name: str) -> Patch:
        """Find a patch.

        Args:
            name: Its name; "-" is the same as "_".

        Raises:
            PatchNotFoundError: There is none of that name.
            BadDataError: That cannot be a name.
        """
        return self._patch(self._backend.patch(patch_name(name)).name)

    def __getitem__(self, name: str) -> Patch:
        return self.patch(name)

    def load(self, path: str | os.PathLike[str], /, **params: str | int | bool) -> Patch:
        """Load a patch module.

        One that registers with klpctl changes nothing yet; any other starts to be
        enabled by being loaded: wait for its `Patch.transition`.

        Args:
            path: The module file: plain, or compressed as .xz, .zst or .gz.
            params: Module parameters.

        Returns:
            The patch.

        Raises:
            PatchNotFoundError: There is no such file. Nothing was loaded.
            ModuleFileError: It is not a live patch module for this kernel.
                Nothing was loaded.
            BadDataError: A parameter cannot be passed. Nothing was loaded.
            PatchStateError: A module of that name is loaded already.
            TransitionBusyError: Another patch is in transition. Nothing was loaded.
            PatchRejectedError: The kernel refused it: its signature, its symbols,
                its callbacks. The kernel is as it was before.
            SymbolError: As above, because of a function's name.
            UnsupportedError: It registers with klpctl, which is not used.
            AccessError: The caller is not root. Nothing was loaded.

        Source: finit_module(2), through libkmod.
        """
        options = module_options(params)
        file = ModuleFile.open(path)
        name = patch_name(file.name)
        file.check(self.release, platform.machine())
        if file.payload and self.backend != "klpctl":
            raise UnsupportedError(
                f"cannot load {name}: it registers with klpctl, which is not used",
                feature="registered",
                remedy="install klpctl and load it as root",
            )
        where = os.fspath(file.path)
        self._insert(where, name, options)
        return Patch(name, self._backend, self._sysfs, lambda: self._insert(where, name, options))

    def monitor(self, source: EventSource = "netlink") -> Monitor:
        """Listen to events of all patches from now on.

        Args:
            source: "netlink", from klpctl itself; "udev", after udevd.

        Raises:
            UnsupportedError: klpctl is not used, or pyudev is not installed.
        """
        if self.backend != "klpctl":
            self.features.require("events")
        return Monitor(source)

    def _patch(self, name: str) -> Patch:
        return Patch(name, self._backend, self._sysfs)

    def _insert(self, path: str, name: str, options: str) -> None:
        if (self._sysfs / "module" / name).exists():
            raise PatchStateError(
                f"cannot load {name}: a module of that name is loaded already",
                errno=errno.EEXIST,
                filename=path,
                after="nothing has changed",
                remedy="enable it, or unload it first",
            )
        running = next((s.name for s in self._backend.patches() if s.progress), None)
        with explained(name):
            _modules.insert(path, name, options, running)


def _klpctl_backend(sysfs: SysfsBackend) -> KlpctlBackend | None:
    for attempt in ("as it is", "after modprobe"):
        try:
            return KlpctlBackend(sysfs)
        except RefusedError as error:
            if error.number != errno.ENOENT:
                raise refusal(error.number, "read", _KLPCTL, extack=error.extack) from None
        if attempt == "as it is" and not (os.geteuid() == 0 and _modules.probe(_KLPCTL)):
            return None
    return None
