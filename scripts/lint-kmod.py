# SPDX-License-Identifier: MIT
"""Build kmod/ with W=1 under sparse for each series of kernels: it must have nothing to say."""

import os
import shutil
import sys
from pathlib import Path

from pylivepatch.lab import kernel, module, toolchain
from pylivepatch.lab.sandbox import Sandbox

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
    tree = module.headers(target)
    common = next(tree.parent.glob("linux-headers-*-common"))
    # Debian's headers of 7.x lack a script without which kbuild runs no sparse
    wanted = "checker-valid.sh" in (common / "Makefile").read_text()
    sparse = not wanted or (common / "scripts/checker-valid.sh").exists()
    check = ["C=2"] if sparse else []
    command = ["make", "-C", tree, f"M={work}", "W=1", *check, f"-j{os.cpu_count()}", "modules"]
    box = Sandbox(tuple(module.around(tree)), (work,), toolchain.resolve(target).root)
    done = box.run(command, cwd=work, what="building kmod")
    said = (done.stdout + done.stderr).decode(errors="replace").splitlines()
    # from 6.13 on kbuild runs in the module's directory, and names files relative to it
    ours = [line.removeprefix(f"{work}/") for line in said
            if ": " in line and (work / line.removeprefix(f"{work}/").partition(":")[0]).is_file()]
    if not list(work.glob("*.ko")) or (sparse and sum("CHECK" in line for line in said) == 0):
        ours.extend(said[-25:])
        ours.append("no module came out of it, or sparse did not run")
    print(f"kmod for {target.release}: {len(ours)} complaints{'' if sparse else ', without sparse'}")
    return ours


def main() -> int:
    """Check the series that the command line names."""
    complaints = [line for series in sys.argv[1:] for line in check(series)]
    print(*complaints, sep="\n", end="\n" if complaints else "")
    return bool(complaints) or len(sys.argv) < 2


if __name__ == "__main__":
    sys.exit(main())
