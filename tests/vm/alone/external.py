# SPDX-License-Identifier: MIT
"""Patch two modules of their own source, loaded before the patch and after it. Argument: the directory of all three."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from pylivepatch import Core

sys.path.insert(0, str(Path(__file__).parents[1] / "guest"))

from conftest import KernelLog


def said() -> list[str]:
    """Ask both modules once."""
    return [Path(f"/sys/module/{name}/parameters/show").read_text().strip() for name in ("plp_own", "plp_other")]


def counts(words: list[str]) -> tuple[int, int, int]:
    """Return the count that each of them said, and the step."""
    own, other = words
    return int(own.split()[1]), int(other.split()[1].strip(",")), int(other.split()[-1])


def main(folder: Path) -> None:
    """Patch what is loaded, revert it, and patch what is loaded later."""
    log = KernelLog()
    subprocess.run(["modprobe", "klpctl"], check=True)

    def insert() -> None:
        for name in ("plp_own.ko", "plp-other.ko"):
            subprocess.run(["insmod", str(folder / name)], check=True)

    with Core() as core:
        insert()
        words = said()
        assert counts(words) == (12, 28, 2)
        assert words[0].endswith("/main.c"), "the path that it was built with is in it"
        patch = core.load(folder / "plp_external.ko")
        assert counts(said()) == (16, 36, 2), "loaded, and not enabled"
        patch.enable(timeout=60)
        assert counts(said()) == (22, 52, 3), "the new code, and the count where it was"
        patch.revert(timeout=60)
        assert counts(said()) == (28, 60, 2), "the old code, and the count where it was"
        patch.enable(timeout=60)
        assert counts(said()) == (34, 76, 3)
        patch.revert(timeout=60)
        patch.unload()
        subprocess.run(["rmmod", "plp_other", "plp_own"], check=True)

        patch = core.load(folder / "plp_external.ko")
        patch.enable(timeout=60)
        insert()
        assert counts(said()) == (14, 36, 3), "patched from the beginning"
        patch.revert(timeout=60)
        assert counts(said()) == (20, 44, 2)
        patch.unload()
        subprocess.run(["rmmod", "plp_other", "plp_own"], check=True)
    log.check()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
