# SPDX-License-Identifier: MIT
"""Try a patch module in a guest with the kernel that it is for: load, enable, check, revert, unload."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

from pylivepatch import lab
from pylivepatch.core import Core
from pylivepatch.errors import BadDataError, LivepatchError
from pylivepatch.module.info import PatchInfo
from pylivepatch.patch import Patch

_TIMEOUT = 120.0
_NOISE = re.compile(
    r"loading out-of-tree module taints|module verification failed|tainting kernel with TAINT_LIVEPATCH"
    r"|livepatch: |klpctl: |systemd-journald|random: crng")


@dataclass(frozen=True, slots=True)
class TrialStep:
    """A step of a trial.

    Attributes:
        name: "load", "enable", "check", "revert", "unload".
        seconds: How long it took.
        failure: What went wrong, or "".
        output: What the check said.
    """

    name: str
    seconds: float
    failure: str = ""
    output: str = ""


@dataclass(frozen=True, slots=True)
class Trial:
    """How a trial went.

    Attributes:
        patch: Name of the patch.
        release: The kernel that it was tried on.
        steps: What was done, up to the first failure; what was enabled was then reverted.
        log: What the kernel said meanwhile that it does not say for every patch.
        passed: Whether all went well: no step failed, and the kernel warned of nothing.
    """

    patch: str
    release: str
    steps: tuple[TrialStep, ...]
    log: tuple[str, ...]

    @property
    def passed(self) -> bool:
        """Whether no step failed and the kernel warned of nothing."""
        return not any(step.failure for step in self.steps) and not self.log


def trial(
    module: str | os.PathLike[str], *, kernel: str = "", check: str = "", timeout: float = _TIMEOUT, cpus: int = 1
) -> Trial:
    """Boot a stock kernel in the lab, and put a patch module through its life there.

    This is a test, and no verdict on a module of somebody whom you do not trust: its code runs in the kernel that
    reports how it went.

    Args:
        module: The module file.
        kernel: Series or release of the kernel; the one that the module is for by default.
        check: A shell command that is run when the patch is enabled; a status other than 0 is a failure.
        timeout: Seconds that the transition and the check may take, each.
        cpus: CPUs of the guest.

    Raises:
        ModuleFileError: *module* is none.
        LabError: The guest could not be made or started.
        GuestLostError: It died or hung: what a wrong patch can do.
    """
    module = Path(module)
    info = PatchInfo.open(module)
    release = info.file.vermagic.split()[0] if info.file and info.file.vermagic else ""
    with tempfile.TemporaryDirectory(prefix="pylivepatch-try-") as folder:
        (Path(folder) / module.name).write_bytes(module.read_bytes())
        out, err = lab.Kept(), lab.Kept()
        argv = ["python3", "-m", "pylivepatch.build.trial", f"{folder}/{module.name}", check, str(timeout)]
        try:
            status = lab.run(argv, kernel=kernel or release, cpus=cpus, shares=[folder], stdout=out, stderr=err,
                             timeout=4 * timeout + 60)
        except ValueError as error:
            raise BadDataError(f"cannot try {module.name}: {error}",
                               remedy="name a stock kernel to try it on (--kernel)") from error
    lines = out.getvalue().decode(errors="replace").splitlines()
    try:
        said = json.loads(lines[-1])
        steps = tuple(TrialStep(str(step["name"]), float(step["seconds"]), str(step["failure"]), str(step["output"]))
                      for step in said["steps"])
        return Trial(info.name, str(said["release"]), steps, tuple(str(line) for line in said["log"]))
    except (IndexError, KeyError, TypeError, ValueError) as error:
        words = err.getvalue().decode(errors="replace").strip()[-2000:]
        raise BadDataError(f"the guest ended with status {status} and no report: {words}") from error


def _rehearse(path: Path, check: str, timeout: float) -> dict[str, object]:
    """Do the steps on the running kernel; in the guest."""
    steps: list[TrialStep] = []
    subprocess.run(["modprobe", "klpctl"], check=False, capture_output=True)
    info = PatchInfo.open(path)
    for part in info.objects or ():
        if part.name != "vmlinux":
            subprocess.run(["modprobe", part.name], check=False, capture_output=True)
    before = len(_log())

    def step(name: str, do: Callable[[], object]) -> bool:
        start = time.monotonic()
        failure, output = "", ""
        try:
            said = do()
            output = said if isinstance(said, str) else ""
        except (LivepatchError, OSError, subprocess.SubprocessError) as error:
            failure = str(error)
            output = str(getattr(error, "output", "") or "")
        steps.append(TrialStep(name, round(time.monotonic() - start, 3), failure, output))
        return not failure

    def checked() -> str:
        done = subprocess.run(["sh", "-c", check], text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                              timeout=timeout, check=True)
        return done.stdout

    with Core() as core:
        if step("load", lambda: core.load(path)):
            patch = core.patch(info.name)
            done = step("enable", lambda: _enabled(patch, registered=info.registered, timeout=timeout))
            if done and check:
                step("check", checked)
            if done:
                step("revert", lambda: patch.revert(timeout=timeout))
            step("unload", patch.unload)
        release = Path("/proc/sys/kernel/osrelease").read_text().strip()
    log = [line for line in _log()[before:] if not _NOISE.search(line)]
    return {"release": release, "steps": [asdict(each) for each in steps], "log": log}


def _enabled(patch: Patch, *, registered: bool, timeout: float) -> None:
    """Enable a patch, or wait until loading has done so."""
    running = patch.enable(timeout=timeout, wait=False) if registered else patch.transition
    if running is not None:
        running.wait()


def _log() -> list[str]:
    return subprocess.run(["dmesg"], capture_output=True, text=True, check=False).stdout.splitlines()


if __name__ == "__main__":
    print(json.dumps(_rehearse(Path(sys.argv[1]), sys.argv[2], float(sys.argv[3]))))
