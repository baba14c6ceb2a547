# SPDX-License-Identifier: MIT
"""The record of a change: for logging, and in the form that journald reads."""

from __future__ import annotations

import logging
import re
import struct
from pathlib import Path

import pytest

from pylivepatch import (
    AlreadyError,
    Blocker,
    KernelError,
    PatchState,
    Progress,
    Reason,
    Target,
    TransitionTimeoutError,
)
from pylivepatch.kernel import journal

CATALOG = Path(__file__).parents[3] / "systemd/pylivepatch.catalog"


def late() -> TransitionTimeoutError:
    """A transition that two tasks hold up, one with a hostile name."""
    return TransitionTimeoutError(
        "it did not end",
        patch="fix",
        progress=Progress(Target.PATCHED, 1, 3, 1.0),
        reversed=True,
        state=PatchState.DISABLED,
        blockers=(
            Blocker("fix", 7, 7, "a\nLIVEPATCH_RESULT=done", Reason.SLEEPING, "f"),
            Blocker("fix", 8, 8, "\x1b[2J", Reason.RUNNING),
        ),
        after="it was reversed",
    )


def test_logging(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A program that reads the logger "pylivepatch" gets one record for each change, with its fields."""
    with caplog.at_level(logging.INFO, "pylivepatch"):
        journal.record(tmp_path, "enable", "fix")
        journal.record(tmp_path, "revert", "fix", late())
        journal.record(tmp_path, "enable", "fix", AlreadyError("it is", errno=114))
        journal.record(tmp_path, "load", "fix", KeyboardInterrupt())
    assert [(record.levelname, record.getMessage()) for record in caplog.records] == [
        ("INFO", "enable fix: done"),
        ("WARNING", "revert fix: it did not end"),
        ("WARNING", "load fix: KeyboardInterrupt"),
    ]
    fields = caplog.records[1].livepatch  # type: ignore[attr-defined]
    assert (fields["LIVEPATCH_ERROR"], fields["LIVEPATCH_STATE"]) == ("TransitionTimeoutError", "disabled")


def test_nobody_listens(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """A program that reads no logger gets nothing on its stderr."""
    journal.record(tmp_path, "enable", "fix", KernelError("no", errno=5))
    assert capfd.readouterr() == ("", "")


def test_the_datagram() -> None:
    """A field of one line is KEY=value; one of several has its length before it, so that it can hold no other."""
    data = journal.datagram(journal._fields("enable", "fix", late()))
    fields: dict[str, bytes] = {}
    while data:
        line, _, data = data.partition(b"\n")
        key, equals, value = line.partition(b"=")
        if not equals:
            (size,) = struct.unpack_from("<Q", data)
            value, data = data[8 : 8 + size], data[9 + size :]
        fields[key.decode()] = value
    assert fields["LIVEPATCH_RESULT"] == b"failed"
    assert fields["LIVEPATCH_BLOCKERS"].splitlines() == [
        b"a\\nLIVEPATCH_RESULT=done (pid 7, tid 7): sleeping in f of fix",
        b"\\x1b[2J (pid 8, tid 8): running",
    ]


def test_the_catalogue_has_each_message() -> None:
    """Each MESSAGE_ID has an entry, and the other way round; each names fields that are sent."""
    text = CATALOG.read_text()
    assert sorted(re.findall(r"^-- ([0-9a-f]{32})$", text, flags=re.MULTILINE)) == sorted(journal._MESSAGES.values())
    sent = {*journal._fields("enable", "fix", late()), "_PID", "_UID"}
    assert set(re.findall(r"@(\w+)@", text)) <= sent
