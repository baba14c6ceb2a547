# SPDX-License-Identifier: MIT
"""What the guest starts with: busybox, the drivers of its root, and the first script."""

from __future__ import annotations

import lzma
from collections.abc import Mapping
from pathlib import Path

from pylivepatch.lab import cache, cpio, tools
from pylivepatch.lab.errors import LabError
from pylivepatch.lab.image import Image
from pylivepatch.lab.kernel import Kernel

DRIVERS = ("virtio_pci", "virtio_blk", "virtio_console", "crc32c_generic", "ext4", "virtiofs")
"""Modules that must be loaded, or built in, before the root is switched."""

OPTIONAL = frozenset({"crc32c_generic"})

INIT = """#!/bin/busybox sh
bb=/bin/busybox
$bb mount -t devtmpfs devtmpfs /dev
$bb mount -t proc proc /proc
$bb mount -t sysfs sysfs /sys
while read -r module; do $bb insmod "/drivers/$module" || echo "lab: cannot load $module"; done </drivers/order
tries=0
until [ -b /dev/vda ] || [ $tries = 50 ]; do $bb usleep 100000; tries=$((tries + 1)); done
$bb mount -t ext4 -o noatime /dev/vda /root || { echo "lab: no root file system"; $bb poweroff -f; }
$bb mount -t tmpfs -o mode=755 tmpfs /root/run
$bb mkdir /root/run/lab
$bb cp -a /lab/. /root/run/lab/
$bb cp /bin/busybox /root/run/lab/busybox
for place in dev proc sys; do $bb mount --move /$place /root/$place; done
exec $bb switch_root /root /run/lab/busybox sh /run/lab/start
"""


def parse_dep(text: str) -> dict[str, tuple[str, list[str]]]:
    """Return module name to file and the files it needs, from the text of modules.dep."""
    found: dict[str, tuple[str, list[str]]] = {}
    for line in text.splitlines():
        path, colon, needs = line.partition(":")
        if colon:
            found[module_name(path)] = (path, needs.split())
    return found


def module_name(path: str) -> str:
    """Return the kernel's name of the module file *path*."""
    return path.rpartition("/")[2].partition(".ko")[0].replace("-", "_")


def load_order(dependencies: Mapping[str, tuple[str, list[str]]], wanted: tuple[str, ...]) -> list[str]:
    """Return the files to load for *wanted*, each after what it needs; names not listed are left out."""
    order: list[str] = []

    def add(name: str) -> None:
        path, needs = dependencies[name]
        if path in order:
            return
        for need in reversed(needs):
            add(module_name(need))
        order.append(path)

    for name in wanted:
        if name in dependencies:
            add(name)
    return order


def plain(path: Path) -> bytes:
    """Return the module file *path*, uncompressed."""
    data = path.read_bytes()
    if path.suffix == ".xz":
        return lzma.decompress(data)
    if path.suffix == ".zst":
        return tools.call(["zstd", "-dcq"], what=f"unpacking {path.name}", data=data)
    return data


def _fill(kernel: Kernel, image: Image, into: Path) -> None:
    modules = kernel.modules
    dependencies = parse_dep((modules / "modules.dep").read_text())
    builtin = {module_name(line) for line in (modules / "modules.builtin").read_text().splitlines()}
    for name in DRIVERS:
        if name not in dependencies and name not in builtin and name not in OPTIONAL:
            raise LabError(f"kernel {kernel.release} has no {name}: the lab cannot boot it")
    archive = cpio.Archive()
    for folder in ("dev", "proc", "sys", "root", "lab"):
        archive.folder(folder)
    archive.device("dev/console", 5, 1)
    archive.file("bin/busybox", image.busybox.read_bytes(), 0o755)
    order = load_order(dependencies, DRIVERS)
    for path in order:
        archive.file(f"drivers/{module_name(path)}.ko", plain(modules / path))
    archive.file("drivers/order", "".join(f"{module_name(path)}.ko\n" for path in order).encode())
    archive.file("init", INIT.encode(), 0o755)
    (into / "initramfs").write_bytes(archive.data())


def resolve(kernel: Kernel, image: Image) -> Path:
    """Return the initramfs that boots *kernel* on *image*; the run's own archive goes behind it."""
    key = f"{kernel.path.name}_{image.key}_{cache.digest([INIT, *DRIVERS])}"
    entry = cache.entry("initramfs", key, lambda into: _fill(kernel, image, into), check=("initramfs",))
    return entry / "initramfs"
