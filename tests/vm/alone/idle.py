# SPDX-License-Identifier: MIT
"""The idle task of another CPU is the usual first blocker: it is named. Needs two CPUs."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path

from pylivepatch import Core, Reason

MODULES = Path(os.environ["PYLIVEPATCH_LAB_MODULES"])
ROUNDS = 40

with Core("klpctl") as core:
    Path("/sys/module/klpctl/parameters/fast_completion").write_text("N")
    patch = core.load(MODULES / "plp_cmdline.ko")
    found = []
    for _ in range(ROUNDS):
        # An idle task that is woken switches by itself at once: look from the start on.
        thread = threading.Thread(target=patch.enable, args=(None,))
        thread.start()
        with Core("klpctl") as other:
            while thread.is_alive():
                found += [blocker for blocker in other.blockers() if blocker.cpu is not None]
                # Not without a pause: where the core rewrites code for a transition it stops this CPU for each piece.
                time.sleep(0.001)
        thread.join()
        patch.revert()
        if found:
            break
    patch.unload()

assert found, f"no idle task in {ROUNDS} transitions"
assert found[0].reason is Reason.RUNNING, found[0]
assert found[0].comm == f"swapper/{found[0].cpu}", found[0]
assert str(found[0]).startswith("idle task of CPU "), found[0]
