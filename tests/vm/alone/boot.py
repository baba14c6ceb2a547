# SPDX-License-Identifier: MIT
"""One boot of a machine that keeps its store: runs the unit's own command, tells what came of it, and ends.

boot.py STORE UNIT END [INSTALL...]
"""

from __future__ import annotations

import json
import os
import shlex
import signal
import socket
import subprocess
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "guest"))
import support

from pylivepatch import Core

MODULES = Path(os.environ["PYLIVEPATCH_LAB_MODULES"])
VAR = Path("/var/lib/pylivepatch")
NOTIFY = "/run/notify"


def settings(unit: Path) -> dict[str, list[str]]:
    """What a unit file says, by key."""
    found: dict[str, list[str]] = {}
    for line in unit.read_text().splitlines():
        key, equals, value = line.partition("=")
        if equals and not line.startswith("#"):
            found.setdefault(key, []).append(value)
    return found


def cli(*words: str | Path) -> str:
    """Run the command line, which must succeed."""
    done = support.cli(*words)
    assert done.returncode == 0, done
    return done.stdout


def serve(command: list[str]) -> tuple[subprocess.Popen[str], list[str]]:
    """Start a service of Type=notify, and wait until it says that it is ready."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(NOTIFY)
        manager.settimeout(120)
        service = subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env={**os.environ, "NOTIFY_SOCKET": NOTIFY},
        )
        said = [manager.recv(4096).decode()]
        while said[-1] != "READY=1":
            said.append(manager.recv(4096).decode())
    return service, said


def main(store: str, unit: str, end: str, *install: str) -> None:
    """Be one boot."""
    VAR.mkdir(parents=True)
    subprocess.run(["mount", "--bind", store, VAR], check=True)
    before = marker()
    for name in install:
        cli("install", MODULES / f"{name}.ko")
    parsed = settings(Path(unit))
    told: dict[str, object] = {"cmdline": Path("/proc/cmdline").read_text().split(), "before": before}
    [start] = parsed["ExecStart"]
    [capabilities] = parsed["CapabilityBoundingSet"]
    kept = ",".join(f"+{each.removeprefix('CAP_').lower()}" for each in capabilities.split())
    confined = ["setpriv", "--no-new-privs", "--inh-caps=-all", f"--bounding-set=-all,{kept}", "--"]
    settle = end.startswith("settle")
    service, said = serve([*confined, *shlex.split(start), *(["--settle", "0.1"] if settle else [])])
    if settle:
        service.wait(120)
    with Core() as core:
        told["patches"] = {patch.name: str(patch.state) for patch in core.patches()}
    told |= {
        "unit": parsed,
        "notified": said,
        "during": marker(),
        "installed": json.loads(cli("install", "--list", "--json"))["installed"],
        "listed": cli("install", "--list"),
    }
    if end.endswith("crash"):
        print(json.dumps(told), flush=True)
        os.sync()
        Path("/proc/sysrq-trigger").write_text("c")
    if end == "shutdown":
        service.send_signal(signal.SIGTERM)
    said_by_service, _ = service.communicate(timeout=120)
    print(json.dumps({**told, "output": said_by_service, "status": service.returncode, "after": marker()}))


def marker() -> list[str]:
    """What is on trial, as the store has it."""
    return [name for path in VAR.glob("*/trying.json") for name in json.loads(path.read_text())["names"]]


main(*sys.argv[1:])
