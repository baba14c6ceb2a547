# SPDX-License-Identifier: MIT
"""The idle task of another CPU is the usual first blocker: it is named. Needs two CPUs."""

from __future__ import annotations

import contextlib
import os
import subprocess
import time
from pathlib import Path

from pylivepatch import Blocker, Core, Reason

MODULES = Path(os.environ["PYLIVEPATCH_LAB_MODULES"])
SECONDS = 200

# The core wakes an idle task that it finds, which switches by itself at once, as when anybody
# else wakes it. So that there is time to see it, the core wakes nobody, and all that can run
# on the first CPU does: this, udevd, and what klpctl does when a transition starts.
Path("/sys/devices/virtual/workqueue/cpumask").write_text("1")
for process in Path("/proc").glob("[0-9]*"):
    with contextlib.suppress(OSError):
        os.sched_setaffinity(int(process.name), {0})
found: list[Blocker] = []
rounds = 0
end = time.monotonic() + SECONDS
with Core("klpctl") as core:
    Path("/sys/module/klpctl/parameters/fast_completion").write_text("N")
    patch = core.load(MODULES / "plp_cmdline.ko")
    while not found and time.monotonic() < end:
        rounds += 1
        subprocess.run(["insmod", MODULES / "plp_probe.ko", "func=wake_up_if_idle", "post=1", "skip=1"], check=True)
        patch.enable(None, wait=False)  # returns after the core's first try
        found = [blocker for blocker in core.blockers() if blocker.cpu is not None]
        subprocess.run(["rmmod", "plp_probe"], check=True)
        patch.revert(None)
    patch.unload()

assert found, f"no idle task in {rounds} transitions"
print(f"{found[0]}, in transition {rounds}")
assert found[0].reason is Reason.RUNNING, found[0]
assert found[0].comm == f"swapper/{found[0].cpu}", found[0]
assert str(found[0]).startswith("idle task of CPU "), found[0]
