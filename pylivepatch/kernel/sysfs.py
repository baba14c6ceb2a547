# SPDX-License-Identifier: MIT
"""The livepatch core through sysfs and /proc alone, as any kernel offers it.

Source: /sys/kernel/livepatch (``Documentation/ABI/testing/sysfs-kernel-livepatch``),
/proc/<pid>/task/<tid>/patch_state (4.12).
"""

from __future__ import annotations

import contextlib
import errno
import os
from pathlib import Path
from typing import TYPE_CHECKING

from pylivepatch.errors import PatchNotFoundError, UnsupportedError
from pylivepatch.kernel import BackendName, PollingWatch, Watch, wait_by
from pylivepatch.kernel.refusal import refusal
from pylivepatch.state import (
    Blocker,
    Features,
    Func,
    Missing,
    Object,
    PatchState,
    PatchStatus,
    Progress,
    Reason,
    Target,
    Task,
    feature_names,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

_STATES = {
    (True, True): PatchState.ENABLING,
    (True, False): PatchState.ENABLED,
    (False, True): PatchState.DISABLING,
    (False, False): PatchState.DISABLED,
}
_VALUES = {Target.UNPATCHED: "0", Target.PATCHED: "1"}
_ATTRIBUTES = frozenset({"enabled", "transition", "force", "replace", "stack_order", "signal"})
_NO_KLPCTL = Missing("klpctl is not used", "install klpctl and load it as root")


class SysfsBackend:
    """Reads and writes below `root`."""

    def __init__(self, root: Path) -> None:
        self.sysfs: Path = root / "sys"
        self._proc = root / "proc"
        self._patches = self.sysfs / "kernel/livepatch"
        if not self._patches.is_dir():
            raise UnsupportedError(
                "this kernel has no livepatch core: /sys/kernel/livepatch is missing",
                feature="livepatch",
                since="4.0",
                remedy="run a kernel built with CONFIG_LIVEPATCH",
            )

    @property
    def name(self) -> BackendName:
        """The backend's name."""
        return "sysfs"

    def features(self) -> Features:
        """Say what is there: little, without klpctl."""
        progress = os.access(self._proc / "1/task/1/patch_state", os.R_OK)
        missing = dict.fromkeys(feature_names(), _NO_KLPCTL)
        replace = any((path / "replace").exists() for path in self._directories())
        del missing["progress"], missing["replace"]
        if not progress:
            missing["progress"] = Missing("only root may read patch_state", "run it as root")
        if not replace:
            missing["replace"] = Missing(
                "sysfs does not tell it, or there is no patch to tell it of",
                _NO_KLPCTL.remedy,
                "6.11",
            )
        return Features(progress=progress, replace=replace, missing=missing)

    def patches(self) -> list[PatchStatus]:
        """Read all patches, and the live patch modules that are not enabled."""
        found = []
        for path in self._directories():
            with contextlib.suppress(FileNotFoundError):
                found.append(self._read(path))
        seen = {status.name for status in found}
        return found + [self._idle(name) for name in self._modules() if name not in seen]

    def patch(self, name: str) -> PatchStatus:
        """Read one patch."""
        with contextlib.suppress(FileNotFoundError):
            return self._read(self._patches / name)
        if self._is_livepatch(self.sysfs / "module" / name):
            return self._idle(name)
        raise PatchNotFoundError(
            f"there is no patch {name}",
            after="nothing has changed",
            remedy="list the patches, or load it first",
        )

    def enable(
        self,
        name: str,
        confirm_within: float | None = None,
        owned: bool = False,  # noqa: ARG002
        deadline: float | None = None,  # noqa: ARG002
    ) -> None:
        """Reverse the transition of a patch that is being disabled: all that sysfs can enable."""
        status = self.patch(name)
        if confirm_within is not None:
            raise _unconfirmed("enable", name)
        if status.state in (PatchState.ENABLED, PatchState.ENABLING):
            raise refusal(errno.EALREADY, "enable", name)
        if status.state is not PatchState.DISABLING:
            if status.registered:
                raise UnsupportedError(
                    f"cannot enable {name}: it is registered with klpctl, which is not used",
                    feature="registered",
                    remedy="use the backend klpctl",
                )
            raise UnsupportedError(
                f"cannot enable {name}: the kernel enables such a patch only when it is loaded",
                feature="enable",
                remedy="unload its module and load it again",
            )
        self._write(name, "enabled", "1", "enable")

    def confirm(self, name: str) -> None:
        """Refuse: without klpctl the kernel reverts no patch by itself."""
        raise _unconfirmed("confirm", self.patch(name).name)

    def revert(self, name: str) -> None:
        """Start disabling; reverse the transition of a patch that is being enabled."""
        if self.patch(name).state not in (PatchState.ENABLED, PatchState.ENABLING):
            raise refusal(errno.EALREADY, "revert", name)
        self._write(name, "enabled", "0", "revert")

    def force(self, name: str) -> None:
        """End the transition without waiting for its tasks."""
        if not self.patch(name).state.in_transition:
            raise refusal(errno.EALREADY, "force", name)
        self._write(name, "force", "1", "force")

    def tasks(self) -> list[Task]:
        """Read the tasks of the running transition; idle tasks are not in /proc."""
        moving = self._moving()
        if moving is None:
            return []
        tasks = []
        for thread, pending in self._switching(moving[1]):
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):
                pid, tid = int(thread.parent.parent.name), int(thread.name)
                tasks.append(Task(pid, tid, _text(thread / "comm"), pending))
        return tasks

    def blockers(self) -> list[Blocker]:
        """Read the pending tasks; the reason as far as state and stack tell it."""
        moving = self._moving()
        if moving is None:
            return []
        path, target = moving
        funcs = {func.name for part in self._objects(path) for func in part.funcs}
        found = []
        for thread, pending in self._switching(target):
            if not pending:
                continue
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):
                pid, tid = int(thread.parent.parent.name), int(thread.name)
                running = _text(thread / "stat").rpartition(")")[2].split()[0] == "R"
                # "[<0>] name+0x1b/0x40 [module]"; unreadable, or empty, when it runs.
                lines: list[str] = []
                with contextlib.suppress(PermissionError):
                    lines = [] if running else _text(thread / "stack").splitlines()
                stack = tuple(line.partition("] ")[2] for line in lines)
                inside = _inside(stack, path.name, funcs, target)
                reason = Reason.RUNNING if running else Reason.SLEEPING if inside else Reason.UNKNOWN
                found.append(Blocker(path.name, pid, tid, _text(thread / "comm"), reason, inside, stack))
        return found

    def objects(self, name: str) -> tuple[Object, ...]:
        """Read what a patch changes; nothing when the core does not hold it."""
        with contextlib.suppress(FileNotFoundError):
            return tuple(self._objects(self._patches / name))
        return ()

    def task_count(self) -> int:
        """Count all tasks but the idle ones, which are not in /proc."""
        return sum(1 for _ in self._threads())

    def watch(self) -> Watch:
        """Watch by polling."""
        return PollingWatch()

    def wait(self, name: str, timeout: float | None) -> PatchStatus | None:
        """Wait by polling."""
        return wait_by(self.watch(), lambda: self._settled(name), timeout)

    def close(self) -> None:
        """Nothing is held."""

    def busy(self) -> str | None:
        """Name the patch in transition, if there is one."""
        for path in self._directories():
            with contextlib.suppress(FileNotFoundError):
                if _flag(path / "transition"):
                    return path.name
        return None

    def _moving(self) -> tuple[Path, Target] | None:
        """The patch in transition, and where that leads."""
        for path in self._directories():
            with contextlib.suppress(FileNotFoundError):
                if _flag(path / "transition"):
                    return path, Target.PATCHED if _flag(path / "enabled") else Target.UNPATCHED
        return None

    def _switching(self, target: Target) -> Iterator[tuple[Path, bool]]:
        """All threads, and whether each is still pending."""
        for thread in self._threads():
            try:
                state = _text(thread / "patch_state")
            except (FileNotFoundError, ProcessLookupError):
                continue
            except PermissionError as error:
                raise refusal(errno.EACCES, "read", str(thread / "patch_state")) from error
            yield thread, state not in (_VALUES[target], "-1")

    def _settled(self, name: str) -> PatchStatus:
        try:
            return self._read(self._patches / name, count=False)
        except FileNotFoundError:
            return self._idle(name)

    def _directories(self) -> list[Path]:
        return sorted(path for path in self._patches.iterdir() if path.is_dir())

    def _read(self, path: Path, *, count: bool = True) -> PatchStatus:
        enabled = _flag(path / "enabled")
        state = _STATES[enabled, _flag(path / "transition")]
        replace = None
        with contextlib.suppress(FileNotFoundError):
            replace = _flag(path / "replace")
        progress = None
        if state.in_transition:
            target = Target.PATCHED if enabled else Target.UNPATCHED
            progress = self._progress(target) if count else Progress(target, 0, 0, 0.0)
        return PatchStatus(
            name=path.name,
            state=state,
            registered=self._is_registered(path.name),
            replace=replace,
            forced=False,
            objects=tuple(self._objects(path)),
            progress=progress,
        )

    def _idle(self, name: str) -> PatchStatus:
        registered = self._is_registered(name)
        state = PatchState.REGISTERED if registered else PatchState.DISABLED
        return PatchStatus(name, state, registered, None, False, (), None)

    def _objects(self, path: Path) -> Iterator[Object]:
        for entry in sorted(path.iterdir()):
            if entry.name in _ATTRIBUTES or not entry.is_dir():
                continue
            funcs = []
            for func in sorted(entry.iterdir()):
                name, comma, sympos = func.name.rpartition(",")
                if comma and sympos.isdigit():
                    funcs.append(Func(name, int(sympos)))
            yield Object(entry.name, tuple(funcs))

    def _modules(self) -> list[str]:
        try:
            modules = sorted((self.sysfs / "module").iterdir())
        except FileNotFoundError:
            return []
        return [path.name for path in modules if self._is_livepatch(path)]

    @staticmethod
    def _is_livepatch(module: Path) -> bool:
        # TAINT_LIVEPATCH, 'K', is set for every module with modinfo livepatch=Y
        # (2992ef29ae01, 4.6).
        with contextlib.suppress(OSError):
            return "K" in _text(module / "taint")
        return False

    def _is_registered(self, name: str) -> bool:
        return (self.sysfs / "module/klpctl/holders" / name).exists()

    def _threads(self) -> Iterator[Path]:
        for process in os.scandir(self._proc):
            if process.name.isdigit():
                with contextlib.suppress(FileNotFoundError, ProcessLookupError):
                    for thread in os.scandir(Path(process.path) / "task"):
                        yield Path(thread.path)

    def _progress(self, target: Target) -> Progress:
        done = total = 0
        for thread in self._threads():
            try:
                done += _text(thread / "patch_state") == _VALUES[target]
            except (FileNotFoundError, ProcessLookupError):
                continue
            except PermissionError:
                return Progress(target, 0, 0, 0.0)
            total += 1
        return Progress(target, done, total, 0.0)

    def _write(self, name: str, attribute: str, value: str, verb: str) -> None:
        path = self._patches / name / attribute
        try:
            # One write() call, and no O_CREAT: sysfs wants neither more nor less.
            file = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
            try:
                os.write(file, value.encode())
            finally:
                os.close(file)
        except OSError as error:
            # kernfs says ENODEV when the patch goes between open() and write().
            number = errno.ENOENT if error.errno == errno.ENODEV else error.errno or errno.EIO
            raise refusal(number, verb, name, busy=self.busy(), filename=str(path)) from error


def _unconfirmed(verb: str, name: str) -> UnsupportedError:
    return UnsupportedError(
        f"cannot {verb} {name}: only klpctl reverts what nobody confirms",
        feature="confirm",
        remedy=_NO_KLPCTL.remedy,
    )


def _inside(stack: tuple[str, ...], patch: str, funcs: set[str], target: Target) -> str | None:
    """The function that changes and is on a stack: the old one, or one of the patch's own."""
    for line in stack:
        symbol, _, module = line.partition(" ")
        name = symbol.partition("+")[0]
        if name in funcs if target is Target.PATCHED else module == f"[{patch}]":
            return name
    return None


def _text(path: Path) -> str:
    try:
        return path.read_text(errors="replace").strip()
    except OSError as error:
        # kernfs says ENODEV when the file goes between open() and read().
        if error.errno == errno.ENODEV:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(path)) from error
        raise


def _flag(path: Path) -> bool:
    return _text(path) == "1"


def enabled_order(sysfs: Path) -> list[str] | None:
    """Name the patches that the livepatch core holds, in the order in which they came.

    That is the order of their ``stack_order``, and where there is none that of
    their directories: the core makes one for each patch when it takes it, and
    kernfs numbers them upwards. The number does not wrap: it has 64 bits, of which
    the upper count how often the lower wrapped (40430452fd5d, "kernfs: use 64bit inos
    if ino_t is 64bit", 5.5).

    Returns:
        The names, the oldest first; None when they cannot be read.

    Source: /sys/kernel/livepatch/<patch>/stack_order (6.14), or the directory's
    inode number.
    """
    try:
        found = [(_rank(path), path.name) for path in (sysfs / "kernel/livepatch").iterdir() if path.is_dir()]
    except OSError:
        return None
    return [name for _, name in sorted(found)]


def _rank(path: Path) -> int:
    with contextlib.suppress(OSError, ValueError):
        return int((path / "stack_order").read_text())
    return path.stat().st_ino
