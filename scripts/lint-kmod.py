# SPDX-License-Identifier: MIT
"""Look at kmod/: its layers, the kernel's checkpatch, and W=1 under sparse for each series of kernels.

None of them may have anything to say.
"""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

from pylivepatch.lab import kernel, module, toolchain
from pylivepatch.lab.sandbox import Sandbox

TOP = Path(__file__).parents[1]
sys.path.insert(0, str(TOP / "tests"))

KMOD = TOP / "kmod"
# What is meant: names of the kernel's, macros of the payloads' headers, and the one look at versions.
IGNORED = (
    "ALLOC_WITH_SIZEOF", "CAMELCASE", "COMPLEX_MACRO", "CONSTANT_COMPARISON", "LINE_SPACING", "LINUX_VERSION_CODE",
    "LONG_LINE_STRING", "MACRO_ARG_REUSE", "MULTIPLE_ASSIGNMENTS", "SPACING", "UNNECESSARY_PARENTHESES",
)  # fmt: skip


def layers() -> list[str]:
    """Return the includes that lead upwards: a file uses only what stands before it in Kbuild."""
    objects = re.findall(r"(\w+)\.o\b", (KMOD / "Kbuild").read_text().partition("klpctl-y")[2])
    sources = sorted(path.stem for path in KMOD.glob("*.c"))
    found = [f"kmod/Kbuild: {name} is not built" for name in sources if name not in objects]
    for path in [*KMOD.glob("*.c"), *KMOD.glob("*.h")]:
        own = objects.index(path.stem) if path.stem in objects else 0
        names = re.findall(r'^#include "(\w+)\.h"', path.read_text(), re.MULTILINE)
        above = [name for name in names if name in objects and objects.index(name) > own]
        found += [f"{path.relative_to(TOP)}: includes {name}.h of a layer above" for name in above]
    return found


def checkpatch(series: str) -> list[str]:
    """Return what the kernel's own style checker says of our files."""
    import sources

    files = [f"scripts/{name}" for name in ("checkpatch.pl", "spelling.txt", "const_structs.checkpatch")]
    place = sources.extract(series, *files) / "scripts"
    command = ["perl", place / "checkpatch.pl", "--no-tree", "--strict", "--terse", "--no-summary", "--quiet",
               "--max-line-length=100", f"--ignore={','.join(IGNORED)}", "-f"]  # fmt: skip
    ours = sorted(path.relative_to(TOP) for path in module.sources(KMOD) if path.suffix in (".c", ".h"))
    done = subprocess.run([*command, *ours], cwd=TOP, capture_output=True, text=True, check=False)
    return [line for line in done.stdout.splitlines() if re.match(r"\S+:\d+: [A-Z]+: ", line)]


def build(series: str) -> list[str]:
    """Return what compiler and sparse say of our files; the kernel's headers are its own matter."""
    target = kernel.resolve(series)
    work = TOP / "build/lint" / target.release
    shutil.rmtree(work, ignore_errors=True)
    for source in module.sources(KMOD):
        copy = work / source.relative_to(KMOD)
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
    """Check the layers, the style, and the series that the command line names."""
    complaints = [*layers(), *checkpatch(sys.argv[-1])]
    print(f"kmod, layers and style: {len(complaints)} complaints")
    complaints += [line for series in sys.argv[1:] for line in build(series)]
    print(*complaints, sep="\n", end="\n" if complaints else "")
    return bool(complaints) or len(sys.argv) < 2


if __name__ == "__main__":
    sys.exit(main())
