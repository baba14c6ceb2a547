# SPDX-License-Identifier: MIT
"""The livepatch core of the running kernel."""

from __future__ import annotations

import contextlib
import errno
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Generic, NoReturn, Self, TypeVar

from pylivepatch.errors import BadDataError, PatchNotFoundError
from pylivepatch.kernel import BackendChoice, BackendName, Kernel, changes
from pylivepatch.kernel.changes import Options
from pylivepatch.kernel.names import module_options, patch_name
from pylivepatch.kernel.run import run
from pylivepatch.monitor import Monitor
from pylivepatch.patch import BasePatch, Patch
from pylivepatch.sequence import Step, one_step
from pylivepatch.state import PatchState

if TYPE_CHECKING:
    import os

    from pylivepatch._flow import Flow, OnProgress, OnTimeout
    from pylivepatch.kernel.changes import Loaded, Params
    from pylivepatch.module.info import PatchInfo
    from pylivepatch.monitor import EventSource
    from pylivepatch.preflight import Finding
    from pylivepatch.state import Blocker, Features, PatchStatus

__all__ = ["Core"]

_P = TypeVar("_P", bound=BasePatch)


class BaseCore(Mapping[str, _P], Generic[_P]):
    """What `Core` and its namesake for asyncio have in common: a mapping of names to patches, read each time.

    Iterating yields names; there is ``core["name"]``, ``"name" in core``, ``len(core)``,
    ``core.get("name")``, ``core.values()``, ``core.items()``.
    """

    def __init__(self, backend: BackendChoice = "auto", *, root: str | os.PathLike[str] = "/") -> None:
        self._kernel = Kernel(backend, root)

    @property
    def kernel(self) -> Kernel:
        """The connection to the kernel, for this package's own use."""
        return self._kernel

    def __repr__(self) -> str:
        return f"<Core {self.release} by {self._kernel.name}>"

    def __eq__(self, other: object) -> bool:
        # A mapping of other patches is not the same kernel, even if they have the same names.
        return self is other

    def __hash__(self) -> int:
        return id(self)

    def __reduce__(self) -> NoReturn:
        raise TypeError("a Core cannot be pickled or copied: it is a connection of this process; open another there")

    def __getitem__(self, name: str) -> _P:
        return self.patch(name)

    def __iter__(self) -> Iterator[str]:
        return iter([status.name for status in self.status()])

    def __len__(self) -> int:
        return len(self.status())

    def __contains__(self, patch: object) -> bool:
        if isinstance(patch, BasePatch):
            patch = patch.name
        with contextlib.suppress(PatchNotFoundError, BadDataError):
            return isinstance(patch, str) and bool(self.patch(patch))
        return False

    def patch(self, name: str) -> _P:
        """Find a patch.

        Args:
            name: Its name; "-" is the same as "_".

        Raises:
            PatchNotFoundError: There is none of that name.
            BadDataError: That cannot be a name.
        """
        return self._make(self._kernel.backend.patch(patch_name(name)).name)

    def patches(self) -> list[_P]:
        """List all patches: enabled, registered, and disabled ones still loaded."""
        return [self._make(status.name) for status in self.status()]

    def status(self) -> list[PatchStatus]:
        """Read all patches at one moment, everything about each."""
        return self._kernel.backend.patches()

    @property
    def backend(self) -> BackendName:
        """How the livepatch core is reached: "klpctl" or "sysfs"."""
        return self._kernel.backend.name

    @property
    def features(self) -> Features:
        """What this kernel and this backend can do beyond the basics, and why they cannot do the rest."""
        return self._kernel.backend.features()

    @property
    def release(self) -> str:
        """The kernel's release, as ``uname -r`` prints it.

        Source: /proc/sys/kernel/osrelease.
        """
        return self._kernel.release

    def close(self) -> None:
        """Close the connection; using it afterwards raises `ClosedError`.

        Patches stay as they are, except those that were enabled with *owned*: the
        kernel reverts them now. The second time does nothing.
        """
        self._kernel.close()

    def _make(self, name: str, loaded: Loaded | None = None) -> _P:
        raise NotImplementedError

    def _require_events(self) -> None:
        if self.backend != "klpctl":
            self.features.require("events")

    def _preflight(self, path: str | os.PathLike[str], params: Params | None) -> list[Finding]:
        from pylivepatch.preflight import candidate, checks

        module_options(params or {})
        return checks.find(candidate.read(path, params or {}, self._kernel))

    def _info(self, name: str) -> PatchInfo:
        from pylivepatch.module.info import loaded

        return loaded(self._kernel.backend.patch(patch_name(name)), self.status(), self._kernel.root, self.release)

    def _fixes(self, cve: str) -> list[PatchInfo]:
        from pylivepatch.module.info import cve_name, loaded

        wanted = cve_name(cve)
        patches = self.status()
        enabled = (
            loaded(status, patches, self._kernel.root, self.release)
            for status in patches
            if status.state is PatchState.ENABLED
        )
        return [info for info in enabled if wanted in (info.cves or ())]

    def _signal_blockers(self) -> list[Blocker]:
        from pylivepatch.kernel.refusal import refusal
        from pylivepatch.kernel.tasks import interrupt

        try:
            return interrupt(self._kernel.root / "proc", self._kernel.backend.blockers)
        except PermissionError as error:
            raise refusal(errno.EPERM, "signal", "blockers") from error

    def _apply(self, step: Step, on_progress: OnProgress | None) -> Flow[str]:
        sequence = one_step(self._kernel, step, on_progress)
        yield from sequence.flow()
        return sequence.reports[0].name

    def _unload_replaced(self) -> Flow[list[str]]:
        self.features.require("events")
        replaced = [status.name for status in self.status() if status.state is PatchState.REPLACED]
        for name in replaced:
            yield from changes.unload(self._kernel, name)
        return replaced


class Core(BaseCore[Patch]):
    """The livepatch core, through klpctl when it is there, through sysfs otherwise.

    Use it in a ``with`` statement. It is a mapping of names to patches:
    ``core["fix"]``, ``"fix" in core``, ``core.values()``.

    Threads may share a Core. Another process may not: after fork() the child's
    copy is closed, so open another there.

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

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def blockers(self) -> list[Blocker]:
        """List the tasks that the running transition waits for, each with its reason.

        Returns:
            The tasks; none without a transition.

        Raises:
            AccessError: The caller is not root.

        Source: as `Transition.blockers`.
        """
        return self._kernel.backend.blockers()

    def signal_blockers(self) -> list[Blocker]:
        """Make the tasks that the running transition waits for leave the functions they sleep in.

        Their processes are sent SIGSTOP, and SIGCONT a tenth of a second later. A task that sleeps
        interruptibly leaves its system call for that, which is restarted afterwards.
        What sleeps uninterruptibly, kernel threads, this process and processes that are stopped
        already are left alone. The livepatch core itself wakes sleepers every 15 s in a
        way that programs notice less; this is for those who cannot wait for that.

        Returns:
            The tasks whose processes were sent the signals; they may take a moment to switch.

        Raises:
            AccessError: The caller is not root. Some may have been sent the signals.

        Source: /proc/<pid>/stat, pidfd_send_signal(2) (5.1).
        """
        return self._signal_blockers()

    def load(
        self,
        path: str | os.PathLike[str],
        *,
        params: Params | None = None,
        timeout: float | None = 30.0,
        on_timeout: OnTimeout = "reverse",
        wait: bool = True,
        if_needed: bool = False,
        on_progress: OnProgress | None = None,
    ) -> Patch:
        """Load a patch module.

        One that registers with klpctl changes nothing yet. A standalone patch is enabled
        by being loaded: its transition is waited for, with a deadline, after which it is
        reversed and the module is unloaded. What interrupts the wait, as Ctrl-C
        does, has the same effect.

        Args:
            path: The module file: plain, or compressed as .xz, .zst or .gz.
            params: Module parameters.
            timeout: Seconds until the deadline of a standalone patch; None waits for ever.
            on_timeout: "reverse" reverses the transition at the deadline, and unloads
                the module; "report" leaves it going.
            wait: Whether to wait for the end of that transition.
            if_needed: Whether it is a success when this very build is loaded already.
            on_progress: Called with the progress of that transition, ten times a second.

        Returns:
            The patch.

        Raises:
            PatchNotFoundError: There is no such file. Nothing was loaded.
            ModuleFileError: It is not a live patch module for this kernel.
                Nothing was loaded.
            BadDataError: A parameter is unknown, or cannot be passed. Nothing was loaded.
            AlreadyError: This very build is loaded already. Nothing has changed.
            PatchStateError: Another module of that name is loaded. Nothing has changed.
            TransitionBusyError: Another patch is in transition. Nothing was loaded.
            PatchRejectedError: The kernel refused it: its signature, its symbols,
                its callbacks. The kernel is as it was before.
            SymbolError: As above, because of a function's name.
            UnsupportedError: It registers with klpctl, which is not used.
            AccessError: The caller is not root, or the kernel takes no such modules.
                Nothing was loaded.
            TransitionTimeoutError: The deadline passed. The module is unloaded
                ("reverse"), or the patch still being enabled ("report").
            TransitionReversedError: Somebody else reversed it. The module is unloaded.

        Source: finit_module(2), through libkmod.
        """
        options = Options(timeout, on_timeout, wait, on_progress)
        loaded = run(self._kernel, changes.load(self._kernel, path, params, options, if_needed=if_needed))
        return self._make(loaded.name, loaded)

    def apply(
        self,
        path: str | os.PathLike[str],
        *,
        params: Params | None = None,
        timeout: float | None = 30.0,
        on_timeout: OnTimeout = "reverse",
        check: str | tuple[str, ...] | None = None,
        check_timeout: float | None = 30.0,
        on_progress: OnProgress | None = None,
    ) -> Patch:
        """Have the patch of a module file enabled, whatever that takes: load, enable, wait, check, confirm.

        A patch that is enabled already is left as it is; it is checked, too. When
        something fails, or is interrupted, all that was changed is undone. With klpctl and a
        registered patch the kernel does that itself if the caller is killed before it is done.

        Args:
            path: The module file: plain, or compressed as .xz, .zst or .gz.
            params: Module parameters, if it is loaded.
            timeout: Seconds until the deadline of the transition; None waits for ever.
            on_timeout: "reverse" reverses the transition at the deadline, and undoes all;
                "report" goes on waiting.
            check: A health check when the patch is enabled, a shell's command line or a program
                with its arguments.
            check_timeout: Seconds for the check; None waits for ever.
            on_progress: Called with the progress of the transition, ten times a second.

        Returns:
            The patch, enabled.

        Raises:
            CheckError: The check failed. What was changed is undone.
            LivepatchError: As `load` and `Patch.enable`. What was changed is undone; what could not
                be is in the exception's notes.
        """
        step = Step(Path(path), None, "enable", params or {}, timeout, on_timeout, check, check_timeout)
        return self._make(run(self._kernel, self._apply(step, on_progress)))

    def preflight(self, path: str | os.PathLike[str], *, params: Params | None = None) -> list[Finding]:
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
        return self._preflight(path, params)

    def info(self, name: str) -> PatchInfo:
        """Gather everything that is known about a loaded patch.

        Its file is found if it is installed: with the modules of this kernel, or by
        ``pylivepatch install``. For a file alone there is `PatchInfo.open`.

        Args:
            name: The patch; "-" is the same as "_".

        Raises:
            PatchNotFoundError: There is none of that name.
            BadDataError: That cannot be a name.
        """
        return self._info(name)

    def fixes(self, cve: str) -> list[PatchInfo]:
        """Find the enabled patches that fix a CVE, by their own account.

        Args:
            cve: Its name, as "CVE-2026-12345".

        Returns:
            The patches; none when no enabled patch declares that it fixes it.

        Raises:
            BadDataError: That is not the name of a CVE.

        Source: modinfo ``cve`` of the file, /sys/module/<patch>/parameters/cve.
        """
        return self._fixes(cve)

    def unload_replaced(self) -> list[str]:
        """Unload the patches that another patch has replaced by atomic replace.

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
        return run(self._kernel, self._unload_replaced())

    def monitor(self, source: EventSource = "netlink") -> Monitor:
        """Listen to events of all patches from now on.

        Args:
            source: "netlink", from klpctl itself; "udev", after udevd.

        Raises:
            UnsupportedError: klpctl is not used, or pyudev is not installed.
        """
        self._require_events()
        return Monitor(source)

    def _make(self, name: str, loaded: Loaded | None = None) -> Patch:
        return Patch(name, self._kernel, loaded and loaded.reload)
