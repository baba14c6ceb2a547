# SPDX-License-Identifier: MIT
"""/dev/klpctl, by a client that knows the uapi header and nothing else."""

from __future__ import annotations

import errno
import fcntl
import os
import signal
import struct
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from conftest import KernelLog, Sleeper, cmdline, until
from elftools.elf.elffile import ELFFile
from rawnetlink import constants
from support import HEADER, unchanged

from pylivepatch import Core, PatchState

Payload = Callable[[str], Path]
K = constants(HEADER)
TEXT = f"{K['KLPCTL_NAME_LEN'] + 1}s"
VERSION, ENABLE, PATCH, WAIT = "=IIQ2Q", f"=II{TEXT}II2Q", f"=II{TEXT}2Q", f"=II{TEXT}II2Q"
FOREVER = K["KLPCTL_WAIT_FOREVER"]
READ, WRITE = 2, 1
NAME = b"plp_cmdline"
HOLD = b"plp_hold"


def number(direction: int, request: int, layout: str) -> int:
    """Make the number of an ioctl, as <linux/ioctl.h> does."""
    return direction << 30 | struct.calcsize(layout) << 16 | K["KLPCTL_IOC_MAGIC"] << 8 | request


IOC_VERSION = number(READ | WRITE, 0, VERSION)
IOC_ENABLE = number(WRITE, 1, ENABLE)
IOC_REVERT = number(WRITE, 2, PATCH)
IOC_WAIT = number(READ | WRITE, 3, WAIT)
IOC_CONFIRM = number(WRITE, 4, PATCH)


@pytest.fixture
def device() -> Iterator[int]:
    """The open device."""
    descriptor = os.open("/dev/klpctl", os.O_RDWR)
    yield descriptor
    os.close(descriptor)


def patch(name: bytes, *, size: int = 0, flags: int = 0, reserved: tuple[int, int] = (0, 0)) -> bytes:
    """The argument of revert and confirm."""
    return struct.pack(PATCH, size or struct.calcsize(PATCH), flags, name, *reserved)


def enable(
    name: bytes, *, size: int = 0, flags: int = 0, confirm_ms: int = 0, reserved: tuple[int, int, int] = (0, 0, 0)
) -> bytes:
    """The argument of enable."""
    return struct.pack(ENABLE, size or struct.calcsize(ENABLE), flags, name, confirm_ms, *reserved)


def wait(name: bytes, timeout_ms: int, *, size: int = 0, reserved: tuple[int, int, int] = (0, 0, 0)) -> bytes:
    """The argument of wait."""
    return struct.pack(WAIT, size or struct.calcsize(WAIT), timeout_ms, name, 0, *reserved)


def state(answer: bytes) -> int:
    """The state in an answer to wait."""
    return int(struct.unpack(WAIT, answer)[3])


@pytest.mark.smoke
def test_the_device_enables_waits_and_reverts(core: Core, payload: Payload, device: int) -> None:
    """Version, enable, wait and revert do what the header says."""
    answer = fcntl.ioctl(device, IOC_VERSION, struct.pack(VERSION, struct.calcsize(VERSION), 0, 0, 0, 0))
    _, version, features, *reserved = struct.unpack(VERSION, answer)
    assert version == K["KLPCTL_VERSION"]
    assert features >> K["KLPCTL_FEATURE_EVENTS"] & 1
    assert reserved == [0, 0]

    original = cmdline()
    core.load(payload("plp_cmdline"))
    assert state(fcntl.ioctl(device, IOC_WAIT, wait(NAME, 0))) == K["KLPCTL_STATE_REGISTERED"]
    fcntl.ioctl(device, IOC_ENABLE, enable(NAME))
    assert state(fcntl.ioctl(device, IOC_WAIT, wait(NAME, FOREVER))) == K["KLPCTL_STATE_ENABLED"]
    assert cmdline() == "cmdline: patched"
    fcntl.ioctl(device, IOC_REVERT, patch(NAME))
    assert state(fcntl.ioctl(device, IOC_WAIT, wait(NAME, 60_000))) == K["KLPCTL_STATE_DISABLED"]
    assert cmdline() == original


def relocating(original: Path, folder: Path) -> Path:
    """Make the section that looks like a livepatch relocation one: no assembler does."""
    alloc_livepatch, rela, absolute, shn_livepatch = 0x00100002, 4, 1, 0xFF20
    data = bytearray(original.read_bytes())
    with original.open("rb") as file:
        elf = ELFFile(file)
        names = [section.name for section in elf.iter_sections()]
        symtab = elf.get_section_by_name(".symtab")
        symbol = next(n for n, each in enumerate(symtab.iter_symbols()) if each.name.startswith(".klp.sym."))
        at = names.index(".klp.rela.plp_target.rodata")
        header = elf["e_shoff"] + at * elf["e_shentsize"]
        offset = elf.get_section(at)["sh_offset"]
        struct.pack_into("=IQ", data, header + 4, rela, alloc_livepatch)
        struct.pack_into("=II", data, header + 40, names.index(".symtab"), names.index(".rodata.plp_place"))
        struct.pack_into("=Q", data, header + 56, 24)
        struct.pack_into("=QQq", data, offset, 0, symbol << 32 | absolute, 0)
        struct.pack_into("=H", data, symtab["sh_offset"] + symbol * 24 + 6, shn_livepatch)
    path = folder / original.name
    path.write_bytes(data)
    return path


def test_relocations_for_a_module_are_applied_once(
    core: Core, payload: Payload, device: int, target: str, tmp_path: Path
) -> None:
    """What relocates against a loaded module is not enabled again as it is, on any kernel; loaded anew, it is."""
    patch = core.load(relocating(payload("plp_reloc"), tmp_path))
    patch.enable()
    assert Path("/proc/plp_target").read_text() == "target: relocated\n"
    patch.revert()
    with unchanged(), pytest.raises(OSError, match=f"Errno {errno.EOPNOTSUPP}\\b"):
        fcntl.ioctl(device, IOC_ENABLE, enable(b"plp_reloc"))
    patch.enable()
    assert Path("/proc/plp_target").read_text() == "target: relocated\n"


def test_a_busy_core_applies_no_relocations(
    core: Core, payload: Payload, device: int, sleeper: Callable[..., Sleeper], tmp_path: Path
) -> None:
    """An enable that is refused because of another transition can be tried again."""
    held = sleeper()
    patch = core.load(relocating(payload("plp_reloc"), tmp_path))
    hold = core.load(payload("plp_hold")).enable(timeout=None, wait=False)
    with pytest.raises(OSError, match=f"Errno {errno.EBUSY}\\b"):
        fcntl.ioctl(device, IOC_ENABLE, enable(b"plp_reloc"))
    held.wake()
    hold.wait()
    patch.enable()
    assert Path("/proc/plp_target").read_text() == "target: relocated\n"


def test_a_callback_that_returns_no_error_number(core: Core, payload: Payload, device: int, log: KernelLog) -> None:
    """A pre-patch callback that returns a positive number makes the enable fail, not seem to succeed."""
    log.expect("pre-patch callback failed")
    log.expect("failed to enable patch")
    core.load(payload("plp_prefail"), fail=1)
    with unchanged(), pytest.raises(OSError, match=f"Errno {errno.EINVAL}\\b"):
        fcntl.ioctl(device, IOC_ENABLE, enable(b"plp_prefail"))


def test_what_is_not_confirmed_goes_though_no_event_is_seen(core: Core, payload: Payload, device: int) -> None:
    """A patch whose window ends is reverted while all kprobes are disarmed, and klpctl knows nothing of its state."""
    switch = Path("/sys/kernel/debug/kprobes/enabled")
    if not switch.exists():
        subprocess.run(["mount", "-t", "debugfs", "none", "/sys/kernel/debug"], check=True)
    core.load(payload("plp_cmdline"))
    directory = Path("/sys/kernel/livepatch/plp_cmdline")
    switch.write_text("0")
    try:
        fcntl.ioctl(device, IOC_ENABLE, enable(NAME, confirm_ms=1000))
        assert directory.exists()
        until(lambda: not directory.exists())
    finally:
        switch.write_text("1")


FULL = b"x" * (K["KLPCTL_NAME_LEN"] + 1)
BAD = {
    "enable, size": (IOC_ENABLE, enable(NAME, size=1), errno.EINVAL),
    "enable, larger size": (IOC_ENABLE, enable(NAME, size=4096), errno.EINVAL),
    "enable, unknown flag": (IOC_ENABLE, enable(NAME, flags=2, confirm_ms=1), errno.EINVAL),
    "enable, owned without a window": (IOC_ENABLE, enable(NAME, flags=K["KLPCTL_ENABLE_OWNED"]), errno.EINVAL),
    "enable, reserved0": (IOC_ENABLE, enable(NAME, reserved=(1, 0, 0)), errno.EINVAL),
    "enable, reserved": (IOC_ENABLE, enable(NAME, reserved=(0, 0, 1)), errno.EINVAL),
    "enable, unterminated": (IOC_ENABLE, enable(FULL), errno.EINVAL),
    "enable, unknown": (IOC_ENABLE, enable(FULL[:-1]), errno.ENOENT),
    "enable, empty": (IOC_ENABLE, enable(b""), errno.ENOENT),
    "confirm, size": (IOC_CONFIRM, patch(NAME, size=1), errno.EINVAL),
    "confirm, flags": (IOC_CONFIRM, patch(NAME, flags=1), errno.EINVAL),
    "confirm, reserved": (IOC_CONFIRM, patch(NAME, reserved=(0, 1)), errno.EINVAL),
    "confirm, unknown": (IOC_CONFIRM, patch(b"nobody"), errno.ENOENT),
    "confirm, none awaited": (IOC_CONFIRM, patch(NAME), errno.EINVAL),
    "revert, size": (IOC_REVERT, patch(NAME, size=1), errno.EINVAL),
    "revert, flags": (IOC_REVERT, patch(NAME, flags=1 << 31), errno.EINVAL),
    "revert, reserved": (IOC_REVERT, patch(NAME, reserved=(1 << 63, 0)), errno.EINVAL),
    "revert, not enabled": (IOC_REVERT, patch(NAME), errno.EALREADY),
    "wait, size": (IOC_WAIT, wait(NAME, 0, size=1), errno.EINVAL),
    "wait, reserved0": (IOC_WAIT, wait(NAME, 0, reserved=(1, 0, 0)), errno.EINVAL),
    "wait, reserved": (IOC_WAIT, wait(NAME, 0, reserved=(0, 0, 1)), errno.EINVAL),
    "wait, unterminated": (IOC_WAIT, wait(FULL, 0), errno.EINVAL),
    "wait, unknown": (IOC_WAIT, wait(b"nobody", 0), errno.ENOENT),
    "version, size": (IOC_VERSION, struct.pack(VERSION, 31, 0, 0, 0, 0), errno.EINVAL),
    "version, reserved": (IOC_VERSION, struct.pack(VERSION, 32, 0, 0, 1, 0), errno.EINVAL),
    "unknown number": (number(READ | WRITE, 5, WAIT), wait(NAME, 0), errno.ENOTTY),
    "other size in the number": (number(READ | WRITE, 3, PATCH), patch(NAME), errno.ENOTTY),
    "other direction": (number(READ, 1, PATCH), patch(NAME), errno.ENOTTY),
    "a terminal's": (0x5401, bytes(64), errno.ENOTTY),
}


@pytest.mark.parametrize("case", list(BAD))
def test_a_bad_argument_is_refused(core: Core, payload: Payload, device: int, case: str) -> None:
    """Wrong sizes, reserved fields, names and numbers are refused, each with its error, and change nothing."""
    request, argument, expected = BAD[case]
    core.load(payload("plp_cmdline"))
    with unchanged(), pytest.raises(OSError, match=f"Errno {expected}\\b"):
        fcntl.ioctl(device, request, argument)


def test_an_address_that_is_none(core: Core, device: int) -> None:
    """A pointer to nowhere is EFAULT."""
    for request in (IOC_VERSION, IOC_ENABLE, IOC_REVERT, IOC_WAIT, IOC_CONFIRM):
        with pytest.raises(OSError, match="Bad address"):
            fcntl.ioctl(device, request, 8)


def test_a_wait_can_time_out_and_be_interrupted(
    core: Core, payload: Payload, device: int, sleeper: Callable[..., Sleeper]
) -> None:
    """A wait ends with ETIMEDOUT and the state, with EINTR when a signal comes, and at the transition's end."""
    held = sleeper()
    hold = core.load(payload("plp_hold"))
    hold.enable(wait=False)
    argument = bytearray(wait(HOLD, 50))
    before = time.monotonic()
    with pytest.raises(TimeoutError):
        fcntl.ioctl(device, IOC_WAIT, argument, True)
    assert time.monotonic() - before >= 0.05
    assert state(bytes(argument)) == K["KLPCTL_STATE_ENABLING"]
    with pytest.raises(TimeoutError):
        fcntl.ioctl(device, IOC_WAIT, wait(HOLD, 0))

    came = threading.Event()
    old = signal.signal(signal.SIGALRM, lambda *_: came.set())
    signal.setitimer(signal.ITIMER_REAL, 0.05, 0.05)
    try:
        with pytest.raises(InterruptedError):
            fcntl.ioctl(device, IOC_WAIT, wait(HOLD, FOREVER))
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, old)
    assert came.is_set()
    assert hold.state is PatchState.ENABLING

    held.wake()
    assert state(fcntl.ioctl(device, IOC_WAIT, wait(HOLD, FOREVER))) == K["KLPCTL_STATE_ENABLED"]


def test_many_wait_at_once(core: Core, payload: Payload, sleeper: Callable[..., Sleeper]) -> None:
    """Each of several waiters sees the end, each on a descriptor of its own."""
    held = sleeper()
    core.load(payload("plp_hold")).enable(wait=False)
    seen: list[int] = []

    def body() -> None:
        descriptor = os.open("/dev/klpctl", os.O_RDWR)
        seen.append(state(fcntl.ioctl(descriptor, IOC_WAIT, wait(HOLD, FOREVER))))
        os.close(descriptor)

    threads = [threading.Thread(target=body) for _ in range(8)]
    for thread in threads:
        thread.start()
    until(lambda: len(list(Path("/proc/self/task").iterdir())) >= 9)
    assert seen == []
    held.wake()
    for thread in threads:
        thread.join(20)
    assert seen == [K["KLPCTL_STATE_ENABLED"]] * 8
