# SPDX-License-Identifier: MIT
"""Who blocks a transition, among very many threads: klpctl's dump against a scan of /proc.

Runs as root in a guest: see bench/run. Both are written in C, look for the same, and
must find the same tasks; and the same in Python, by the two backends of the library.
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from pylivepatch import Core

MODULES = Path(os.environ.get("PYLIVEPATCH_LAB_MODULES", "."))
TARGET = Path("/sys/module/plp_target/parameters")


def measure_program(program: str, way: str, rounds: int, blocking: int) -> list[float]:
    """Times of the C program, which must find as many tasks as there are."""
    done = subprocess.run([program, way, str(rounds)], check=True, capture_output=True, text=True)
    lines = [line.split() for line in done.stdout.splitlines()]
    if {int(found) for _, found in lines} != {blocking}:
        sys.exit(f"{way} found {lines}, not {blocking} tasks")
    return [float(seconds) for seconds, _ in lines]


def measure(call: Callable[[], list[object]], rounds: int) -> list[float]:
    """Times of a call."""
    times = []
    for _ in range(rounds):
        start = time.monotonic()
        call()
        times.append(time.monotonic() - start)
    return times


def main() -> int:
    """Measure, print a table, and fail when the ratio is too small."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("program")
    parser.add_argument("--threads", type=int, default=5000)
    parser.add_argument("--blocking", type=int, default=500)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--at-least", type=float, default=0.0, metavar="RATIO")
    options = parser.parse_args()

    subprocess.run(["insmod", MODULES / "plp_target.ko"], check=True)
    (TARGET / "hold").write_text("Y")
    command = [options.program, "threads", str(options.threads), str(options.blocking)]
    with (
        Core("klpctl") as core,
        Core("sysfs") as plain,
        subprocess.Popen(command, stdout=subprocess.PIPE) as threads,
    ):
        assert threads.stdout is not None
        threads.stdout.readline()
        while int((TARGET / "sleepers").read_text()) != options.blocking:
            time.sleep(0.1)
        patch = core.load(MODULES / "plp_hold.ko")
        transition = patch.enable(timeout=None, wait=False)
        while transition.progress().pending != options.blocking:
            time.sleep(0.1)

        ways = {
            "klpctl, one dump, in C": measure_program(options.program, "dump", options.rounds, options.blocking),
            "scan of /proc, in C": measure_program(options.program, "scan", options.rounds, options.blocking),
            "klpctl, `Core.blockers()`": measure(core.blockers, options.rounds),  # type: ignore[arg-type]
            "sysfs, `Core.blockers()`": measure(plain.blockers, 3),  # type: ignore[arg-type]
        }
        transition.reverse()
        transition.wait()
        patch.unload()
        (TARGET / "hold").write_text("N")
        threads.kill()

    base = statistics.median(ways["klpctl, one dump, in C"])
    print(f"\n### Linux {platform.release()}: {options.threads} threads, {options.blocking} block\n")
    print("| way | median | ratio |\n| --- | ---: | ---: |")
    for way, times in ways.items():
        median = statistics.median(times)
        print(f"| {way} | {median * 1000:.0f} ms | {median / base:.1f} |")
    ratio = statistics.median(ways["scan of /proc, in C"]) / base
    return int(ratio < options.at_least)


if __name__ == "__main__":
    sys.exit(main())
