# SPDX-License-Identifier: MIT
"""A record of each change: for the program's `logging`, and for the journal of the machine whose kernel changed.

The journal adds who it was by itself: _UID, _AUDIT_LOGINUID, _PID, _CMDLINE, _SYSTEMD_UNIT.
"""

from __future__ import annotations

import contextlib
import logging
import socket
import struct
from typing import TYPE_CHECKING

from pylivepatch.errors import AlreadyError, LivepatchError, TransitionTimeoutError
from pylivepatch.state import printable

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

SOCKET = "/run/systemd/journal/socket"
"""Where systemd-journald listens; another program may, too. See "Native Journal Protocol" of systemd."""

# As in systemd/pylivepatch.catalog.
_MESSAGES = {
    "load": "1360145f77a84112a33b543ef82d1a81",
    "enable": "256afdc8bcf74f6c81d35430dfcc7dd6",
    "confirm": "e7ed39a1e26546eb9df5e5b72d0fabcb",
    "revert": "97e654d2e0524eeab717e744eefdd69f",
    "unload": "cf8bd6c1eeb84337a11859227c9bf47e",
    "force": "a341cd5673a149fdaa622d05f3fad9e0",
    "failed": "c6c1853cd9d6470aa00ed0cc893b16de",
    "stalled": "0b4bd27b407a41e297a81ea6aa298e89",
}
_NOTICE, _WARNING = 5, 4
_log = logging.getLogger("pylivepatch")


def record(root: Path, action: str, name: str, error: BaseException | None = None) -> None:
    """Record that a change was made, or was tried and failed; what was so already is not recorded.

    Args:
        root: Of which kernel; a captured tree has no journal.
        action: "load", "enable", "confirm", "revert", "unload" or "force".
        name: The patch.
        error: How it failed.
    """
    if isinstance(error, AlreadyError):
        return
    fields = _fields(action, name, error)
    _log.log(logging.INFO if error is None else logging.WARNING, "%s", fields["MESSAGE"], extra={"livepatch": fields})
    if str(root) == "/":
        # Where nobody listens, or is slow, the change counts, and not its record.
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as journal:
            journal.setblocking(False)
            journal.sendto(datagram(fields), SOCKET)


def _fields(action: str, name: str, error: BaseException | None) -> dict[str, str]:
    kind, result, words = action, "done", ""
    if isinstance(error, TransitionTimeoutError):
        kind, result, words = "stalled", "failed", error.message
    elif isinstance(error, LivepatchError):
        kind, result, words = "failed", "failed", error.message
    elif error is not None:
        kind, result, words = "failed", "interrupted", type(error).__name__
    fields = {
        "MESSAGE": printable(f"{action} {name}: {words or 'done'}"),
        "MESSAGE_ID": _MESSAGES[kind],
        "PRIORITY": str(_NOTICE if error is None else _WARNING),
        "SYSLOG_IDENTIFIER": "pylivepatch",
        "LIVEPATCH_ACTION": action,
        "LIVEPATCH_NAME": name,
        "LIVEPATCH_RESULT": result,
    }
    if isinstance(error, LivepatchError):
        fields["LIVEPATCH_ERROR"] = type(error).__name__
        fields["LIVEPATCH_AFTER"] = error.after
    if isinstance(error, TransitionTimeoutError):
        fields["LIVEPATCH_STATE"] = str(error.state)
        fields["LIVEPATCH_BLOCKERS"] = "\n".join(str(blocker) for blocker in error.blockers)
    return fields


def datagram(fields: Mapping[str, str]) -> bytes:
    """Spell fields as journald reads them: those of several lines with their length."""
    parts = []
    for key, value in fields.items():
        data = value.encode(errors="replace")
        if b"\n" in data:
            parts.append(key.encode() + b"\n" + struct.pack("<Q", len(data)) + data + b"\n")
        else:
            parts.append(key.encode() + b"=" + data + b"\n")
    return b"".join(parts)
