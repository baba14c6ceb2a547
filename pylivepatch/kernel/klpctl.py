# SPDX-License-Identifier: MIT
"""The livepatch core through klpctl: netlink to ask and to do, the device to wait."""

from __future__ import annotations

import contextlib
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
    from collections.abc import Callable

    from pylivepatch.kernel.sysfs import SysfsBackend

_DEVICE = ffi.string(lib.KLPCTL_DEVICE).decode()
_MISSING = {
    "events": Missing("klpctl could not probe the livepatch core", "run a kernel with CONFIG_KPROBES"),
    "fast": Missing(
        "klpctl was told not to, or does not find the core's retry work",
        "load klpctl with fast completion on",
    ),
    "foreign": Missing("klpctl cannot see the objects of ordinary live patch modules"),
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
            "foreign": self._has(lib.KLPCTL_FEATURE_FOREIGN),
            "idle": self._has(lib.KLPCTL_FEATURE_IDLE),
            "reloc_clear": self._has(lib.KLPCTL_FEATURE_RELOC_CLEAR),
            "reasons": self._has(lib.KLPCTL_FEATURE_REASONS),
            "stacks": self._has(lib.KLPCTL_FEATURE_STACKS),
        }
        return Features(
            registered=True,
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
        found = [wire.patch_status(message) for message in messages]
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
        return wire.patch_status(messages[0]) if messages else self._sysfs.patch(name)

    def enable(self, name: str, confirm_within: float | None = None, owned: bool = False) -> None:
        """Start enabling, or turn a patch that is being disabled round."""
        if confirm_within is None:
            self._change(lib.KLPCTL_CMD_PATCH_ENABLE, "enable", name)
            return
        window = lib.KLPCTL_WAIT_FOREVER if math.isinf(confirm_within) else math.ceil(confirm_within * 1000)
        flags = lib.KLPCTL_ENABLE_OWNED if owned else 0
        self._by_device("enable", name, lambda fd: lib.plp_dev_enable(fd, name.encode(), window, flags))

    def confirm(self, name: str) -> None:
        """Let an enabled patch stay."""
        self._by_device("confirm", name, lambda fd: lib.plp_dev_confirm(fd, name.encode()))

    def revert(self, name: str) -> None:
        """Start disabling, or turn a patch that is being enabled round."""
        if not self._has(lib.KLPCTL_FEATURE_FOREIGN) and not self.patch(name).registered:
            self._sysfs.revert(name)
        else:
            self._change(lib.KLPCTL_CMD_PATCH_REVERT, "revert", name)

    def force(self, name: str) -> None:
        """End the transition without waiting for its tasks."""
        flags = lib.KLPCTL_FORCE_ACCEPT_RISK
        self._change(lib.KLPCTL_CMD_PATCH_FORCE, "force", name, flags)

    def tasks(self) -> list[Task]:
        """Read the tasks of the running transition."""
        messages = self._read(lib.KLPCTL_CMD_TASK_GET, "tasks", dump=True)
        return [task for message in messages for task in wire.tasks(message)]

    def task_count(self) -> int:
        """Count all tasks, the idle ones with them if klpctl does."""
        idle = os.cpu_count() or 1 if self._has(lib.KLPCTL_FEATURE_IDLE) else 0
        return self._sysfs.task_count() + idle

    def blockers(self) -> list[Blocker]:
        """Read the pending tasks of the running transition, in one dump."""
        flags = lib.KLPCTL_TASK_PENDING | lib.KLPCTL_TASK_STACK
        try:
            messages = self._ask(lib.KLPCTL_CMD_TASK_GET, dump=True, flags=flags)
        except RefusedError as error:
            raise refusal(error.number, "read", "blockers", extack=error.extack) from None
        return [blocker for message in messages for blocker in wire.blockers(message)]

    def watch(self) -> Watch:
        """Watch events; by polling when klpctl sees none."""
        if self._has(lib.KLPCTL_FEATURE_EVENTS):
            with contextlib.suppress(RefusedError):
                return KlpctlWatch()
        return PollingWatch()

    def wait(self, name: str, timeout: float | None) -> PatchStatus | None:
        """Wait in the kernel; by events or by polling where it does not see that, or may not be asked."""
        end = None if timeout is None else time.monotonic() + timeout
        state = ffi.new("uint32_t *")
        while self._has(lib.KLPCTL_FEATURE_EVENTS) and self._open() >= 0:
            left = lib.KLPCTL_WAIT_FOREVER
            if end is not None:
                left = min(left - 1, max(0, math.ceil((end - time.monotonic()) * 1000)))
            result = lib.plp_dev_wait(self._device, name.encode(), left, state)
            if result == 0 or result == -errno.ENOENT:
                status = self._settled(name)
                if not status.state.in_transition:
                    return status
                if result:
                    # klpctl does not know of it, as of a foreign patch without KLPCTL_FEATURE_FOREIGN.
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

    def _by_device(self, verb: str, name: str, call: Callable[[int], int]) -> None:
        device = self._open()
        result = call(device) if device >= 0 else device
        while result == -errno.EINTR:
            result = call(device)
        if result < 0:
            busy = self.busy() if result == -errno.EBUSY else None
            raise refusal(-result, verb, name, busy=busy, filename=_DEVICE)

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

    def _change(self, command: int, verb: str, name: str, flags: int = 0) -> None:
        try:
            self._ask(command, name=name, flags=flags)
        except RefusedError as error:
            busy = self.busy() if error.number == errno.EBUSY else None
            raise refusal(error.number, verb, name, extack=error.extack, busy=busy) from None

    def _ask(self, command: int, *, dump: bool = False, name: str = "", flags: int = 0) -> list[wire.Values]:
        with self._lock:
            return self._netlink.ask(command, dump=dump, name=name, flags=flags)
