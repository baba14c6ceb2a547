# SPDX-License-Identifier: MIT
"""Runs in a guest with a klpctl that can probe nothing, and one that cannot read the livepatch core."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "guest"))
from conftest import MODULES, KernelLog, Sleeper, cmdline

from pylivepatch import Core, PatchRejectedError, PatchState, PatchStateError, Reason


def main() -> None:
    """Do with it what can be done."""
    log = KernelLog()
    done = subprocess.run(["insmod", MODULES / "klpctl_none.ko"], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "Operation not supported" in done.stderr
    log.expect("this kernel has no symbol klp_target_state_not")

    subprocess.run(["insmod", MODULES / "klpctl.ko"], check=True)
    log.expect("the livepatch core cannot be probed")
    subprocess.run(["insmod", MODULES / "plp_target.ko"], check=True)
    with Core("klpctl") as core:
        assert not core.features.events
        assert not core.features.reasons
        held = Sleeper()
        patch = core.load(MODULES / "plp_hold.ko")
        transition = patch.enable(timeout=None, wait=False, confirm_within=60, owned=False)
        assert patch.state is PatchState.ENABLING, "tasks run the old code"
        assert Reason.UNKNOWN in {blocker.reason for blocker in core.blockers()}
        held.wake()
        transition.wait()
        assert patch.state is PatchState.ENABLED
        patch.confirm()
        patch.revert()

        # The core refuses it before it has looked at anything of it.
        states = core.load(MODULES / "plp_states.ko")
        states.enable()
        refused = core.load(MODULES / "plp_replace.ko")
        log.expect("is not compatible with the already installed livepatches")
        with pytest.raises(PatchRejectedError):
            refused.enable()
        for change in (lambda: refused.force(accept_risk=True), refused.revert):
            with pytest.raises(PatchStateError):
                change()
        assert refused.state is PatchState.REGISTERED
        states.revert()

        standalone = core.load(MODULES / "plp_foreign.ko")
        transition_of_it = standalone.transition
        if transition_of_it:
            transition_of_it.wait()
        assert standalone.state is PatchState.ENABLED
        standalone.revert()
        assert standalone.state is PatchState.DISABLED
        assert "patched" not in cmdline()
    log.check()


main()
