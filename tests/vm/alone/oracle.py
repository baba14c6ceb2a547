# SPDX-License-Identifier: MIT
"""Compare patched modules with edited ones, call by call. Arguments: the directory of all, and a file for results.

For each group of sources, three worlds. The edited module, built the ordinary way, says what is expected of new code;
the original says what is expected of old code; and the original is patched, reverted, patched once more. State is
set by the key of a reset, so that what is expected is exact: in the patched world the reset is done by the old code,
before the patch. What is new begins fresh in both.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any, TextIO

from pylivepatch import Core

sys.path.insert(0, str(Path(__file__).parents[1] / "guest"))

from conftest import KernelLog

SECONDS = 120.0
PROC = Path("/proc/oracle")

Unit = dict[str, Any]


class DiffersError(Exception):
    """A call whose result is not the expected one."""


class World:
    """A group's module, loaded."""

    def __init__(self, group: dict[str, Any], file: Path) -> None:
        self.group, self.name = group, group["module"]
        subprocess.run(["insmod", str(file)], check=True)

    def remove(self) -> None:
        """Unload it."""
        subprocess.run(["rmmod", self.name], check=True)

    def reset(self, key: int, units: list[Unit] | None = None) -> None:
        """Set all state of the sources."""
        for unit in self.group["units"] if units is None else units:
            PROC.write_text(f"reset {self.name} {unit['name']} {key + int(unit['seed']):x}")

    def run(self, seed: int) -> list[list[str]]:
        """Call the entries of all sources, and return the results of each."""
        found = []
        for unit in self.group["units"]:
            PROC.write_text(f"run {self.name} {unit['name']} {seed + int(unit['seed']):x} {self.group['calls']}")
            found.append(PROC.read_text().split())
        return found

    def compare(self, when: str, seed: int, expected: list[list[str]]) -> None:
        """Call as before, and look at each result."""
        wrong = []
        for unit, got, wanted in zip(self.group["units"], self.run(seed), expected, strict=True):
            at = next((number for number, (a, b) in enumerate(zip(got, wanted, strict=True)) if a != b), None)
            if at is not None:
                wrong.append(f"{unit['name']}: {when}: call {at} gives {got[at]} instead of {wanted[at]}")
        if wrong:
            raise DiffersError("\n".join(wrong))


def compared(core: Core, folder: Path, group: dict[str, Any]) -> None:
    """Put one group through its three worlds."""
    log = KernelLog()
    name, file = group["name"], f"{group['module']}.ko"
    expected = []
    for number in (1, 4):
        world = World(group, folder / "after" / name / file)
        world.reset(number)
        expected.append(world.run(100 * number))
        world.remove()
    new, newer = expected

    units = group["units"]
    world = World(group, folder / "before" / name / file)
    world.reset(3)
    old = world.run(300)
    world.run(700)
    world.reset(3)
    world.compare("a reset leaves something behind", 300, old)
    if not group["patched"]:
        world.reset(1)
        world.compare("not patched", 100, new)
        world.remove()
        return
    patch = core.load(folder / f"plp_{name}.ko")
    try:
        world.reset(3)
        world.compare("loaded, and not enabled", 300, old)
        world.reset(1)
        patch.enable(timeout=SECONDS)
        world.reset(1, [unit for unit in units if not unit["keeps"]])
        world.compare("enabled", 100, new)
        world.reset(3)
        patch.revert(timeout=SECONDS)
        world.reset(3, [unit for unit in units if not unit["returns"]])
        world.compare("reverted", 300, old)
        patch.unload()  # its own state goes with it
        patch = core.load(folder / f"plp_{name}.ko")
        patch.enable(timeout=SECONDS)
        world.reset(4)
        world.compare("enabled again", 400, newer)
    finally:
        patch.revert(timeout=SECONDS)
        patch.unload()
        world.remove()
    log.check()


def record(file: TextIO, **facts: object) -> None:
    """Write one line, and see that it reaches the host."""
    file.write(json.dumps(facts) + "\n")
    file.flush()
    os.fsync(file.fileno())


def main(folder: Path, results: Path) -> None:
    """Compare all groups that have no result yet."""
    os.sched_setaffinity(0, {0})
    subprocess.run(["modprobe", "klpctl"], check=True)
    subprocess.run(["insmod", str(folder / "oracle.ko")], check=True)
    with Core() as core, results.open("a") as file:
        for group in json.loads((folder / "plan.json").read_text()):
            record(file, group=group["name"], outcome="begun")
            outcome = "same"
            try:
                compared(core, folder, group)
            except DiffersError as error:
                outcome = str(error)
            except AssertionError as error:
                outcome = f"log: {error}"
            record(file, group=group["name"], outcome=outcome)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
