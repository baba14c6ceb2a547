# SPDX-License-Identifier: MIT
"""The ELF file inside a compressed kernel image."""

from __future__ import annotations

import gzip
import lzma
import struct

import pytest

from pylivepatch.errors import BadDataError
from pylivepatch.lab import bzimage

ELF = b"\x7fELF" + bytes(range(256)) * 40


def image(payload: bytes, *, version: int = 0x20F, sectors: int = 2, lead: int = 64) -> bytes:
    """Return a bzImage with *payload* at *lead* bytes into its protected-mode part."""
    head = bytearray((sectors + 1) * 512)
    head[0x1F1] = sectors
    head[0x202:0x206] = b"HdrS"
    struct.pack_into("<H", head, 0x206, version)
    struct.pack_into("<II", head, 0x248, lead, len(payload))
    return bytes(head) + b"\x90" * lead + payload + b"after"


def test_xz_payload_with_the_kernels_trailer() -> None:
    """An xz payload is unpacked although the build system puts its size behind it."""
    packed = lzma.compress(ELF, format=lzma.FORMAT_XZ, check=lzma.CHECK_CRC32)
    assert bzimage.vmlinux(image(packed + len(ELF).to_bytes(4, "little"))) == ELF


def test_gzip_payload() -> None:
    """A gzip payload is unpacked too."""
    assert bzimage.vmlinux(image(gzip.compress(ELF))) == ELF


def test_lz4_payload_of_literals() -> None:
    """A payload in lz4's legacy format is unpacked block by block."""
    rest = len(ELF) - 15
    block = b"\xf0" + b"\xff" * (rest // 255) + bytes([rest % 255]) + ELF
    packed = bzimage.LZ4_LEGACY + struct.pack("<I", len(block)) + block + len(ELF).to_bytes(4, "little")
    assert bzimage.vmlinux(image(packed)) == ELF


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "no boot header"),
        (b"\0" * 4096, "no boot header"),
        (image(b"x", version=0x207), "boot protocol 2.07"),
        (image(b""), "truncated"),
        (image(b"y" * 4000)[:3000], "truncated"),
        (image(b"unknown!"), "unknown compression"),
        (image(gzip.compress(b"no elf")), "not an ELF file"),
        (image(b"\xfd7zXZ\0" + b"damage" * 9), "damaged"),
        (image(bzimage.LZ4_LEGACY + struct.pack("<I", 9) + b"\xff" * 9 + b"size"), "damaged"),
    ],
)
def test_what_is_no_kernel_is_refused(data: bytes, words: str) -> None:
    """A file that is not a whole kernel image is refused with the reason."""
    with pytest.raises(BadDataError, match=words):
        bzimage.vmlinux(data)
