# SPDX-License-Identifier: MIT
"""The idle task of another CPU is the usual first blocker: it is named. Needs two CPUs."""

from __future__ import annotations

import os
from pathlib import Path

from pylivepatch import Core, Reason

MODULES = Path(os.environ["PYLIVEPATCH_LAB_MODULES"])
ROUNDS = 20

with Core("klpctl") as core:
    Path("/sys/module/klpctl/parameters/fast_completion").write_text("N")
    patch = core.load(MODULES / "plp_cmdline.ko")
    found = []
    for _ in range(ROUNDS):
        transition = patch.enable(timeout=None, wait=False)
        found += [blocker for blocker in transition.blockers if blocker.cpu is not None]
        transition.wait()
        patch.revert()
        if found:
            break
    patch.unload()

assert found, f"no idle task in {ROUNDS} transitions"
assert found[0].reason in (Reason.RUNNING, Reason.UNKNOWN), found[0]
assert found[0].comm == f"swapper/{found[0].cpu}", found[0]
assert str(found[0]).startswith("idle task of CPU "), found[0]
