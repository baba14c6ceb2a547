# SPDX-License-Identifier: MIT
"""Whether KVM can be trusted here: only a boot tells.

/dev/kvm may exist and open, and a guest may hang in it all the same (nested virtualization that is
offered and does not work). So KVM is used only after a short bounded boot; the answer is kept until
the host boots again.
"""

from __future__ import annotations

import json
import mmap
import os
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

from pylivepatch.lab import cache, cpio, tools

TCG = "tcg,thread=multi"
TCG_ONE_THREAD = "tcg,thread=single"
LIMIT = 8.0
"""Seconds that the trial boot may take; it takes about one where KVM works."""

_REWRITES = b"\0__klp_sched_try_switch\0"
"""Name of a function, as the kernel's BTF has it."""

PROOF = b"kvm-is-fine"
_INIT = """#!/bin/busybox sh
/bin/busybox mount -t devtmpfs devtmpfs /dev
echo kvm-is-fine >/dev/ttyS0
/bin/busybox sleep 1
/bin/busybox poweroff -f
"""


def machine(accel: str) -> list[str]:
    """Return QEMU's arguments for the machine and its CPU under *accel*."""
    cpu = "host" if accel == "kvm" else "max,la57=off"
    return ["-accel", accel, "-cpu", cpu, "-nodefaults", "-display", "none", "-no-reboot", "-no-user-config"]


def for_kernel(accel: str, vmlinux: Path) -> str:
    """Return *accel*, or what emulates the kernel in *vmlinux* reliably.

    Where the scheduler switches tasks, too (6.4, e3ff7c609f39), a livepatch transition rewrites code of it, and up to
    7.0 each call of cond_resched(), while other CPUs run. Emulated CPUs in threads of their own now and then miss
    such a rewriting, and the guest dies of an int3; in turns in one thread they do not.
    """
    if accel != TCG:
        return accel
    with vmlinux.open("rb") as file, mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) as image:
        return TCG if image.find(_REWRITES) < 0 else TCG_ONE_THREAD


def _boot(argv: Sequence[str]) -> bool:
    """Return whether the QEMU command *argv* says `PROOF` within `LIMIT` seconds."""
    try:
        done = subprocess.run(argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
                              timeout=LIMIT, check=False)
    except subprocess.TimeoutExpired as late:
        return PROOF in (late.stdout or b"")
    return PROOF in done.stdout


def choose(vmlinux: Path, busybox: Path) -> str:
    """Return the accelerator to use, "kvm" or `TCG`.

    The environment variable `PYLIVEPATCH_LAB_ACCEL` decides if it is set.

    Args:
        vmlinux: A kernel for the trial boot.
        busybox: A static busybox for it.
    """
    if forced := os.environ.get("PYLIVEPATCH_LAB_ACCEL"):
        return TCG if forced == "tcg" else forced
    if not os.access("/dev/kvm", os.R_OK | os.W_OK):
        return TCG
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    memo = cache.root() / "accel.json"
    with cache.lock("accel"):
        try:
            known = json.loads(memo.read_text())
            if known["boot"] == boot:
                return str(known["accel"])
        except (OSError, ValueError, KeyError, TypeError):
            pass
        cache.say("trying whether KVM works here (once per boot of this machine)")
        trial = cpio.Archive()
        for folder in ("dev", "proc", "sys"):
            trial.folder(folder)
        trial.device("dev/console", 5, 1)
        trial.file("bin/busybox", busybox.read_bytes(), 0o755)
        trial.file("init", _INIT.encode(), 0o755)
        with tempfile.NamedTemporaryFile(prefix="pylivepatch-lab-") as file:
            file.write(trial.data())
            file.flush()
            works = _boot([tools.find("qemu-system-x86_64"), *machine("kvm"), "-M", "pc", "-m", "256",
                           "-kernel", str(vmlinux), "-initrd", file.name, "-serial", "stdio",
                           "-append", "console=ttyS0 quiet panic=-1"])
        accel = "kvm" if works else TCG
        fresh = memo.with_suffix(".new")
        fresh.write_text(json.dumps({"boot": boot, "accel": accel}))
        fresh.rename(memo)
    return accel
