# SPDX-License-Identifier: MIT
"""Which drivers are loaded, and in which order."""

from __future__ import annotations

import lzma
from pathlib import Path

from pylivepatch.lab import initramfs

DEP = """kernel/drivers/virtio/virtio_pci.ko: kernel/drivers/virtio/virtio.ko kernel/drivers/virtio/virtio_ring.ko
kernel/drivers/virtio/virtio.ko: kernel/drivers/virtio/virtio_ring.ko
kernel/drivers/virtio/virtio_ring.ko:
kernel/fs/fuse/virtiofs.ko.xz: kernel/fs/fuse/fuse.ko.xz kernel/drivers/virtio/virtio.ko
kernel/fs/fuse/fuse.ko.xz:
kernel/crypto/crc32c-generic.ko:
"""


def test_each_module_comes_after_what_it_needs() -> None:
    """The order satisfies every dependency, and lists no module twice."""
    dependencies = initramfs.parse_dep(DEP)
    order = [initramfs.module_name(path) for path in initramfs.load_order(dependencies, ("virtio_pci", "virtiofs"))]
    assert order == ["virtio_ring", "virtio", "virtio_pci", "fuse", "virtiofs"]


def test_built_in_drivers_are_left_out() -> None:
    """A name that modules.dep does not have is not loaded."""
    assert initramfs.load_order(initramfs.parse_dep(DEP), ("ext4",)) == []


def test_names_are_the_kernels() -> None:
    """Dashes in a file's name are underscores in the kernel's."""
    assert "crc32c_generic" in initramfs.parse_dep(DEP)
    assert initramfs.module_name("kernel/x/a-b.ko.xz") == "a_b"


def test_compressed_modules_are_unpacked(tmp_path: Path) -> None:
    """The guest gets plain module files, whatever the package has."""
    (tmp_path / "a.ko.xz").write_bytes(lzma.compress(b"\x7fELF"))
    (tmp_path / "b.ko").write_bytes(b"\x7fELF")
    assert initramfs.plain(tmp_path / "a.ko.xz") == initramfs.plain(tmp_path / "b.ko") == b"\x7fELF"
