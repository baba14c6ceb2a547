# SPDX-License-Identifier: MIT
"""Runs in a guest that nobody needs afterwards: a forced patch stays for ever."""

from __future__ import annotations

import errno
import json
import subprocess
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "guest"))
from conftest import MODULES, KernelLog, Sleeper

from pylivepatch import Action, BadDataError, Core, PatchState, PatchStateError, TransitionBusyError


def force(*options: str) -> subprocess.CompletedProcess[str]:
    """Run `pylivepatch force`."""
    command = ["pylivepatch", "force", "plp_hold", "--json", *options]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def main() -> None:
    """Hold up a transition, fail to force it, then force it."""
    log = KernelLog()
    subprocess.run(["insmod", MODULES / "plp_target.ko"], check=True)
    with Core("klpctl") as core:
        held = Sleeper()
        patch = core.load(MODULES / "plp_hold.ko")
        patch.enable(wait=False)

        done = force()
        assert (done.returncode, done.stdout) == (2, ""), done
        assert "risk" in json.loads(done.stderr)["error"]["message"]
        with pytest.raises(BadDataError, match="risk"):
            patch.force(accept_risk=False)
        assert patch.state is PatchState.ENABLING
        assert not patch.status().forced

        with core.monitor() as monitor:
            done = force("--accept-risk")
            assert (done.returncode, done.stderr) == (0, ""), done
            assert json.loads(done.stdout)["name"] == "plp_hold"
            waiting = patch.transition
            if waiting:
                waiting.wait()
            events = []
            while not events or events[-1].action is not Action.COMPLETED:
                event = monitor.read(timeout=120)
                assert event is not None, events
                if event.action is not Action.PROGRESS:
                    events.append(event)
        assert [event.action for event in events] == [Action.FORCED, Action.COMPLETED]
        assert patch.state is PatchState.ENABLED
        assert not patch.status().forced
        with pytest.raises(PatchStateError, match="not in transition"):
            patch.force(accept_risk=True)

        # Only what was removed by force is pinned: see klp_force_transition().
        held.wake()
        patch.revert()
        assert patch.state is PatchState.DISABLED
        patch.enable()
        held = Sleeper("plp_hold")
        patch.revert(wait=False)
        done = force("--accept-risk")
        assert (done.returncode, done.stderr) == (0, ""), done
        waiting = patch.transition
        if waiting:
            waiting.wait()
        assert patch.state is PatchState.DISABLED
        assert patch.status().forced

        with pytest.raises(PatchStateError, match="forced") as info:
            patch.unload()
        assert "reboot" in str(info.value)
        assert info.value.errno == errno.EBUSY
        with pytest.raises((PatchStateError, TransitionBusyError), match="forced") as refused:
            patch.enable()
        assert "plp_hold" in str(refused.value)
        assert patch.state is PatchState.DISABLED
        held.wake()
    done = subprocess.run(["rmmod", "plp_hold"], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert Path("/sys/module/plp_hold").exists()
    log.expect("forcing remaining tasks to the patched state")
    log.check()


main()
