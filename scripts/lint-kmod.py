# SPDX-License-Identifier: MIT
"""Build kmod/ with W=1 under sparse for each series of kernels: it must have nothing to say."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

from pylivepatch.lab import kernel, module

TOP = Path(__file__).parents[1]


def check(series: str) -> list[str]:
    """Return what compiler and sparse say of our files; the kernel's headers are its own matter."""
    target = kernel.resolve(series)
    work = TOP / "build/lint" / target.release
    shutil.rmtree(work, ignore_errors=True)
    for source in module.sources(TOP / "kmod"):
        copy = work / source.relative_to(TOP / "kmod")
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(source, copy)
    command = ["make", "-C", module.headers(target), f"M={work}", "W=1", "C=2", f"-j{os.cpu_count()}", "modules"]
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL, env=os.environ | {"LC_ALL": "C"}
    )
    said = (done.stdout + done.stderr).splitlines()
    ours = [line for line in said if line.startswith(str(work)) and ": " in line]
    if not list(work.glob("*.ko")) or sum("CHECK" in line for line in said) == 0:
        ours.extend(said[-25:])
        ours.append("no module came out of it, or sparse did not run")
    print(f"kmod for {target.release}: {len(ours)} complaints")
    return ours


def main() -> int:
    """Check the series that the command line names."""
    complaints = [line for series in sys.argv[1:] for line in check(series)]
    print(*complaints, sep="\n", end="\n" if complaints else "")
    return bool(complaints) or len(sys.argv) < 2


if __name__ == "__main__":
    sys.exit(main())
