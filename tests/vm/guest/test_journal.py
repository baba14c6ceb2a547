# SPDX-License-Identifier: MIT
"""Each change is in the journal, with who made it: systemd's own journald is asked."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from conftest import Sleeper, until
from support import cli

from pylivepatch import Core, KernelError, TransitionTimeoutError

pytestmark = pytest.mark.once

Payload = Callable[[str], Path]
JOURNALD = Path("/lib/systemd/systemd-journald")
RUNTIME = (Path("/run/systemd/journal"), Path("/run/log/journal"))


@pytest.fixture
def journal() -> Iterator[Callable[[], list[dict[str, object]]]]:
    """A journal in memory; reads what pylivepatch has written to it."""
    # journald of systemd 257 does not start without.
    cgroups = Path("/sys/fs/cgroup")
    mounted = cgroups.is_mount()
    if not mounted:
        subprocess.run(["mount", "-t", "cgroup2", "cgroup2", cgroups], check=True)
    for path in RUNTIME:
        path.mkdir(parents=True)
    with subprocess.Popen([JOURNALD], stderr=subprocess.DEVNULL) as daemon:
        until(Path("/run/systemd/journal/socket").exists)

        def read() -> list[dict[str, object]]:
            command = ["journalctl", "--sync"]
            subprocess.run(command, check=False, capture_output=True)
            done = subprocess.run(
                ["journalctl", "-o", "json", "--all", "--no-pager", "SYSLOG_IDENTIFIER=pylivepatch"],
                check=True,
                capture_output=True,
                text=True,
            )
            return [json.loads(line) for line in done.stdout.splitlines()]

        yield read
        daemon.terminate()
    for path in RUNTIME:
        shutil.rmtree(path)
    if not mounted:
        subprocess.run(["umount", cgroups], check=True)


def test_each_change_is_in_the_journal(
    core: Core, payload: Payload, sleeper: Callable[..., Sleeper], journal: Callable[[], list[dict[str, object]]]
) -> None:
    """By library and command line: action, patch, result, who; a stalled transition with the tasks that hold it up."""
    core.load(payload("plp_cmdline")).enable(confirm_within=60)
    assert cli("confirm", "plp_cmdline").returncode == 0
    assert cli("revert", "plp_cmdline").returncode == 0
    core["plp_cmdline"].revert(if_needed=True)
    sleeper()
    patch = core.load(payload("plp_hold"))
    with pytest.raises(TransitionTimeoutError):
        patch.enable(timeout=0.5)
    with pytest.raises(KernelError):
        patch.force(accept_risk=True)
    patch.unload()
    entries = journal()
    assert [(each["LIVEPATCH_ACTION"], each["LIVEPATCH_NAME"], each["LIVEPATCH_RESULT"]) for each in entries] == [
        ("load", "plp_cmdline", "done"),
        ("enable", "plp_cmdline", "done"),
        ("confirm", "plp_cmdline", "done"),
        ("revert", "plp_cmdline", "done"),
        ("load", "plp_hold", "done"),
        ("enable", "plp_hold", "failed"),
        ("force", "plp_hold", "failed"),
        ("unload", "plp_hold", "done"),
    ]
    assert all(each["_UID"] == "0" for each in entries)
    assert entries[0]["_PID"] == str(os.getpid())
    assert entries[2]["_PID"] != entries[0]["_PID"]
    stalled = entries[5]
    assert "sleeping in plp_target_hold of plp_hold" in str(stalled["LIVEPATCH_BLOCKERS"])
    assert stalled["LIVEPATCH_STATE"] == "disabled"
    assert len({each["MESSAGE_ID"] for each in entries}) == 7
