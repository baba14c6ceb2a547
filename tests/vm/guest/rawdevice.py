# SPDX-License-Identifier: MIT
"""/dev/klpctl by hand: what the uapi header says of struct klpctl_request, and nothing else."""

from __future__ import annotations

import ctypes
import fcntl
import struct

from rawnetlink import constants
from support import HEADER

K = constants(HEADER)
LAYOUT = f"={K['KLPCTL_NAME_LEN'] + 1}sIIQII"
SIZE = struct.calcsize(LAYOUT)
READ_WRITE = 3


def number(nr: int, *, size: int = SIZE, direction: int = READ_WRITE, magic: int = K["KLPCTL_IOC_MAGIC"]) -> int:
    """Make the number of an ioctl, as <linux/ioctl.h> does."""
    return direction << 30 | size << 16 | magic << 8 | nr


ENABLE, REVERT, FORCE, CONFIRM, WAIT = (number(nr) for nr in range(1, 6))


class DeviceError(OSError):
    """A refusal, with the kernel's words, and the state that came with it."""

    def __init__(self, error: OSError, words: str, state: int) -> None:
        super().__init__(error.errno, words or error.strerror)
        self.words = words
        self.state = state


def request(
    device: int,
    command: int,
    name: bytes,
    *,
    flags: int = 0,
    timeout_ms: int = 0,
    state: int = 0,
    words_len: int = 200,
    tail: bytes = b"",
) -> int:
    """Send a request; the state that comes back."""
    words = ctypes.create_string_buffer(b"\xff" * 256, 257)
    argument = bytearray(
        struct.pack(LAYOUT, name, flags, timeout_ms, ctypes.addressof(words), words_len, state) + tail
    )
    try:
        fcntl.ioctl(device, command, argument, True)
    except OSError as error:
        said = words.raw.partition(b"\0")[0] if words.raw[0] != 0xFF else b""
        assert words.raw[words_len:256] == b"\xff" * (256 - words_len)
        raise DeviceError(error, said.decode(), struct.unpack_from(LAYOUT, argument)[5]) from None
    assert words.raw[:1] == b"\xff", "words without a refusal"
    return int(struct.unpack_from(LAYOUT, argument)[5])
