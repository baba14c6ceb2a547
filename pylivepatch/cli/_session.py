# SPDX-License-Identifier: MIT
"""What the commands share: the core, the output, the errors and their codes.

With ``--json`` stdout holds the result and nothing else; an error is one line of
JSON on stderr, ``{"error": {"type": …, "message": …, …}}``, and stdout is empty.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import math
import signal
import sys
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, Literal, TypeVar, cast

import click

from pylivepatch.core import Core
from pylivepatch.errors import (
    AccessError,
    AlreadyError,
    BadDataError,
    CheckError,
    KernelError,
    LivepatchError,
    ModuleFileError,
    PatchNotFoundError,
    TransitionBusyError,
    TransitionReversedError,
    TransitionTimeoutError,
    UnsupportedError,
)

if TYPE_CHECKING:
    from types import FrameType

    from pylivepatch._flow import OnProgress, OnTimeout
    from pylivepatch.patch import Patch
    from pylivepatch.state import PatchStatus, Progress

_Command = TypeVar("_Command", bound=Callable[..., Any])

# The first that fits, so leaves before their bases.
_CODES: tuple[tuple[type[LivepatchError], int], ...] = (
    (AccessError, 3),
    (AlreadyError, 10),
    (PatchNotFoundError, 4),
    (TransitionBusyError, 5),
    (TransitionReversedError, 6),
    (CheckError, 6),
    (ModuleFileError, 8),
    (KernelError, 8),
    (UnsupportedError, 9),
    (BadDataError, 2),
)
_STILL_IN_TRANSITION = 7
_REVERSED = 6
_OTHER = 8
_SIGNALLED = 128
_SAME_SIGNAL = 1.0


@dataclasses.dataclass
class Session:
    """The options that all commands share."""

    backend: str = "auto"
    root: str = "/"
    json: bool = False
    subject: str = ""
    """The patch that the command changes."""

    def core(self) -> Core:
        """Reach the kernel as the options say."""
        return Core(cast("Literal['auto', 'klpctl', 'sysfs']", self.backend), root=self.root)

    def result(self, data: object, text: str) -> None:
        """Print a result: `data` as JSON, or `text` for people."""
        click.echo(json.dumps(data) if self.json else text)


def _json_option(ctx: click.Context, _: click.Parameter, value: bool) -> bool:
    session = ctx.ensure_object(Session)
    session.json = session.json or value
    return value


def json_option(command: _Command) -> _Command:
    """Give a command ``--json``."""
    option = click.option(
        "--json",
        is_flag=True,
        is_eager=True,
        expose_value=False,
        callback=_json_option,
        help="Print JSON; errors too, on stderr.",
    )
    return option(command)


def _timeout_option(_: click.Context, __: click.Parameter, value: float) -> float | None:
    if not value > 0:
        raise click.BadParameter("give seconds above 0, or inf")
    return None if value == math.inf else value


def waiting_options(command: _Command) -> _Command:
    """Give a command ``--timeout``, ``--on-timeout`` and ``--no-wait``."""
    command = click.option("--no-wait", is_flag=True, help="Return when the transition has started.")(command)
    return timeout_options(command)


def timeout_options(command: _Command) -> _Command:
    """Give a command ``--timeout`` and ``--on-timeout``."""
    command = click.option(
        "--on-timeout",
        type=click.Choice(["reverse", "report"]),
        default="reverse",
        show_default=True,
        help="Reverse the transition, or leave it going.",
    )(command)
    return click.option(
        "--timeout",
        type=float,
        default=30.0,
        show_default=True,
        metavar="SECONDS",
        callback=_timeout_option,
        help="Deadline of the transition; inf for none.",
    )(command)


def patch_data(status: PatchStatus) -> dict[str, object]:
    """A patch as the JSON output shows it."""
    progress = status.progress
    return {
        "name": status.name,
        "state": str(status.state),
        "registered": status.registered,
        "replace": status.replace,
        "objects": [
            {
                "name": part.name,
                "funcs": [{"name": func.name, "sympos": func.sympos} for func in part.funcs],
            }
            for part in status.objects
        ],
        "transition": progress
        and {
            "target": str(progress.target),
            "total": progress.total or None,
            "done": progress.done if progress.total else None,
        },
    }


def report(session: Session, error: LivepatchError) -> int:
    """Print an error; say which exit code it has."""
    if session.json:
        click.echo(json.dumps({"error": error_data(error)}), err=True)
    else:
        click.echo(f"pylivepatch: {error}", err=True)
    return exit_code(error)


def error_data(error: LivepatchError) -> dict[str, object]:
    """An error as the JSON output shows it."""
    data: dict[str, object] = {
        "type": type(error).__name__,
        "message": error.message,
        "after": error.after,
        "remedy": error.remedy,
    }
    for field in ("errno", "filename", "extack", "patch", "func", "feature", "since", "kind", "symbol", "file"):
        if isinstance(value := getattr(error, field, None), str | int) and value != "":
            data[field] = value
    if isinstance(error, KernelError):
        data["log"] = error.log
    if isinstance(error, TransitionTimeoutError | TransitionReversedError):
        data["state"] = str(error.state)
    if isinstance(error, TransitionTimeoutError):
        data["blockers"] = [dataclasses.asdict(blocker) for blocker in error.blockers]
    return data


def exit_code(error: LivepatchError) -> int:
    """The exit code of an error."""
    if isinstance(error, TransitionTimeoutError):
        return _STILL_IN_TRANSITION if error.state.in_transition else _REVERSED
    return next((code for kind, code in _CODES if isinstance(error, kind)), _OTHER)


@contextlib.contextmanager
def progress_bar(session: Session, name: str) -> Iterator[OnProgress | None]:
    """Show the progress of a patch's transition on a terminal; yields what it is to be called with."""
    if session.json or not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
    from rich.progress import Progress as Bars

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("tasks"),
        TimeElapsedColumn(),
    )
    with Bars(*columns, console=Console(stderr=True), transient=True) as bars:
        bar = bars.add_task(name, total=None)

        def show(progress: Progress) -> None:
            bars.update(
                bar, description=f"{name} → {progress.target}", completed=progress.done, total=progress.total or None
            )

        yield show


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
    """Make Ctrl-C, SIGTERM and SIGHUP end the body by an exception, so that what it began is reversed.

    One that follows within a second is taken for the same: a terminal that is closed
    sends more than one. A later one ends the wait for the reversal.
    """
    last = -math.inf

    def interrupt(number: int, _frame: FrameType | None) -> None:
        nonlocal last
        before, last = last, time.monotonic()
        if last - before > _SAME_SIGNAL:
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
    # The terminal may be what was closed.
    with contextlib.suppress(OSError):
        click.echo(json.dumps({"error": data}) if session.json else f"pylivepatch: {words}", err=True)
    return code


def interruption(session: Session, error: KeyboardInterrupt) -> tuple[dict[str, object], str, int]:
    """An interruption as JSON shows it, in words, and its exit code."""
    number = error.number if isinstance(error, Interrupted) else signal.SIGINT
    message = f"interrupted by {signal.Signals(number).name}"
    name, state = session.subject, None
    words = [message]
    if name:
        state = "not loaded"
        with contextlib.suppress(LivepatchError, OSError), Core("sysfs", root=session.root) as core:
            state = str(core.patch(name).state)
        words.append(f"{name} is {state}")
    notes = list(getattr(error, "__notes__", ()))
    data: dict[str, object] = {"type": "Interrupted", "message": message, "patch": name or None, "state": state}
    data["notes"] = notes
    return data, "; ".join(words + notes), _SIGNALLED + number


def changed(session: Session, patch: Patch, duration: float | None) -> None:
    """Print the state of a patch after a change, and how long that took."""
    status = patch.status()
    text = f"{status.name}: {status.state}"
    if duration is not None:
        text = f"{text}, in {duration:.3f} s"
    session.result({**patch_data(status), "duration": duration}, text)


def policy(name: str) -> OnTimeout:
    """The policy of ``--on-timeout``, which click has checked."""
    return cast("OnTimeout", name)
