# SPDX-License-Identifier: MIT
"""Load, enable, revert and unload patch modules, one after the other; runs as root in a guest.

Reads a list of module files, one a line, and adds JSON objects to a second file, each on a line: what it is at, and
how it ended. When the guest dies, the last one says over what.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import TextIO

from pylivepatch import Core, LivepatchError, PatchInfo, PatchState, TransitionTimeoutError

WARNING = 4
HARMLESS = re.compile(
    r"taints kernel|tainting kernel|module verification failed|TAINT_LIVEPATCH"
    r"|hrtimer: interrupt took|clocksource: |systemd-udevd|workqueue: .* hogged CPU|perf: interrupt took too long"
)
SYSFS = Path("/sys/kernel/livepatch")


class Log:
    """The kernel log, read on from where it was."""

    def __init__(self) -> None:
        self._file = os.open("/dev/kmsg", os.O_RDONLY | os.O_NONBLOCK)
        os.lseek(self._file, 0, os.SEEK_END)

    def warnings(self) -> list[str]:
        """What was said since the last call that is a warning at least, other than about taint and slow clocks."""
        found: list[str] = []
        while True:
            try:
                head, _, text = os.read(self._file, 8192).decode(errors="replace").partition(";")
            except BlockingIOError:
                return found
            except BrokenPipeError:
                continue
            text = text.split("\n")[0]
            if int(head.split(",")[0]) & 7 <= WARNING and not HARMLESS.search(text):
                found.append(text)


def modprobe(name: str, *, settle: float) -> bool:
    """Load a module that a patch changes, where it loads without its hardware."""
    if Path("/sys/module", name).exists():
        return True
    try:
        done = subprocess.run(["modprobe", "-q", name], check=False, timeout=120, capture_output=True)
    except subprocess.TimeoutExpired:
        return False
    subprocess.run(["udevadm", "settle", "--timeout=30"], check=False)
    time.sleep(settle)  # probes that run in the background have their say
    return done.returncode == 0 and Path("/sys/module", name).exists()


class Trial:
    """One patch module through its life; `outcome` is "ok", or the step that failed."""

    def __init__(self, core: Core, log: Log, path: Path) -> None:
        self.core, self.log, self.path = core, log, path
        self.outcome, self.message = "ok", ""
        self.seconds: dict[str, float] = {}
        self.loaded: list[str] = []
        self.absent: list[str] = []
        self.log_lines: list[str] = []
        self._begun = time.monotonic()

    def load_targets(self) -> None:
        """Load the modules that the patch changes; what those say is not the patch's doing."""
        for part in PatchInfo.open(self.path).objects or ():
            if part.name != "vmlinux":
                (self.loaded if modprobe(part.name, settle=0.2) else self.absent).append(part.name)
        self.log.warnings()

    def run(self) -> None:
        """Do it all; stops at the first step that fails, and puts things back as far as they go."""
        info = PatchInfo.open(self.path)
        self._begun = time.monotonic()
        step = "load"
        try:
            patch = self.core.load(self.path)
            self._done(step)
            step = "enable"
            patch.enable(timeout=60)
            self._done(step)
            self._look(info)
            step = "revert"
            patch.revert(timeout=60)
            self._done(step)
            step = "unload"
            patch.unload()
            self._done(step)
        except TransitionTimeoutError as error:
            self._failed("blocked" if step == "enable" else step, error)
            self.message += "".join(f"; {each}" for each in error.blockers[:3])
        except (LivepatchError, OSError, ValueError) as error:
            self._failed(step, error)
        if self.outcome != "ok":
            self._put_back()
        self.log_lines = self.log.warnings()
        if self.log_lines and self.outcome == "ok":
            self.outcome = "log"

    def _done(self, step: str) -> None:
        now = time.monotonic()
        self.seconds[step], self._begun = round(now - self._begun, 3), now

    def _look(self, info: PatchInfo) -> None:
        """See that the livepatch core has patched every object that is there."""
        for part in info.objects or ():
            there = part.name == "vmlinux" or part.name in self.loaded
            if there and (SYSFS / info.name / part.name / "patched").read_text().strip() != "1":
                raise ValueError(f"{part.name} is loaded, and not patched")

    def _failed(self, step: str, error: Exception) -> None:
        if self.outcome == "ok":
            self.outcome, self.message = step, f"{type(error).__name__}: {error}"

    def _put_back(self) -> None:
        for patch in self.core.patches():
            try:
                if patch.state is PatchState.ENABLED:
                    patch.revert(timeout=60)
                patch.unload()
            except LivepatchError as error:
                self.message += f"; then {error}"


def record(file: TextIO, **facts: object) -> None:
    """Write one line, and see that it reaches the host."""
    file.write(json.dumps(facts) + "\n")
    file.flush()
    os.fsync(file.fileno())


def main() -> int:
    """Try them all; the status says nothing about them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("modules", type=Path, help="file with the paths of module files, each on a line")
    parser.add_argument("results", type=Path, help="file for the results, as JSON lines")
    parser.add_argument("--no-targets", action="store_true", help="do not load the modules that patches change")
    options = parser.parse_args()

    subprocess.run(["modprobe", "klpctl"], check=True)
    with Core("klpctl") as core, options.results.open("a") as results:
        log = Log()
        for line in options.modules.read_text().split("\n"):
            if not line:
                continue
            trial = Trial(core, log, Path(line))
            if not options.no_targets:
                record(results, module=line, outcome="targets")
                trial.load_targets()
            record(results, module=line, outcome="begun")
            trial.run()
            record(results, module=line, outcome=trial.outcome, message=trial.message, seconds=trial.seconds,
                   loaded=trial.loaded, absent=trial.absent, log=trial.log_lines)
            if core.patches():
                return 3  # one that stays would be in the way of the next: go on in another guest
    return 0


if __name__ == "__main__":
    sys.exit(main())
