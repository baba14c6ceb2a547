# SPDX-License-Identifier: MIT
"""Ctrl-C, SIGTERM and SIGHUP end a command by an exception, so that what it began is reversed."""

from __future__ import annotations

import contextlib
import math
import signal
import time
from typing import TYPE_CHECKING

from pylivepatch.errors import LivepatchError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import FrameType

    from pylivepatch.cli._session import Session

_SIGNALLED = 128
_SAME = 1.0


class Interrupted(KeyboardInterrupt):
    """A signal asked the command to end.

    Attributes:
        number: The signal.
    """

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


@contextlib.contextmanager
def interruptible() -> Iterator[None]:
    """Make the signals end the body by an exception.

    One that follows within a second is taken for the same: a terminal that is closed
    sends more than one. A later one ends the wait for the reversal.
    """
    last = -math.inf

    def interrupt(number: int, _frame: FrameType | None) -> None:
        nonlocal last
        before, last = last, time.monotonic()
        if last - before > _SAME:
            raise Interrupted(number)

    handlers = {
        number: signal.signal(number, interrupt)
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
        # What nohup(1) ignores stays ignored.
        if signal.getsignal(number) is not signal.SIG_IGN
    }
    try:
        yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)


def report_interruption(session: Session, error: KeyboardInterrupt) -> int:
    """Print that the command was interrupted, and the state its patch is in; return the exit code."""
    data, words, code = interruption(session, error)
    session.error(data, words)
    return code


def interruption(session: Session, error: KeyboardInterrupt) -> tuple[dict[str, object], str, int]:
    """An interruption as JSON shows it, in words, and its exit code."""
    number = error.number if isinstance(error, Interrupted) else signal.SIGINT
    message = f"interrupted by {signal.Signals(number).name}"
    name, state = session.subject, None
    words = [message]
    if name:
        state = "not loaded"
        with contextlib.suppress(LivepatchError, OSError), session.core() as core:
            state = str(core.patch(name).state)
        words.append(f"{name} is {state}")
    notes = list(getattr(error, "__notes__", ()))
    data: dict[str, object] = {"type": "Interrupted", "message": message, "patch": name or None, "state": state}
    if notes:
        data["notes"] = notes
    return data, "; ".join(words + notes), _SIGNALLED + number
