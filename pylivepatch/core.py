# SPDX-License-Identifier: MIT
"""The livepatch core of the running kernel."""

from __future__ import annotations

import errno
import os
import platform
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Self

from pylivepatch.elf.file import Image
from pylivepatch.errors import BadDataError, PatchStateError
from pylivepatch.kernel import modules
from pylivepatch.kernel.klpctl import KlpctlBackend
from pylivepatch.kernel.log import explained
from pylivepatch.kernel.names import module_options, patch_name
from pylivepatch.kernel.netlink import RefusedError
from pylivepatch.kernel.refusal import no_klpctl, refusal
from pylivepatch.kernel.sysfs import SysfsBackend, enabled_order
from pylivepatch.module.info import PatchInfo, cve_name, cve_parameter, loaded, module_file
from pylivepatch.monitor import Monitor
from pylivepatch.patch import Patch
from pylivepatch.state import PatchState

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from pylivepatch.event import EventSource
    from pylivepatch.kernel import Backend, BackendName
    from pylivepatch.preflight import Finding
    from pylivepatch.preflight.candidate import Candidate
    from pylivepatch.state import Blocker, Features, PatchStatus

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
            raise no_klpctl("klpctl cannot be used", "klpctl", self._sysfs)

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

    def blockers(self) -> list[Blocker]:
        """List the tasks that the running transition waits for, each with its reason.

        Returns:
            The tasks; none without a transition.

        Raises:
            AccessError: The caller is not root.

        Source: as `Transition.blockers`.
        """
        return self._backend.blockers()

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
            AccessError: The caller is not root, or the kernel takes no such modules.
                Nothing was loaded.

        Source: finit_module(2), through libkmod.
        """
        from pylivepatch.preflight import checks

        options = module_options(params)
        candidate = self._candidate(path, params)
        name = patch_name(candidate.name)
        checks.refuse(candidate)
        where = os.fspath(candidate.image.path)
        self._insert(where, name, options)
        return Patch(name, self._backend, self._sysfs, lambda: self._insert(where, name, options))

    def preflight(self, path: str | os.PathLike[str], /, **params: str | int | bool) -> list[Finding]:
        """Find what stands in the way of a patch, or is worth knowing. Loads nothing.

        It looks at the file, at the state the kernel is in, and at the kernel's symbol
        table. What it may not see, or cannot, is a finding, too. `load` refuses
        what is fatal, except for symbols and their versions: the kernel compares
        those itself before it changes anything.

        Args:
            path: The module file: plain, or compressed as .xz, .zst or .gz.
            params: Module parameters that it would be loaded with.

        Returns:
            The findings, fatal ones first.

        Raises:
            PatchNotFoundError: There is no such file.
            ModuleFileError: It is not a kernel module, or damaged.
            BadDataError: A parameter cannot be passed.

        Source: /proc/kallsyms, /proc/kcore, /sys/kernel/security/lockdown,
        /sys/module, /sys/kernel/debug/kprobes/list, enabled_functions of tracefs.
        """
        from pylivepatch.preflight import checks

        module_options(params)
        return checks.find(self._candidate(path, params))

    def _candidate(self, path: str | os.PathLike[str], params: Mapping[str, str | int | bool]) -> Candidate:
        from pylivepatch.preflight.candidate import Candidate

        return Candidate(
            image=Image.read(Path(path)),
            params=params,
            root=self._root,
            release=self.release,
            machine=platform.machine(),
            backend=self.backend,
            features=self.features,
            patches=self.status(),
        )

    def info(self, name: str) -> PatchInfo:
        """Say everything that is known about a loaded patch.

        Its file is found if it is installed: with the modules of this kernel, or by
        ``pylivepatch install``. For a file alone there is `PatchInfo.open`.

        Args:
            name: The patch; "-" is the same as "_".

        Raises:
            PatchNotFoundError: There is none of that name.
            BadDataError: That cannot be a name.
        """
        return self._info(self._backend.patch(patch_name(name)), self.status())

    def fixes(self, cve: str) -> list[PatchInfo]:
        """Find the enabled patches that fix a CVE, as they themselves say.

        Args:
            cve: Its name, as "CVE-2026-12345".

        Returns:
            The patches; none when no enabled patch says that it fixes it.

        Raises:
            BadDataError: That is not the name of a CVE.

        Source: modinfo ``cve`` of the file, /sys/module/<patch>/parameters/cve.
        """
        wanted = cve_name(cve)
        patches = self.status()
        enabled = (self._info(status, patches) for status in patches if status.state is PatchState.ENABLED)
        return [info for info in enabled if wanted in (info.cves or ())]

    def unload_replaced(self) -> list[str]:
        """Unload the patches that another patch took the place of by atomic replace.

        The kernel leaves their modules loaded. A registered one could be enabled
        again; it is unloaded, too.

        Returns:
            Names of the patches that were unloaded.

        Raises:
            UnsupportedError: klpctl is not used: nothing else tells a replaced patch
                from one that was disabled. Nothing has changed.
            PatchStateError: The module of one is in use. Those before it are unloaded.
            AccessError: The caller is not root. Nothing has changed.

        Source: delete_module(2), never forced.
        """
        self.features.require("events")
        replaced = [patch for patch in self.patches() if patch.state is PatchState.REPLACED]
        for patch in replaced:
            patch.unload()
        return [patch.name for patch in replaced]

    def _info(self, status: PatchStatus, patches: list[PatchStatus]) -> PatchInfo:
        return loaded(
            status,
            patches,
            enabled_order(self._sysfs),
            module_file(self._root, self.release, status.name),
            cve_parameter(self._root, status.name),
        )

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
            modules.insert(path, name, options, running)


def _klpctl_backend(sysfs: SysfsBackend) -> KlpctlBackend | None:
    for attempt in ("as it is", "after modprobe"):
        try:
            return KlpctlBackend(sysfs)
        except RefusedError as error:
            if error.number != errno.ENOENT:
                raise refusal(error.number, "read", _KLPCTL, extack=error.extack) from None
        if attempt == "as it is" and not (os.geteuid() == 0 and modules.probe(_KLPCTL)):
            return None
    return None
