# SPDX-License-Identifier: MIT
"""The livepatch core through klpctl: netlink to ask, the device to change something and to wait."""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import math
import os
import threading
import time
from types import MappingProxyType
from typing import TYPE_CHECKING, Self

from pylivepatch._shim import ffi, lib
from pylivepatch.errors import LivepatchError, PatchNotFoundError, UnsupportedError
from pylivepatch.kernel import BackendName, PollingWatch, Watch, wait_by, wire
from pylivepatch.kernel.netlink import Netlink, RefusedError
from pylivepatch.kernel.refusal import refusal
from pylivepatch.state import Blocker, Features, Missing, PatchState, PatchStatus, Task

if TYPE_CHECKING:
    from pylivepatch.kernel.sysfs import SysfsBackend

_VERBS = {
    "enable": lib.KLPCTL_IOC_ENABLE,
    "revert": lib.KLPCTL_IOC_REVERT,
    "force": lib.KLPCTL_IOC_FORCE,
    "confirm": lib.KLPCTL_IOC_CONFIRM,
}
_DEVICE = ffi.string(lib.KLPCTL_DEVICE).decode()
_MISSING = {
    "events": Missing("klpctl could not probe the livepatch core", "run a kernel with CONFIG_KPROBES"),
    "fast": Missing(
        "klpctl was told not to, or does not find the core's retry work",
        "load klpctl with fast completion on",
    ),
    "idle": Missing("klpctl cannot see idle tasks"),
    "reasons": Missing("klpctl cannot probe klp_check_and_switch_task()"),
    "stacks": Missing("klpctl finds nothing that walks stacks"),
    "reloc_clear": Missing("the kernel does not clear relocations", "unload the patch and load it again", "6.3"),
}


class KlpctlWatch:
    """Wakes with every event of klpctl."""

    def __init__(self) -> None:
        self._netlink = Netlink(subscribe=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self._netlink.close()

    def wait(self, timeout: float) -> None:
        """Wait for an event, at most `timeout` seconds, and take all there are."""
        with contextlib.suppress(RefusedError):
            message = self._netlink.event(timeout)
            while message is not None:
                message = self._netlink.event(0.0)


class KlpctlBackend:
    """Speaks with klpctl; what klpctl does not do goes through `sysfs`.

    Raises:
        RefusedError: ENOENT when klpctl is not loaded.
        UnsupportedError: It is another version than this package was built for.
    """

    def __init__(self, sysfs: SysfsBackend) -> None:
        self._sysfs = sysfs
        self._lock = threading.Lock()
        self._netlink = Netlink()
        self._device = -1
        self._bits = 0
        try:
            self._hello()
        except BaseException:
            self.close()
            raise

    @property
    def name(self) -> BackendName:
        """The backend's name."""
        return "klpctl"

    def _hello(self) -> None:
        numbers = self._read(lib.KLPCTL_CMD_FEATURES_GET, "features")[0].numbers
        version = numbers[lib.KLPCTL_A_VERSION]
        if version != lib.KLPCTL_VERSION:
            raise UnsupportedError(
                f"klpctl speaks version {version}, this pylivepatch speaks version {lib.KLPCTL_VERSION}",
                feature="klpctl",
                remedy="install both from the same release, or use the backend sysfs",
            )
        self._bits = numbers[lib.KLPCTL_A_FEATURES]

    def features(self) -> Features:
        """Say what is there and what is missing."""
        numbers = self._read(lib.KLPCTL_CMD_FEATURES_GET, "features")[0].numbers
        self._bits = numbers[lib.KLPCTL_A_FEATURES]
        there = {
            "events": self._has(lib.KLPCTL_FEATURE_EVENTS),
            "fast": self._has(lib.KLPCTL_FEATURE_FAST),
            "idle": self._has(lib.KLPCTL_FEATURE_REASONS),
            "reloc_clear": self._has(lib.KLPCTL_FEATURE_RELOC_CLEAR),
            "reasons": self._has(lib.KLPCTL_FEATURE_REASONS),
            "stacks": self._has(lib.KLPCTL_FEATURE_STACKS),
        }
        return Features(
            registered=True,
            standalone=True,
            progress=True,
            replace=True,
            kicks=numbers.get(lib.KLPCTL_A_KICKS, 0),
            reversals=numbers.get(lib.KLPCTL_A_REVERSALS, 0),
            missing=MappingProxyType({name: _MISSING[name] for name, present in there.items() if not present}),
            **there,
        )

    def patches(self) -> list[PatchStatus]:
        """Read all patches, and those modules that klpctl has not seen."""
        messages = self._read(lib.KLPCTL_CMD_PATCH_GET, "patches", dump=True)
        found = [self._status(message) for message in messages]
        seen = {status.name for status in found}
        return found + [status for status in self._sysfs.patches() if status.name not in seen]

    def patch(self, name: str) -> PatchStatus:
        """Read one patch."""
        try:
            messages = self._ask(lib.KLPCTL_CMD_PATCH_GET, name=name)
        except RefusedError as error:
            if error.number != errno.ENOENT:
                raise refusal(error.number, "read", name, extack=error.extack) from None
            messages = []
        return self._status(messages[0]) if messages else self._sysfs.patch(name)

    def enable(
        self, name: str, confirm_within: float | None = None, owned: bool = False, deadline: float | None = None
    ) -> None:
        """Start enabling, or reverse the disabling of a patch."""
        flags = window = 0
        if confirm_within is not None:
            window = _milliseconds(confirm_within)
            flags = lib.KLPCTL_ENABLE_OWNED if owned else 0
        elif deadline is not None:
            window = _milliseconds(deadline)
            flags = lib.KLPCTL_ENABLE_DEADLINE
        self._change("enable", name, flags, window)

    def confirm(self, name: str) -> None:
        """Let an enabled patch stay."""
        self._change("confirm", name)

    def revert(self, name: str) -> None:
        """Start disabling, or reverse the enabling of a patch."""
        self._change("revert", name)

    def force(self, name: str) -> None:
        """End the transition without waiting for its tasks."""
        self._change("force", name, lib.KLPCTL_FORCE_ACCEPT_RISK)

    def tasks(self) -> list[Task]:
        """Read the tasks of the running transition: of those that have switched only /proc knows."""
        pending = [task for message in self._read_tasks(0) for task in wire.tasks(message)]
        if not pending and self.busy() is None:
            return []
        threads = {task.tid for task in pending}
        idle = {task.cpu for task in pending if task.cpu is not None}
        switched = [task for task in self._sysfs.tasks() if not task.pending and task.tid not in threads]
        if self._has(lib.KLPCTL_FEATURE_REASONS):
            cpus = [cpu for cpu in sorted(os.sched_getaffinity(0)) if cpu not in idle]
            switched += [Task(0, 0, f"swapper/{cpu}", False, cpu) for cpu in cpus]
        return switched + pending

    def task_count(self) -> int:
        """Count all tasks, the idle ones with them."""
        return self._sysfs.task_count() + (os.cpu_count() or 1)

    def blockers(self) -> list[Blocker]:
        """Read the pending tasks of the running transition, in one dump."""
        messages = self._read_tasks(lib.KLPCTL_TASK_STACK)
        return [blocker for message in messages for blocker in wire.blockers(message)]

    def watch(self) -> Watch:
        """Watch events; by polling when klpctl sees none."""
        if self._has(lib.KLPCTL_FEATURE_EVENTS):
            with contextlib.suppress(RefusedError):
                return KlpctlWatch()
        return PollingWatch()

    def wait(self, name: str, timeout: float | None) -> PatchStatus | None:
        """Wait in the kernel; by events or by polling where it may not be asked, or does not know the patch."""
        end = None if timeout is None else time.monotonic() + timeout
        answer = ffi.new("struct plp_answer *")
        while self._open() >= 0:
            left = lib.KLPCTL_WAIT_FOREVER
            if end is not None:
                left = min(left - 1, max(0, math.ceil((end - time.monotonic()) * 1000)))
            result = lib.plp_dev_request(self._device, lib.KLPCTL_IOC_WAIT, name.encode(), 0, left, answer)
            if result == 0 or result == -errno.ENOENT:
                status = self._settled(name)
                if not status.state.in_transition:
                    return status
                if result:
                    break
            elif result == -errno.ETIMEDOUT:
                if end is not None and time.monotonic() >= end:
                    return None
            elif result != -errno.EINTR:
                raise refusal(-result, "read", name, filename=_DEVICE)
        rest = None if end is None else max(0.0, end - time.monotonic())
        return wait_by(self.watch(), lambda: self._settled(name), rest)

    def close(self) -> None:
        """Close the socket and the device."""
        self._netlink.close()
        if self._device >= 0:
            lib.plp_dev_close(self._device)
            self._device = -1

    def busy(self) -> str | None:
        """Name the patch in transition, if there is one."""
        with contextlib.suppress(LivepatchError):
            return next((patch.name for patch in self.patches() if patch.progress), None)
        return None

    def _open(self) -> int:
        """Open the device, once; it says -errno when that may not be."""
        if self._device < 0:
            self._device = lib.plp_dev_open(_DEVICE.encode())
        return self._device

    def _change(self, verb: str, name: str, flags: int = 0, timeout_ms: int = 0) -> None:
        device = self._open()
        answer = ffi.new("struct plp_answer *")
        result = device
        if device >= 0:
            result = -errno.EINTR
            # After a signal nothing has been done yet, and its handler has run, and may have raised.
            while result == -errno.EINTR:
                result = lib.plp_dev_request(device, _VERBS[verb], name.encode(), flags, timeout_ms, answer)
        elif device in (-errno.ENOENT, -errno.ENXIO, -errno.ENODEV):
            raise UnsupportedError(
                f"cannot {verb} {name}: klpctl is loaded, but {_DEVICE} is not there",
                feature="klpctl",
                remedy=f"make {_DEVICE} visible here (devtmpfs), or use the backend sysfs",
            )
        if result < 0:
            busy = self.busy() if result == -errno.EBUSY else None
            words = ffi.string(answer.words).decode(errors="replace")
            raise refusal(-result, verb, name, extack=words, busy=busy, filename=_DEVICE)

    def _has(self, feature: int) -> bool:
        return bool(self._bits >> feature & 1)

    def _settled(self, name: str) -> PatchStatus:
        try:
            return self.patch(name)
        except PatchNotFoundError:
            return PatchStatus(name, PatchState.DISABLED, False, None, False, (), None)

    def _read(self, command: int, what: str, *, dump: bool = False) -> list[wire.Values]:
        try:
            return self._ask(command, dump=dump)
        except RefusedError as error:
            raise refusal(error.number, "read", what, extack=error.extack) from None

    def _read_tasks(self, options: int) -> list[wire.Values]:
        try:
            return self._ask(lib.KLPCTL_CMD_TASK_GET, dump=True, options=options)
        except RefusedError as error:
            raise refusal(error.number, "read", "the tasks", extack=error.extack) from None

    def _status(self, message: wire.Values) -> PatchStatus:
        """Read a message; the objects of a patch that enables itself are in sysfs."""
        status = wire.patch_status(message)
        if status.registered:
            return status
        return dataclasses.replace(status, objects=self._sysfs.objects(status.name))

    def _ask(self, command: int, *, dump: bool = False, name: str = "", options: int = 0) -> list[wire.Values]:
        with self._lock:
            return self._netlink.ask(command, dump=dump, name=name, options=options)


def _milliseconds(seconds: float) -> int:
    """A time as the device takes it: at least one, and not by chance for ever."""
    if math.isinf(seconds):
        return lib.KLPCTL_WAIT_FOREVER
    return max(1, min(math.ceil(seconds * 1000), lib.KLPCTL_WAIT_FOREVER - 1))
