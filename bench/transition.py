# SPDX-License-Identifier: MIT
"""How long a transition takes: with klpctl, without it, and the way shell tools do it.

Runs as root in an idle guest: see bench/run. The ways take turns, and klpctl is removed for
those without it. Pauses of random length keep the measurements from falling into step with
the livepatch core, which retries on whole seconds.

Three times are taken of each transition. "switched" and "ended" are the kernel's own, from
the start of the transition until its last task has switched, and until the livepatch core
has done with it; they come from trace events, which are there without klpctl, too. "call"
is what the caller waits, loading and all.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import re
import statistics
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Self

from pylivepatch import Core, Patch

MODULES = Path(os.environ.get("PYLIVEPATCH_LAB_MODULES", "."))
PAYLOAD = MODULES / "plp_cmdline.ko"
FOREIGN = MODULES / "plp_foreign.ko"
SYSFS = Path("/sys/kernel/livepatch") / FOREIGN.stem
FAST = Path("/sys/module/klpctl/parameters/fast_completion")
FINE = 0.002

# What `kpatch load` and `kpatch unload` do, without their checks of other things.
SHELL_LOAD = f"""
insmod {FOREIGN}
while [ "$(cat {SYSFS}/transition 2>/dev/null)" = 1 ]; do sleep 1; done
"""
SHELL_UNLOAD = f"""
echo 0 >{SYSFS}/enabled
while [ -e {SYSFS} ]; do sleep 1; done
"""


KLPCTL = "klpctl: a registered patch"
SLOW = "the same, `fast_completion=0`"
KLPCTL_FOREIGN = "klpctl: an ordinary livepatch module"
STOCK = "without klpctl: its module loaded, sysfs read every 2 ms"
SHELL = "without klpctl: in shell as kpatch does, sysfs read once a second"
WAYS = (KLPCTL, SLOW, KLPCTL_FOREIGN, STOCK, SHELL)

CLOCKS = ("switched", "ended", "call")
Times = dict[tuple[str, str, str], list[float]]


class Trace:
    """Trace events at the start and at the end of transitions."""

    ROOT = Path("/sys/kernel/tracing")
    EVENTS = (
        "p:bench/started klp_start_transition",
        "p:bench/switched klp_complete_transition",
        "r:bench/ended klp_complete_transition",
    )

    def __enter__(self) -> Self:
        (self.ROOT / "trace_clock").write_text("mono")
        (self.ROOT / "kprobe_events").write_text("".join(f"{event}\n" for event in self.EVENTS))
        (self.ROOT / "events/bench/enable").write_text("1")
        return self

    def __exit__(self, *exc: object) -> None:
        (self.ROOT / "events/bench/enable").write_text("0")
        (self.ROOT / "kprobe_events").write_text("")

    def clear(self) -> None:
        """Forget what has happened."""
        (self.ROOT / "trace").write_text("")

    def read(self) -> dict[str, float]:
        """The time of each event since then, in seconds."""
        text = (self.ROOT / "trace").read_text()
        return {name: float(time) for time, name in re.findall(r" (\d+\.\d+): (\w+): ", text)}


class Bench:
    """The measurements, by way, direction ("enable", "revert") and clock."""

    def __init__(self, count: int, trace: Trace) -> None:
        self.count = count
        self.times: Times = defaultdict(list)
        self._trace = trace
        self._random = random.Random(1)

    def measure(self, way: str, direction: str, action: Callable[[], object]) -> None:
        """Take the times of one transition."""
        # The machine is idle for a moment of no particular length.
        time.sleep(0.1 + self._random.random())
        self._trace.clear()
        begun = time.monotonic()
        action()
        self.times[way, direction, "call"].append(time.monotonic() - begun)
        seen = self._trace.read()
        for clock in ("switched", "ended"):
            self.times[way, direction, clock].append(seen[clock] - seen["started"])

    def all(self) -> None:
        """Measure all ways in turn, so that whatever else the machine does meets them alike."""
        for number in range(self.count):
            run("modprobe", "-q", "-r", "klpctl")
            self._peers()
            run("modprobe", "klpctl")
            with Core("klpctl") as core:
                self._klpctl(core)
            print(f"{number + 1} of {self.count}", file=sys.stderr, flush=True)

    def _peers(self) -> None:
        self.measure(STOCK, "enable", stock_load)
        self.measure(STOCK, "revert", stock_unload)
        run("rmmod", FOREIGN.stem)
        self.measure(SHELL, "enable", lambda: run("/bin/sh", "-c", SHELL_LOAD))
        self.measure(SHELL, "revert", lambda: run("/bin/sh", "-c", SHELL_UNLOAD))
        run("rmmod", FOREIGN.stem)

    def _klpctl(self, core: Core) -> None:
        patch = core.load(PAYLOAD)
        for way in (KLPCTL, SLOW):
            FAST.write_text("1" if way is KLPCTL else "0")
            self.measure(way, "enable", patch.enable)
            self.measure(way, "revert", patch.revert)
        patch.unload()
        FAST.write_text("1")
        self.measure(KLPCTL_FOREIGN, "enable", lambda: load_foreign(core))
        foreign = core.patch(FOREIGN.stem)
        self.measure(KLPCTL_FOREIGN, "revert", foreign.revert)
        foreign.unload()


def run(*words: str | Path) -> None:
    """Run a command that must succeed."""
    subprocess.run(words, check=True)


def stock_load() -> None:
    """Load a livepatch module, and wait for its transition."""
    run("insmod", FOREIGN)
    while (SYSFS / "transition").read_text().strip() == "1":
        time.sleep(FINE)


def stock_unload() -> None:
    """Disable a livepatch, and wait until the core has forgotten it."""
    (SYSFS / "enabled").write_text("0")
    while SYSFS.exists():
        time.sleep(FINE)


def load_foreign(core: Core) -> Patch:
    """Load a livepatch module, and wait for its transition."""
    patch = core.load(FOREIGN)
    transition = patch.transition
    if transition is not None:
        transition.wait()
    return patch


def table(times: Times, direction: str) -> str:
    """The medians of one direction as a Markdown table, with ratios to the first way."""
    lines = [
        f"| {direction} | switched | ratio | ended | ratio | call | ratio |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for way in WAYS:
        cells = [way]
        for clock in CLOCKS:
            cells.append(f"{statistics.median(times[way, direction, clock]) * 1000:.0f} ms")
            cells.append(f"{ratio(times, way, direction, clock):.1f}")
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def ratio(times: Times, way: str, direction: str, clock: str) -> float:
    """How many times longer a way takes than the first one, at the medians."""
    ours, first = (statistics.median(times[each, direction, clock]) for each in (way, KLPCTL))
    return ours / first


def main() -> int:
    """Measure, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=20, help="transitions of each kind")
    parser.add_argument("--json", type=Path, help="file for all that was measured, in seconds")
    parser.add_argument("--at-least", type=float, help="fail if fast completion gains less")
    options = parser.parse_args()

    with Trace() as trace:
        bench = Bench(options.count, trace)
        bench.all()

    print(f"\nLinux {platform.release()}, {os.cpu_count()} CPUs, medians of {options.count}\n")
    for direction in ("enable", "revert"):
        print(f"{table(bench.times, direction)}\n")
    gain = min(ratio(bench.times, SLOW, way, "switched") for way in ("enable", "revert"))
    print(f"fast completion: {gain:.1f} times shorter at least, until the last task has switched")
    sys.stdout.flush()
    if options.json:
        data = {" / ".join(key): values for key, values in bench.times.items()}
        options.json.write_text(json.dumps(data, indent=1))
    if options.at_least and gain < options.at_least:
        print(f"at least {options.at_least:g} was asked for")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
