# SPDX-License-Identifier: MIT
"""Runs in a guest: asks klpctl by the kernel's own client, and compares with the package."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "guest"))
from conftest import MODULES, KernelLog, Sleeper, until

from pylivepatch import Core

SPEC = Path(__file__).parents[3] / "kmod/uapi/klpctl.yaml"


def ynl(*words: str) -> object:
    """Run the client; its answer."""
    command = [sys.executable, sys.argv[1], "--no-schema", "--spec", SPEC, "--output-json", *words]
    environment = os.environ | {"PYTHONPATH": os.environ["YAML"]}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout) if done.stdout.strip() else None


def listens(pid: int) -> bool:
    """Whether a process has joined a multicast group of generic netlink."""
    rows = [line.split() for line in Path("/proc/net/netlink").read_text().splitlines()[1:]]
    return any((row[1], row[2]) == ("16", str(pid)) and int(row[3], 16) for row in rows)


def main() -> None:
    """Ask everything."""
    log = KernelLog()
    subprocess.run(["insmod", MODULES / "plp_target.ko"], check=True)
    with Core("klpctl") as core:
        held = Sleeper()
        patch = core.load(MODULES / "plp_hold.ko")
        features = ynl("--do", "features-get")
        assert isinstance(features, dict)
        assert features["version"] == 2
        assert ("reasons" in features["features"]) == core.features.reasons

        transition = patch.enable(timeout=None, wait=False)
        [dumped] = ynl("--dump", "patch-get")  # type: ignore[misc]
        single = ynl("--do", "patch-get", "--json", json.dumps({"name": "plp_hold"}))
        for each in (dumped, single):
            assert (each["name"], each["state"], each["flags"]) == ("plp_hold", "enabling", ["registered"]), each
            assert each["transition"]["target"] == "patched"
            assert each["object"][0]["name"] == "plp_target"
            assert each["object"][0]["func"][0]["name"] == "plp_target_hold"
        [task] = [
            each for each in ynl("--dump", "task-get", "--json", json.dumps({"options": ["stack"]}))  # type: ignore[attr-defined]
            if each["task"]["pid"] == held.process.pid
        ]  # fmt: skip
        assert task["name"] == "plp_hold"
        assert (task["task"]["reason"], task["task"]["func"]) == ("sleeping", "plp_target_hold")
        assert "plp_target_hold" in task["task"]["stack"]
        held.wake()
        transition.wait()
        patch.revert()

        # It listens for twenty seconds, so nothing else is done meanwhile.
        events = [sys.executable, sys.argv[1], "--no-schema", "--spec", SPEC, "--subscribe", "events", "--sleep", "20",
                  "--output-json"]  # fmt: skip
        environment = os.environ | {"PYTHONPATH": os.environ["YAML"], "PYTHONUNBUFFERED": "1"}
        with subprocess.Popen(events, env=environment, stdout=subprocess.PIPE, text=True) as listener:
            until(lambda: listens(listener.pid))
            patch.enable()
            patch.revert()
            said, _ = listener.communicate(timeout=240)
        for action in ("started", "completed"):
            assert said.count(action) == 2, said
        patch.unload()
    log.check()


main()
