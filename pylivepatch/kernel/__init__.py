# SPDX-License-Identifier: MIT
"""How the kernel is reached. Here: the connection that a `Core` has, and what its backends offer.

Private: what users call is in `pylivepatch` itself.

* `klpctl`, `sysfs`: the two backends. `netlink`, `wire`, `events`: the socket, messages and events of klpctl.
* `changes`: loads, enables, confirms, reverts and unloads patches, as flows.
* `modules`, `names`: loading and removing modules; how names and parameters are spelled.
* `refusal`, `log`: error numbers as exceptions, and the kernel log's words for them.
* `run`: performs the effects of a flow, one after the other.
* `journal`: records each change, for logging and for the journal.
* `tasks`: makes tasks leave the functions that they sleep in.
* `symbols`, `probes`: what the running kernel's symbol table and memory, kprobes and ftrace tell.
"""

from __future__ import annotations

import errno
import os
import time
import weakref
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NoReturn, Protocol, Self

from pylivepatch.errors import BadDataError, ClosedError, PatchNotFoundError, UnsupportedError
from pylivepatch.state import PatchStatus

if TYPE_CHECKING:
    from collections.abc import Callable

    from pylivepatch.kernel.klpctl import KlpctlBackend
    from pylivepatch.kernel.sysfs import SysfsBackend
    from pylivepatch.state import Blocker, Features, Task

__all__ = ["Backend", "BackendChoice", "BackendName", "Kernel", "PollingWatch", "Watch", "wait_by"]

BackendName = Literal["klpctl", "sysfs"]
BackendChoice = Literal["auto", "klpctl", "sysfs"]

_FIRST_PAUSE = 0.005
_LONGEST_PAUSE = 0.1


class Watch(Protocol):
    """Wakes when something may have changed."""

    def __enter__(self) -> Self: ...

    def __exit__(self, *exc: object) -> None: ...

    def wait(self, timeout: float) -> None:
        """Wait for a change, at most `timeout` seconds; may wake for nothing."""


class Backend(Protocol):
    """One way to the livepatch core. Names are spelled as the kernel spells them."""

    @property
    def name(self) -> BackendName:
        """The backend's name."""

    def features(self) -> Features:
        """Say what is there and what is missing."""

    def patches(self) -> list[PatchStatus]:
        """Read all patches."""

    def patch(self, name: str) -> PatchStatus:
        """Read one patch; `PatchNotFoundError` when there is none."""

    def enable(
        self, name: str, confirm_within: float | None = None, owned: bool = False, deadline: float | None = None
    ) -> None:
        """Start enabling; reverse the transition of a patch that is being disabled.

        Args:
            name: The patch.
            confirm_within: Seconds in which `confirm` must come, from now; infinite
                with *owned*; None: it need not come.
            owned: The kernel reverts the patch when this backend is closed before.
            deadline: Seconds in which its transition must end, from now, or the kernel
                reverses it; where only the kernel core is there, nobody does.
        """

    def confirm(self, name: str) -> None:
        """Let an enabled patch stay."""

    def revert(self, name: str) -> None:
        """Start disabling; reverse the transition of a patch that is being enabled."""

    def force(self, name: str) -> None:
        """End the transition without waiting for its tasks."""

    def tasks(self) -> list[Task]:
        """Read the tasks of the running transition; none without one."""

    def blockers(self) -> list[Blocker]:
        """Read the pending tasks of the running transition, with reasons and stacks."""

    def task_count(self) -> int:
        """Count all tasks of the system."""

    def watch(self) -> Watch:
        """Watch for changes, from now on."""

    def wait(self, name: str, timeout: float | None) -> PatchStatus | None:
        """Wait until the patch is not in transition; None when time is over first.

        Returns:
            The patch then; one that does not exist is disabled.
        """

    def close(self) -> None:
        """Close the connection."""


class Kernel:
    """A connection to the livepatch core, of one process, until it is closed.

    Args:
        choice: "auto" takes klpctl where it is, or can be loaded; "klpctl" and "sysfs" insist.
        root: Where /sys and /proc are found; another than "/" is a captured tree.

    Raises:
        UnsupportedError: The kernel has no livepatch core; klpctl was asked for
            and is not there; or klpctl is another version than this package.
        AccessError: klpctl may not be used by the caller.
        BadDataError: There is no such backend.
    """

    def __init__(self, choice: BackendChoice, root: str | os.PathLike[str]) -> None:
        from pylivepatch.kernel.sysfs import SysfsBackend

        if choice not in ("auto", "klpctl", "sysfs"):
            raise BadDataError(f"unknown backend {choice!r}", remedy="give auto, klpctl or sysfs")
        self.root: Path = Path(root).absolute()
        self.sysfs: Path = self.root / "sys"
        sysfs = SysfsBackend(self.root)
        captured = self.root.resolve() != Path("/")
        if captured and choice == "klpctl":
            raise BadDataError("a captured tree has no klpctl", remedy="use the backend sysfs")
        self._backend: Backend = sysfs if captured or choice == "sysfs" else _live_backend(choice, sysfs)
        self._pid = close_after_fork(self)
        self._closed = False

    def __reduce__(self) -> NoReturn:
        raise TypeError("what is connected to the kernel cannot be pickled or copied: it is of this process")

    @property
    def backend(self) -> Backend:
        """The way to the kernel.

        Raises:
            ClosedError: It was closed, or another process opened it.
        """
        if self._closed:
            raise closed("Core", self._pid)
        return self._backend

    @property
    def name(self) -> BackendName:
        """The backend's name, of a closed connection too."""
        return self._backend.name

    @property
    def release(self) -> str:
        """The kernel's release, as ``uname -r`` prints it."""
        return (self.root / "proc/sys/kernel/osrelease").read_text().strip()

    def status(self, name: str) -> PatchStatus:
        """Read a patch; one that does not exist reads as disabled."""
        try:
            return self.backend.patch(name)
        except PatchNotFoundError:
            return PatchStatus.absent(name)

    def close(self) -> None:
        """Close it; what is used afterwards raises ClosedError."""
        if not self._closed:
            self._closed = True
            self._backend.close()


class _Closable(Protocol):
    def close(self) -> None: ...


_OPEN: weakref.WeakSet[_Closable] = weakref.WeakSet()


def close_after_fork(opened: _Closable) -> int:
    """Have something closed in forked children; return the process that has opened it.

    Parent and child would get each other's answers, and a patch that the parent owns
    would not be reverted at its end for as long as the child holds the device.
    """
    _OPEN.add(opened)
    return os.getpid()


def closed(what: str, pid: int) -> ClosedError:
    """Make the exception for the use of something that is closed, and was opened by a process."""
    why = "is closed" if pid == os.getpid() else "was opened by the process that forked this one"
    return ClosedError(f"the {what} {why}", after="nothing has changed", remedy=f"open another {what}")


def _forked() -> None:
    for opened in list(_OPEN):
        opened.close()


os.register_at_fork(after_in_child=_forked)


def require_shim() -> None:
    """Insist on the compiled part of this package, which reading files does not need.

    Raises:
        UnsupportedError: It is missing.
    """
    try:
        from pylivepatch import _shim  # noqa: F401
    except ImportError as error:
        raise UnsupportedError(
            f"the compiled part of pylivepatch is missing: {error}",
            feature="shim",
            remedy="install the package for this Python; in a source tree: pip install -e .",
        ) from None


def _live_backend(choice: BackendChoice, sysfs: SysfsBackend) -> Backend:
    from pylivepatch.kernel.refusal import no_klpctl

    try:
        require_shim()
    except UnsupportedError:
        if choice == "klpctl":
            raise
        return sysfs
    backend = _klpctl_backend(sysfs)
    if backend is None and choice == "klpctl":
        raise no_klpctl("klpctl cannot be used", "klpctl", sysfs.sysfs)
    return backend or sysfs


def _klpctl_backend(sysfs: SysfsBackend) -> KlpctlBackend | None:
    from pylivepatch.kernel import modules
    from pylivepatch.kernel.klpctl import KlpctlBackend
    from pylivepatch.kernel.netlink import RefusedError
    from pylivepatch.kernel.refusal import refusal

    for attempt in ("as it is", "after modprobe"):
        try:
            return KlpctlBackend(sysfs)
        except RefusedError as error:
            if error.number != errno.ENOENT:
                raise refusal(error.number, "read", "klpctl", extack=error.extack) from None
        if attempt == "as it is" and not (os.geteuid() == 0 and modules.probe("klpctl")):
            return None
    return None


class PollingWatch:
    """Wakes after pauses that double, from 5 to 100 ms."""

    def __init__(self) -> None:
        self._pause = _FIRST_PAUSE

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        """Nothing is held."""

    def wait(self, timeout: float) -> None:
        """Sleep for the next pause, at most `timeout` seconds."""
        time.sleep(min(self._pause, max(timeout, 0.0)))
        self._pause = min(2 * self._pause, _LONGEST_PAUSE)


def wait_by(watch: Watch, read: Callable[[], PatchStatus], timeout: float | None) -> PatchStatus | None:
    """Wait on a watch until a patch is not in transition.

    Args:
        watch: What wakes.
        read: Reads the patch, cheaply.
        timeout: Seconds, or None for ever.

    Returns:
        The patch, or None when time is over first.
    """
    end = None if timeout is None else time.monotonic() + timeout
    with watch:
        while True:
            status = read()
            if not status.state.in_transition:
                return status
            left = _LONGEST_PAUSE if end is None else end - time.monotonic()
            if left <= 0:
                return None
            watch.wait(min(left, _LONGEST_PAUSE))
