# SPDX-License-Identifier: MIT
"""The compressed kernel image: the ELF vmlinux inside a vmlinuz.

Booting the ELF file by its PVH entry skips the decompressor, which under emulation takes longer than
the rest of the boot. It also skips KASLR.

Source: Documentation/arch/x86/boot.rst, fields setup_sects, payload_offset and payload_length.
"""

from __future__ import annotations

import ctypes
import lzma
import struct
import zlib

from pylivepatch.errors import BadDataError
from pylivepatch.lab import tools
from pylivepatch.lab.errors import LabError

SETUP_SECTS = 0x1F1
MAGIC = 0x202
PAYLOAD_OFFSET = 0x248
PAYLOAD_LENGTH = 0x24C


LZ4_LEGACY = b"\x02\x21\x4c\x18"
LZ4_BLOCK = 8 << 20
"""Uncompressed size of each block of the legacy format but the last."""


def _lz4(data: bytes) -> bytes:
    """Return the blocks *data* of an lz4 stream in the legacy format, decompressed."""
    try:
        library = ctypes.CDLL("liblz4.so.1")  # apt itself needs it, so it is there
    except OSError as error:
        raise LabError("liblz4.so.1 is not installed: apt-get install liblz4-1") from error
    room = ctypes.create_string_buffer(LZ4_BLOCK)
    made = []
    while len(data) > 4:
        (size,) = struct.unpack_from("<I", data)
        block, data = data[4 : 4 + size], data[4 + size :]
        length = library.LZ4_decompress_safe(block, room, len(block), LZ4_BLOCK)
        if length < 0 or len(block) != size:
            raise BadDataError("the kernel's lz4 payload is damaged")
        made.append(room.raw[:length])
    return b"".join(made)


def payload(image: bytes) -> bytes:
    """Return the compressed payload of the bzImage *image*.

    Raises:
        BadDataError: This is not a bzImage with a payload (boot protocol 2.08 or later).
    """
    if len(image) < 0x260 or image[MAGIC : MAGIC + 4] != b"HdrS":
        raise BadDataError("not a bzImage: no boot header")
    (version,) = struct.unpack_from("<H", image, 0x206)
    if version < 0x208:
        raise BadDataError(f"boot protocol {version >> 8}.{version & 255:02} tells no payload")
    start = ((image[SETUP_SECTS] or 4) + 1) * 512
    offset, length = struct.unpack_from("<II", image, PAYLOAD_OFFSET)
    data = image[start + offset : start + offset + length]
    if not length or len(data) != length:
        raise BadDataError("the payload lies outside the bzImage: the file is truncated")
    return data


def vmlinux(image: bytes) -> bytes:
    """Return the ELF file inside the bzImage *image*.

    Raises:
        BadDataError: Not a bzImage, damaged, or compressed by something other than xz, zstd, lz4 or gzip.
        LabError: zstd or liblz4 is needed and not installed.
    """
    data = payload(image)
    if data.startswith(b"\xfd7zXZ\0"):
        try:
            elf = lzma.LZMADecompressor(lzma.FORMAT_XZ).decompress(data)
        except lzma.LZMAError as error:
            raise BadDataError(f"the kernel's xz payload is damaged: {error}") from error
    elif data.startswith(b"\x28\xb5\x2f\xfd"):
        elf = tools.call(["zstd", "-dcq"], what="unpacking the kernel", data=data[:-4])
    elif data.startswith(b"\x1f\x8b"):
        elf = zlib.decompressobj(31).decompress(data)
    elif data.startswith(LZ4_LEGACY):
        elf = _lz4(data[4:-4])
    else:
        raise BadDataError(f"unknown compression of the kernel: starts with {data[:4].hex()}")
    if not elf.startswith(b"\x7fELF"):
        raise BadDataError("the kernel's payload is not an ELF file")
    return elf
