# SPDX-License-Identifier: MIT
"""Put each patch that the builder made through its life, and look for what it does. Argument: their directory."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import traceback
from pathlib import Path
from typing import Any

from pylivepatch import Core, PatchRejectedError, Severity

sys.path.insert(0, str(Path(__file__).parents[1] / "guest"))

from conftest import KernelLog

SECONDS = 120.0


def shell(command: str) -> str:
    """Run a command, and return all that it says."""
    return subprocess.run(["bash", "-c", command], text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                          check=False, timeout=SECONDS).stdout


class Log(KernelLog):
    """The kernel's log, in which one kind of warning is expected as a whole: registers, stack, what else it prints."""

    def __init__(self, warning: str = "") -> None:
        super().__init__()
        self._warning = warning
        self.stacks: list[list[str]] = []

    def records(self) -> list[tuple[int, str]]:
        """Level and text of all records but those of the warnings that are expected."""
        kept: list[tuple[int, str]] = []
        block: list[tuple[int, str]] = []
        for record in super().records():
            if block or "[ cut here ]" in record[1]:
                block.append(record)
            else:
                kept.append(record)
            if "[ end trace" in record[1]:
                texts = [text for _, text in block]
                if self._warning and any(self._warning in text for text in texts):
                    self.stacks.append(texts)
                else:
                    kept += block
                block = []
        return kept + block


def seen(case: dict[str, Any]) -> bool:
    """Tell whether the patch's effect is there."""
    case["said"] = shell(case["check"])
    return re.search(case["after"], case["said"], re.MULTILINE) is not None


def refused(core: Core, folder: Path, case: dict[str, Any]) -> None:
    """See that it is refused on top of what is enabled, when that has an installed file, which tells why."""
    store = Path("/var/lib/pylivepatch", os.uname().release)
    store.mkdir(parents=True, exist_ok=True)
    [other] = case["below"]
    path = folder / f"plp_{case['name']}.ko"
    installed = Path(shutil.copy(folder / f"plp_{other}.ko", store))
    found = [finding for finding in core.preflight(path) if finding.code == "bypassed"]
    assert [(finding.subject, finding.severity) for finding in found] == [(case["bypassed"], Severity.FATAL)], found
    said = ""
    try:
        core.load(path)
    except PatchRejectedError as error:
        said = str(error)
    assert found[0].message in said
    installed.unlink()
    unknown = [finding for finding in core.preflight(path) if finding.code in ("bypassed", "not-checked")]
    assert [(finding.code, finding.subject) for finding in unknown] == [("not-checked", f"plp_{other}")], unknown


def live(core: Core, folder: Path, case: dict[str, Any]) -> None:
    """Load, enable, look, revert, look, unload; twice enabled when it is registered."""
    name = case["name"]
    log = Log(case["warning"])
    if case["log"]:
        log.expect(case["log"])
    for module in case["modules"]:
        subprocess.run(["modprobe", *module.split()], check=True)
    below = [core.load(folder / f"plp_{other}.ko") for other in case["below"]]
    for other in below:
        other.enable(timeout=SECONDS)
    assert not seen(case), "before the patch"
    if case["bypassed"]:
        refused(core, folder, case)
        for other in below:
            other.revert(timeout=SECONDS)
            other.unload()
    patch = core.load(folder / f"plp_{name}.ko")
    if case["foreign"]:
        if transition := patch.transition:
            transition.wait()
    else:
        assert not seen(case), "loaded, and not enabled"
        patch.enable(timeout=SECONDS)
    for module in case["late"]:
        subprocess.run(["modprobe", *module.split()], check=True)
    assert seen(case), f"enabled: {case['said'][-800:]}"
    patch.revert(timeout=SECONDS)
    assert not seen(case), "reverted"
    if not case["foreign"] and not case["late"] and not case["modules"]:
        patch.enable(timeout=SECONDS)
        assert seen(case), "enabled again"
        patch.revert(timeout=SECONDS)
    patch.unload()
    for other in below if not case["bypassed"] else ():
        other.revert(timeout=SECONDS)
        other.unload()
    for module in [*case["modules"], *case["late"]]:
        subprocess.run(["rmmod", module.split()[0]], check=True)
    log.check()
    if case["warning"]:
        assert log.stacks, "the kernel did not warn"
        for stack in log.stacks:
            at = next(number for number, text in enumerate(stack) if "Call Trace" in text)
            frames = [text for text in stack[at + 1:] if re.search(r"^ .*\+0x\w+/0x", text)]
            sure = [text for text in frames if not text.startswith(" ?")]
            there = any(re.search(rf"^RIP: .*\[plp_{name}\]$", text) for text in stack)
            whole = there and len(sure) > 2 and sure[0] == frames[0]
            assert whole, "\n".join(["the stack ends in the patch:", *stack])


def main(folder: Path) -> int:
    """Do so with all, and say how each went."""
    failed = 0
    subprocess.run(["modprobe", "klpctl"], check=True)
    with Core() as core:
        for case in json.loads((folder / "plan.json").read_text()):
            if not (folder / f"plp_{case['name']}.ko").exists():
                print(f"{case['name']}: not built", flush=True)
                failed += 1
                continue
            try:
                live(core, folder, case)
                print(f"{case['name']}: passed", flush=True)
            except Exception:
                failed += 1
                print(f"{case['name']}: FAILED\n{traceback.format_exc()}", flush=True)
                for patch in reversed(core.patches()):
                    try:
                        patch.revert(timeout=SECONDS)
                    except Exception as error:
                        print(error)
                    patch.unload()
                for module in [*case["modules"], *case["late"]]:
                    subprocess.run(["rmmod", module.split()[0]], check=False)
    print(f"{failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
