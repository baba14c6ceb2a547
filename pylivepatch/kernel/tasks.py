# SPDX-License-Identifier: MIT
"""Tasks that hold a transition up: make them leave the functions that they sleep in."""

from __future__ import annotations

import os
import signal
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

    from pylivepatch.state import Blocker

_PF_KTHREAD = 0x00200000
_STOPPED = ("T", "t", "Z", "X")
_PAUSE = 0.1


def interrupt(proc: Path, blockers: Callable[[], Iterable[Blocker]]) -> list[Blocker]:
    """Stop the processes of blockers for a moment, and let them continue.

    A task that sleeps interruptibly leaves its system call for that, and switches; the call is restarted. What
    sleeps uninterruptibly, kernel threads, this process and processes that are stopped already are left alone.

    Args:
        proc: /proc.
        blockers: Reads the tasks that the transition waits for.

    Returns:
        The blockers whose processes were sent the signals.

    Raises:
        PermissionError: The caller may not send signals to them.
    """
    held: dict[int, int] = {}
    try:
        for blocker in blockers():
            if blocker.pid not in held and blocker.pid not in (0, os.getpid()) and _is_waiting(proc, blocker.pid):
                try:
                    held[blocker.pid] = os.pidfd_open(blocker.pid)
                except ProcessLookupError:
                    continue
        # Read again with the processes held: no number can have passed to another process since.
        found = [blocker for blocker in blockers() if blocker.pid in held]
        for pid in {blocker.pid for blocker in found}:
            try:
                signal.pidfd_send_signal(held[pid], signal.SIGSTOP)
                try:
                    time.sleep(_PAUSE)
                finally:
                    signal.pidfd_send_signal(held[pid], signal.SIGCONT)
            except ProcessLookupError:
                continue
        return found
    finally:
        for descriptor in held.values():
            os.close(descriptor)


def _is_waiting(proc: Path, pid: int) -> bool:
    """Whether a process may be stopped and continued without a difference to anybody."""
    try:
        fields = (proc / str(pid) / "stat").read_text(errors="replace").rpartition(")")[2].split()
    except OSError:
        return False
    return fields[0] not in _STOPPED and not int(fields[6]) & _PF_KTHREAD
