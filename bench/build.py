# SPDX-License-Identifier: MIT
"""How long it takes from a diff to a module, with the prepared source absent and present.

    bench/build.py SERIES [--rounds N]

Beside it, in the same run, what the peers are made of: kbuild's compilation of the touched file and its link of a
livepatch module written by hand; and the whole kernel, of which kpatch-build needs two builds. The latter is reckoned
from a sample of the sources that this kernel is made of, compiled by the kernel's own build.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path

from pylivepatch.build import Target, build, for_series
from pylivepatch.build.compiler import Compiler
from pylivepatch.build.tree import prepare
from pylivepatch.build.units import units
from pylivepatch.lab import cache, module

TOP = Path(__file__).resolve().parents[1]
DIFF = TOP / "demo/fix_version.diff"
TOUCHED = "fs/proc/version.c"
SAMPLE = 40
"""Sources that stand for all."""


def seconds(do: Callable[[], object]) -> float:
    """Return how long something takes."""
    start = time.monotonic()
    do()
    return time.monotonic() - start


def cold(target: Target, output: Path) -> float:
    """Build with a cache that has the kernel's packages, and no source."""
    known = cache.root()
    with tempfile.TemporaryDirectory(prefix="bench-build-", dir=known) as folder:
        for path in known.iterdir():
            if path.name not in ("trees", "locks") and path != Path(folder):
                (Path(folder) / path.name).symlink_to(path)
        os.environ["PYLIVEPATCH_CACHE"] = folder
        try:
            return seconds(lambda: build([DIFF], target=target, output=output))
        finally:
            os.environ["PYLIVEPATCH_CACHE"] = str(known)


def by_hand(target: Target, work: Path) -> float:
    """Let kbuild compile the touched file, and link the demo's module, which was written by hand."""
    tree = prepare(target)
    unit = units(tree).get(TOUCHED)
    assert unit is not None
    core = module.klpctl(target.kernel)
    assert core is not None
    (tree.path / unit.goal).unlink(missing_ok=True)
    shutil.copytree(TOP / "demo/payload", work)
    argv = ["make", "-s", "-C", str(target.headers), f"M={work}", f"CC={target.compiler}",
            f"KCFLAGS=-I{core.path}/src/include", f"KBUILD_EXTRA_SYMBOLS={core.path}/src/Module.symvers", "modules"]
    box = tree.sandbox(work).seeing(core.path)

    def both() -> None:
        tree.make([unit.goal], "compiling the touched file")
        done = box.run(argv, cwd=work, what="kbuild")
        assert done.status == 0, done.output()

    return seconds(both)


def whole_kernel(target: Target) -> tuple[int, float]:
    """Return how many sources this kernel is made of, and the seconds that compiling them would take."""
    tree = prepare(target)
    every = units(tree).all()
    chosen = sorted(every, key=lambda unit: hashlib.sha256(unit.source.encode()).digest())[:SAMPLE]
    for unit in chosen:
        (tree.path / unit.goal).unlink(missing_ok=True)
    return len(every), seconds(lambda: Compiler(tree).as_built(chosen)) / len(chosen) * len(every)


def table(rows: Iterable[tuple[str, float]], unit: float) -> str:
    """Return lines of a table, with the ratio to *unit*."""
    return "".join(f"| {name} | {value:.1f} s | {value / unit:.1f} |\n" for name, value in rows)


def main() -> int:
    """Measure, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("series", help="for the newest stock kernel of this series")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--at-most", type=float, metavar="SECONDS", help="fail when a warm build takes longer")
    options = parser.parse_args()
    target = for_series(options.series)
    with tempfile.TemporaryDirectory(prefix="bench-build-") as folder:
        output = Path(folder) / "fix_version.ko"
        first = cold(target, output)
        build([DIFF], target=target, output=output)
        warm, hand = [], []
        for number in range(options.rounds):
            warm.append(seconds(lambda: build([DIFF], target=target, output=output)))
            hand.append(by_hand(target, Path(folder) / f"by-hand-{number}"))
        count, kernel = whole_kernel(target)
    unit = statistics.median(warm)
    print(f"\n| {target.release} | seconds | ratio |\n| --- | ---: | ---: |\n" + table((
        (f"diff to module, median of {options.rounds}", unit),
        ("the first time: its source fetched, unpacked and prepared, too", first),
        ("kbuild: the touched file compiled, and a module written by hand", statistics.median(hand)),
        (f"kpatch-build: two builds of {count} sources, reckoned from {SAMPLE}", 2 * kernel),
    ), unit))
    return 1 if options.at_most and unit > options.at_most else 0


if __name__ == "__main__":
    sys.exit(main())
