# SPDX-License-Identifier: MIT
"""Enable and revert a patch very often, in a guest: nothing grows.

soak.py CYCLES
"""

from __future__ import annotations

import resource
import subprocess
import sys
import threading
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "vm/guest"))
from stress import MODULES, KernelLog, clean_up, insmod, leaks

from pylivepatch import Core

WARM = 0.1
"""Of the cycles, before the first count."""


def slabs() -> dict[str, int]:
    """Bytes of active objects in each slab cache."""
    found = {}
    for line in Path("/proc/slabinfo").read_text().splitlines()[2:]:
        name, active, _, size, *_ = line.split()
        found[name] = int(active) * int(size)
    return found


def counts() -> dict[str, int]:
    """What must not grow."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return {
        "descriptors": sum(1 for _ in Path("/proc/self/fd").iterdir()),
        "resident KiB": pages * resource.getpagesize() // 1024,
        "references of klpctl": int(Path("/sys/module/klpctl/refcnt").read_text()),
        "references of the patch": int(Path("/sys/module/plp_cmdline/refcnt").read_text()),
        "threads": threading.active_count(),
    }


def main() -> int:
    """Do it, with listeners and a reader of what is patched beside it."""
    cycles = int(sys.argv[1])
    log = KernelLog()
    assert insmod("klpctl") == 0
    stop = threading.Event()

    def load() -> None:
        while not stop.is_set():
            Path("/proc/cmdline").read_text()
            time.sleep(0.001)

    reader = threading.Thread(target=load)
    with Core("klpctl") as core, core.monitor() as monitor:
        reader.start()
        patch = core.load(MODULES / "plp_cmdline.ko")
        before: dict[str, int] = {}
        slab_before: dict[str, int] = {}
        begun = time.monotonic()
        for cycle in range(cycles):
            if cycle == int(cycles * WARM):
                before, slab_before = counts(), slabs()
            patch.enable()
            patch.revert()
            while monitor.read(timeout=0) is not None:
                pass
            if cycle % 1000 == 0:
                log.read()
                print(f"{cycle} cycles, {time.monotonic() - begun:.0f} s, {counts()}", flush=True)
        time.sleep(2)
        after, slab_after = counts(), slabs()
        lost = monitor.lost
        stop.set()
        reader.join()
        patch.unload()
    measured = cycles - int(cycles * WARM)
    # A leak of 16 bytes in each cycle, or of a page of Python's in hundreds.
    grown = {name: slab_after[name] - slab_before.get(name, 0) for name in slab_after}
    bad = [f"slab {name} has grown by {size} bytes" for name, size in grown.items() if size > 16 * measured + 65536]
    for name, value in after.items():
        if value > before[name] + (4096 if name == "resident KiB" else 0):
            bad.append(f"{name}: {before[name]}, then {value}")
    clean_up()
    found = leaks()
    log.read()
    print(*bad, *log.bad, found, sep="\n")
    print(f"{cycles} cycles: {lost} events lost, {len(bad)} things have grown, {len(log.bad)} lines in the kernel log")
    return int(bool(bad or log.bad or found))


if __name__ == "__main__":
    subprocess.run(["mount", "-t", "debugfs", "none", "/sys/kernel/debug"], check=False, capture_output=True)
    sys.exit(main())
