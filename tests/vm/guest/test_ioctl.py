# SPDX-License-Identifier: MIT
"""/dev/klpctl, by a client that knows the uapi header and nothing else."""

from __future__ import annotations

import errno
import fcntl
import os
import signal
import struct
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import KernelLog, Sleeper, cmdline, until
from elftools.elf.elffile import ELFFile
from rawdevice import CONFIRM, ENABLE, FORCE, LAYOUT, REVERT, SIZE, WAIT, DeviceError, K, number, request
from support import unchanged

from pylivepatch import Core, PatchState

Payload = Callable[[str], Path]
FOREVER = K["KLPCTL_WAIT_FOREVER"]
NAME = b"plp_cmdline"
HOLD = b"plp_hold"


@pytest.fixture
def device() -> Iterator[int]:
    """The open device."""
    descriptor = os.open("/dev/klpctl", os.O_RDWR)
    yield descriptor
    os.close(descriptor)


@pytest.mark.smoke
def test_the_device_enables_waits_and_reverts(core: Core, payload: Payload, device: int) -> None:
    """Enable, wait and revert do what the header says."""
    original = cmdline()
    core.load(payload("plp_cmdline"))
    assert request(device, WAIT, NAME) == K["KLPCTL_STATE_REGISTERED"]
    request(device, ENABLE, NAME)
    assert request(device, WAIT, NAME, timeout_ms=FOREVER) == K["KLPCTL_STATE_ENABLED"]
    assert cmdline() == "cmdline: patched"
    request(device, REVERT, NAME)
    assert request(device, WAIT, NAME, timeout_ms=60_000) == K["KLPCTL_STATE_DISABLED"]
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
        struct.pack_into("=II", data, header + 40, names.index(".symtab"), names.index(".plp_place"))
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
    with unchanged(), pytest.raises(DeviceError, match="relocates against a module") as info:
        request(device, ENABLE, b"plp_reloc")
    assert info.value.errno == errno.EOPNOTSUPP
    patch.enable()
    assert Path("/proc/plp_target").read_text() == "target: relocated\n"


def test_a_busy_core_applies_no_relocations(
    core: Core, payload: Payload, device: int, sleeper: Callable[..., Sleeper], tmp_path: Path
) -> None:
    """An enable that is refused because of another transition can be tried again."""
    held = sleeper()
    patch = core.load(relocating(payload("plp_reloc"), tmp_path))
    hold = core.load(payload("plp_hold")).enable(timeout=None, wait=False)
    with pytest.raises(DeviceError, match="another patch is in transition") as info:
        request(device, ENABLE, b"plp_reloc")
    assert info.value.errno == errno.EBUSY
    held.wake()
    hold.wait()
    patch.enable()
    assert Path("/proc/plp_target").read_text() == "target: relocated\n"


def test_a_callback_that_returns_no_error_number(core: Core, payload: Payload, device: int, log: KernelLog) -> None:
    """A pre-patch callback that returns a positive number makes the enable fail, not seem to succeed."""
    log.expect("pre-patch callback failed")
    log.expect("failed to enable patch")
    core.load(payload("plp_prefail"), params={"fail": 1})
    with unchanged(), pytest.raises(DeviceError, match="callback of the patch refused it") as info:
        request(device, ENABLE, b"plp_prefail")
    assert info.value.errno == errno.EINVAL


FULL = b"x" * (K["KLPCTL_NAME_LEN"] + 1)
BAD: dict[str, tuple[int, dict[str, Any], int, str]] = {
    "enable, unknown flag": (ENABLE, {"flags": 4, "timeout_ms": 1}, errno.EINVAL, "unknown flags"),
    "enable, force's word": (FORCE, {"flags": 2}, errno.EINVAL, "unknown flags"),
    "enable, owned without a window": (ENABLE, {"flags": K["KLPCTL_ENABLE_OWNED"]}, errno.EINVAL, "window"),
    "enable, deadline without a window": (ENABLE, {"flags": K["KLPCTL_ENABLE_DEADLINE"]}, errno.EINVAL, "window"),
    "enable, state": (ENABLE, {"state": 1}, errno.EINVAL, "state"),
    "enable, unterminated": (ENABLE, {"name": FULL}, errno.EINVAL, "NUL"),
    "enable, unknown": (ENABLE, {"name": FULL[:-1]}, errno.ENOENT, "no such patch"),
    "enable, empty": (ENABLE, {"name": b""}, errno.ENOENT, "no such patch"),
    "enable, a path": (ENABLE, {"name": b"../plp_cmdline"}, errno.ENOENT, "no such patch"),
    "confirm, flags": (CONFIRM, {"flags": 1}, errno.EINVAL, "unknown flags"),
    "confirm, time": (CONFIRM, {"timeout_ms": 1}, errno.EINVAL, "time"),
    "confirm, unknown": (CONFIRM, {"name": b"nobody"}, errno.ENOENT, "no such patch"),
    "confirm, none awaited": (CONFIRM, {}, errno.EINVAL, "no confirmation is awaited"),
    "revert, flags": (REVERT, {"flags": 1 << 31}, errno.EINVAL, "unknown flags"),
    "revert, time": (REVERT, {"timeout_ms": FOREVER}, errno.EINVAL, "time"),
    "revert, not enabled": (REVERT, {}, errno.EALREADY, "not enabled"),
    "force, no risk accepted": (FORCE, {}, errno.EINVAL, "KLPCTL_FORCE_ACCEPT_RISK"),
    "force, not in transition": (FORCE, {"flags": 1}, errno.EINVAL, "not in transition"),
    "wait, flags": (WAIT, {"flags": 1}, errno.EINVAL, "unknown flags"),
    "wait, unterminated": (WAIT, {"name": FULL}, errno.EINVAL, "NUL"),
    "wait, unknown": (WAIT, {"name": b"nobody"}, errno.ENOENT, ""),
    "cut words": (REVERT, {"words_len": 8}, errno.EALREADY, "the pat"),
    "no words": (REVERT, {"words_len": 0}, errno.EALREADY, ""),
    "unknown number": (number(6), {}, errno.ENOTTY, ""),
    "number 0": (number(0), {}, errno.ENOTTY, ""),
    "other direction": (number(1, direction=1), {}, errno.ENOTTY, ""),
    "other magic": (number(1, magic=0xB7), {}, errno.ENOTTY, ""),
    "shorter than ever": (number(1, size=SIZE - 1), {}, errno.EINVAL, ""),
    "longer, and not zero": (number(1, size=SIZE + 8), {"tail": bytes(7) + b"x"}, errno.E2BIG, ""),
    "a terminal's": (0x5401, {}, errno.ENOTTY, ""),
}


@pytest.mark.parametrize("case", list(BAD))
def test_a_bad_argument_is_refused(core: Core, payload: Payload, device: int, case: str) -> None:
    """Wrong sizes, flags, names and numbers are refused, each with its error and in words, and change nothing."""
    command, fields, expected, words = BAD[case]
    core.load(payload("plp_cmdline"))
    with unchanged(), pytest.raises(DeviceError) as info:
        request(device, command, **({"name": NAME} | fields))
    assert info.value.errno == expected
    assert words in info.value.words


def test_a_longer_structure_of_a_newer_client(core: Core, payload: Payload, device: int) -> None:
    """What this kernel does not know of a structure may be there when it is zero."""
    core.load(payload("plp_cmdline"))
    assert request(device, number(5, size=SIZE + 64), NAME, tail=bytes(64)) == K["KLPCTL_STATE_REGISTERED"]


def test_an_address_that_is_none(core: Core, payload: Payload, device: int) -> None:
    """A pointer to nowhere is EFAULT; words that cannot be written are lost, and the refusal is not."""
    for command in (ENABLE, REVERT, FORCE, CONFIRM, WAIT):
        with pytest.raises(OSError, match="Bad address"):
            fcntl.ioctl(device, command, 8)
    with pytest.raises(OSError, match="No such file"):
        fcntl.ioctl(device, REVERT, struct.pack(LAYOUT, b"nobody", 0, 0, 8, 100, 0))


def test_a_wait_can_time_out_and_be_interrupted(
    core: Core, payload: Payload, device: int, sleeper: Callable[..., Sleeper]
) -> None:
    """A wait ends with ETIMEDOUT and the state, with EINTR when a signal comes, and at the transition's end."""
    held = sleeper()
    hold = core.load(payload("plp_hold"))
    hold.enable(wait=False)
    before = time.monotonic()
    with pytest.raises(DeviceError) as info:
        request(device, WAIT, HOLD, timeout_ms=500)
    assert time.monotonic() - before > 0.25  # in ticks, and an emulated CPU makes up for late ones all at once
    assert (info.value.errno, info.value.state) == (errno.ETIMEDOUT, K["KLPCTL_STATE_ENABLING"])
    with pytest.raises(DeviceError) as info:
        request(device, WAIT, HOLD)
    assert info.value.errno == errno.ETIMEDOUT

    came = threading.Event()
    old = signal.signal(signal.SIGALRM, lambda *_: came.set())
    signal.setitimer(signal.ITIMER_REAL, 0.05, 0.05)
    try:
        with pytest.raises(DeviceError) as info:
            request(device, WAIT, HOLD, timeout_ms=FOREVER)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, old)
    assert info.value.errno == errno.EINTR
    assert came.is_set()
    assert hold.state is PatchState.ENABLING

    held.wake()
    assert request(device, WAIT, HOLD, timeout_ms=FOREVER) == K["KLPCTL_STATE_ENABLED"]


def test_many_wait_at_once(core: Core, payload: Payload, sleeper: Callable[..., Sleeper]) -> None:
    """Each of several waiters sees the end, each on a descriptor of its own."""
    held = sleeper()
    core.load(payload("plp_hold")).enable(wait=False)
    seen: list[int] = []

    def body() -> None:
        descriptor = os.open("/dev/klpctl", os.O_RDWR)
        seen.append(request(descriptor, WAIT, HOLD, timeout_ms=FOREVER))
        os.close(descriptor)

    threads = [threading.Thread(target=body) for _ in range(8)]
    for thread in threads:
        thread.start()
    until(lambda: len(list(Path("/proc/self/task").iterdir())) >= 9)
    assert seen == []
    held.wake()
    for thread in threads:
        thread.join(120)
    assert seen == [K["KLPCTL_STATE_ENABLED"]] * 8
