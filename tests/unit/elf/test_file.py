# SPDX-License-Identifier: MIT
"""Module files that are made to mislead, or to exhaust: they are refused, with a reason."""

from __future__ import annotations

import gzip
import lzma
import os
import resource
import struct
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pylivepatch import ModuleFile, ModuleFileError, PatchInfo
from pylivepatch.elf import file as elf_file

Build = Callable[..., Path]
THIS_MODULE = """
struct { char before[24]; char name[56]; char after[800]; } m
  __attribute__((section(".gnu.linkonce.this_module"), used)) = { .name = "%s" };
"""


@pytest.fixture
def little_memory() -> Iterator[None]:
    """A process that may have one GiB of address space more than it has now."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    before = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + (1 << 30), before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_AS, before)


def packed(kind: str, size: int, head: bytes) -> bytes:
    """Very many zeros after a head, packed in pieces."""
    if kind == "gz":
        return gzip.compress(head) if size == 0 else gzip.compress(head + bytes(size), compresslevel=1)
    packer = lzma.LZMACompressor(preset=0)
    parts = [packer.compress(head)]
    parts += [packer.compress(bytes(1 << 20)) for _ in range(size >> 20)]
    return b"".join([*parts, packer.flush()])


@pytest.mark.parametrize("kind", ["xz", "gz"])
def test_a_bomb(build_module: Build, kind: str, monkeypatch: pytest.MonkeyPatch, little_memory: None) -> None:
    """What unpacks to more than any module has is refused before it is unpacked whole."""
    monkeypatch.setattr(elf_file, "LARGEST", 16 << 20)
    path = build_module()
    bomb = path.with_suffix(f".ko.{kind}")
    bomb.write_bytes(packed(kind, 64 << 20, path.read_bytes()))
    with pytest.raises(ModuleFileError, match="unpacked it has more than"):
        ModuleFile.open(bomb)
    bomb.write_bytes(packed(kind, 0, path.read_bytes()))
    assert ModuleFile.open(bomb).name == "plp_tiny"


def test_a_bomb_of_zstd(build_module: Build, monkeypatch: pytest.MonkeyPatch, little_memory: None) -> None:
    """The same of zstd."""
    import zstandard

    monkeypatch.setattr(elf_file, "LARGEST", 16 << 20)
    bomb = build_module().with_suffix(".ko.zst")
    bomb.write_bytes(zstandard.ZstdCompressor().compress(b"\x7fELF" + bytes(64 << 20)))
    with pytest.raises(ModuleFileError, match="unpacked it has more than"):
        ModuleFile.open(bomb)


@pytest.mark.parametrize("kind", ["xz", "gz"])
def test_a_cut_off_file(build_module: Build, kind: str) -> None:
    """Packed data that ends too early is damage."""
    path = build_module()
    cut = path.with_suffix(f".ko.{kind}")
    cut.write_bytes(packed(kind, 0, path.read_bytes())[:-40])
    with pytest.raises(ModuleFileError, match="compression is damaged"):
        ModuleFile.open(cut)


def test_long_symbols(build_module: Build, little_memory: None) -> None:
    """A hundred thousand symbols with one name of a megabyte do not become a hundred gigabytes."""
    path = build_module(extra="int " + "x" * (1 << 20) + ";")
    data = bytearray(path.read_bytes())
    # e_shoff, e_shentsize, e_shnum
    start, entry, count = struct.unpack_from("<Q", data, 40)[0], *struct.unpack_from("<HH", data, 58)
    for section in range(count):
        place = start + section * entry
        if struct.unpack_from("<I", data, place + 4)[0] == 2:
            offset, size = struct.unpack_from("<QQ", data, place + 24)
            table = bytes(data[offset : offset + size])
            struct.pack_into("<QQ", data, place + 24, len(data), 24 * 100_000)
            data += table[-24:] * 100_000
    path.write_bytes(data)
    with pytest.raises(ModuleFileError, match="more than 512 characters"):
        PatchInfo.open(path)


@pytest.mark.parametrize("kind", ["fifo", "device", "directory"])
def test_what_is_not_a_file(tmp_path: Path, kind: str) -> None:
    """A FIFO, a device and a directory are refused at once."""
    path = {"fifo": tmp_path / "fifo", "device": Path("/dev/zero"), "directory": tmp_path}[kind]
    if kind == "fifo":
        os.mkfifo(path)
    with pytest.raises(ModuleFileError, match=r"it cannot be read|not a regular file"):
        ModuleFile.open(path)


def test_a_compressed_section(build_module: Build) -> None:
    """The kernel reads .modinfo as it is in the file; tools that unpack it would read something else."""
    path = build_module("evil")
    data = bytearray(path.read_bytes())
    start, entry, count = struct.unpack_from("<Q", data, 40)[0], *struct.unpack_from("<HH", data, 58)
    for section in range(count):
        flags = struct.unpack_from("<Q", data, start + section * entry + 8)[0]
        if flags & 2:
            struct.pack_into("<Q", data, start + section * entry + 8, flags | 0x800)
    path.write_bytes(data)
    with pytest.raises(ModuleFileError, match="compressed, which the kernel does not unpack"):
        ModuleFile.open(path)


def test_two_modinfos(build_module: Build, tmp_path: Path) -> None:
    """The kernel takes the first of two; nobody shall be shown the other."""
    path = build_module("evil")
    other = tmp_path / "other"
    other.write_bytes(b"name=nice\0livepatch=Y\0")
    subprocess.run(["objcopy", "--add-section", f".modinfo2={other}", path], check=True)
    subprocess.run(["objcopy", "--rename-section", ".modinfo2=.modinfo", path], check=True)
    with pytest.raises(ModuleFileError, match=r"several sections \.modinfo"):
        ModuleFile.open(path)


def test_a_name_that_is_not_the_kernels(build_module: Build) -> None:
    """The kernel takes a module's name from its struct module, not from modinfo."""
    assert ModuleFile.open(build_module("same", extra=THIS_MODULE % "same")).name == "same"
    with pytest.raises(ModuleFileError, match="its modinfo names it 'nice', and the kernel would name it b'evil'"):
        ModuleFile.open(build_module("nice", extra=THIS_MODULE % "evil"))
