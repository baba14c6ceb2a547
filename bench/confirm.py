# SPDX-License-Identifier: MIT
"""How long an unconfirmed patch outlives its owner, or its window; runs in a guest with the test payloads.

The kernel has to be back to unpatched within two seconds. The time counts from just before kill(2), or from the end
of the window, until the livepatch core has let go of the patch.
"""

from __future__ import annotations

import argparse
import os
import signal
import statistics
import subprocess
import sys
import time
from pathlib import Path

from pylivepatch import Core, PatchState

PATCH = "plp_cmdline"
HELD = "plp_hold"
WINDOW = 2.0
LIMIT = 2.0
TICK = 0.002

OWNER = """
import sys, time
from pylivepatch import Core
when, name, window = sys.argv[1:]
with Core("klpctl") as core:
    patch = core[name]
    if when != "before the start":
        patch.enable(timeout=None, wait=when != "in mid-transition", confirm_within=float(window), owned=True)
    print("ready", flush=True)
    time.sleep(600)
"""


def unpatched(name: str) -> bool:
    """Tell whether the livepatch core has let go of the patch, as sysfs shows it."""
    return not Path("/sys/kernel/livepatch", name).exists()


def until_unpatched(name: str, start: float) -> float:
    """Return the seconds from *start* until the kernel is back to unpatched."""
    while not unpatched(name):
        if time.monotonic() - start > 60:
            raise TimeoutError(f"{name} is still there after 60 s")
        time.sleep(TICK)
    return time.monotonic() - start


def killed(when: str, name: str, window: float) -> float:
    """Kill the owner of a patch at some point; return the seconds until the kernel is back."""
    argv = [sys.executable, "-c", OWNER, when, name, str(window)]
    process = subprocess.Popen(argv, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    if when == "in mid-transition":
        assert Path("/sys/kernel/livepatch", name, "transition").read_text() == "1\n"
    elif when != "before the start":
        assert Path("/sys/kernel/livepatch", name, "enabled").read_text() == "1\n"
    start = time.monotonic()
    process.send_signal(signal.SIGKILL)
    took = until_unpatched(name, start)
    process.wait()
    process.stdout.close()
    return took


def expired(core: Core) -> float:
    """Let the window end; return the seconds from its end until the kernel is back."""
    patch = core[PATCH]
    start = time.monotonic()
    patch.enable(timeout=None, wait=False, confirm_within=WINDOW)
    return max(until_unpatched(PATCH, start + WINDOW), 0.0)


def main() -> int:
    """Measure each case, and print the rows of the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=10)
    options = parser.parse_args()
    modules = Path(os.environ["PYLIVEPATCH_LAB_MODULES"])
    worst = 0.0
    subprocess.run(["modprobe", "klpctl"], check=True)
    with Core("klpctl") as core:
        core.load(modules / f"{PATCH}.ko")
        subprocess.run(["insmod", modules / "plp_target.ko", "hold=1"], check=True)
        core.load(modules / f"{HELD}.ko")
        # a task that sleeps in the function that plp_hold replaces: its transition does not end
        sleeper = subprocess.Popen(["sh", "-c", "exec echo x >/proc/plp_target"])
        while Path("/sys/module/plp_target/parameters/sleepers").read_text().strip() != "1":
            time.sleep(TICK)
        cases = (
            ("kill -9 before the start", lambda: killed("before the start", PATCH, 60)),
            ("kill -9 in mid-transition", lambda: killed("in mid-transition", HELD, 60)),
            ("kill -9 after completion, no end of the window", lambda: killed("after completion", PATCH, float("inf"))),
            ("kill -9 after completion, before the confirmation", lambda: killed("before the confirmation", PATCH, 60)),
            ("end of the window", lambda: expired(core)),
        )
        print(f"| {os.uname().release}, {os.cpu_count()} CPUs, {options.rounds} rounds | median | longest |")
        print("| --- | --- | --- |")
        for name, measure in cases:
            times = [measure() for _ in range(options.rounds)]
            worst = max(worst, *times)
            print(f"| {name} | {statistics.median(times):.3f} s | {max(times):.3f} s |", flush=True)
            assert all(patch.state in (PatchState.REGISTERED, PatchState.DISABLED) for patch in core.patches())
        Path("/sys/module/plp_target/parameters/hold").write_text("N")
        sleeper.wait(20)
        for patch in reversed(core.patches()):
            patch.unload()
        subprocess.run(["rmmod", "plp_target"], check=True)
    return 1 if worst > LIMIT else 0


if __name__ == "__main__":
    sys.exit(main())
