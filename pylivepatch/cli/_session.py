# SPDX-License-Identifier: MIT
"""What the commands share: options, the core, the output, errors and their exit codes.

With ``--json`` stdout holds the result and nothing else; an error is one line of
JSON on stderr, ``{"schema": 1, "error": {"type": …, "message": …, …}}``, and stdout is empty.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import math
import sys
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, TypeVar, cast

import click

from pylivepatch.cli._data import VERSION, confirmation_data, error_data, patch_data
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
from pylivepatch.state import printable

if TYPE_CHECKING:
    from pylivepatch._flow import OnProgress, OnTimeout
    from pylivepatch.kernel import BackendChoice
    from pylivepatch.patch import Patch
    from pylivepatch.state import PatchStatus, Progress

_Command = TypeVar("_Command", bound=Callable[..., Any])

USAGE = 2
REFUSED = 8

# The first that fits, so leaves before their bases.
_CODES: tuple[tuple[type[LivepatchError], int], ...] = (
    (AccessError, 3),
    (AlreadyError, 10),
    (PatchNotFoundError, 4),
    (TransitionBusyError, 5),
    (TransitionReversedError, 6),
    (CheckError, 6),
    (ModuleFileError, REFUSED),
    (KernelError, REFUSED),
    (UnsupportedError, 9),
    (BadDataError, USAGE),
)
_STILL_IN_TRANSITION = 7
_REVERSED = 6


@dataclasses.dataclass
class Session:
    """The options that all commands share."""

    backend: BackendChoice = "auto"
    root: str = "/"
    json: bool = False
    subject: str = ""
    """The patch that the command changes."""

    def core(self) -> Core:
        """Reach the kernel as the options say."""
        return Core(self.backend, root=self.root)

    def result(self, data: Mapping[str, object], text: str) -> None:
        """Print a result: `data` as JSON, or `text` for people."""
        if self.json:
            click.echo(json.dumps({"schema": VERSION, **data}))
        elif text:
            # What is shown is in part others' words, which a terminal would obey.
            click.echo(printable(text, keep="\n\t"))

    def error(self, data: Mapping[str, object], text: str) -> None:
        """Print an error to stderr, likewise."""
        text = json.dumps({"schema": VERSION, "error": data}) if self.json else f"pylivepatch: {text}"
        # The terminal may be what was closed.
        with contextlib.suppress(OSError):
            click.echo(text, err=True)


# ---- options ----


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


def if_needed_option(command: _Command) -> _Command:
    """Give a command ``--if-needed``."""
    return click.option("--if-needed", is_flag=True, help="Succeed if it is so already.")(command)


def seconds(_: click.Context, parameter: click.Parameter, value: float | None) -> float | None:
    """Read a time in seconds: above 0, or inf for none."""
    if value is None:
        return None
    if not value > 0:
        raise click.BadParameter("give seconds above 0, or inf", param=parameter)
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
        callback=seconds,
        help="Deadline of the transition; inf for none.",
    )(command)


def policy(name: str) -> OnTimeout:
    """The policy of ``--on-timeout``, which click has checked."""
    return cast("OnTimeout", name)


# ---- results ----


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


def changed(session: Session, patch: Patch, duration: float | None = None, **more: object) -> None:
    """Print the state of a patch after a change, how long that took, and whether it was needed."""
    status = patch.status()
    data = {**patch_data(status), "duration": duration, "changed": True, **more}
    text = f"{status.name}: {state_words(status)}"
    if not data["changed"]:
        text = f"{text} already"
    elif duration is not None:
        text = f"{text}, in {duration:.3f} s"
    session.result(data, text)


def state_words(status: PatchStatus) -> str:
    """The state of a patch, and what will become of it if nobody confirms it."""
    confirmation = confirmation_data(status)
    if confirmation is None:
        return str(status.state)
    left = confirmation["left"]
    when = "when its owner ends" if left is None else f"in {_duration(cast('float', left))}"
    return f"{status.state}, reverted {when} unless confirmed"


def _duration(seconds: float) -> str:
    minutes, rest = divmod(max(0, round(seconds)), 60)
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"


# ---- errors ----


def report(session: Session, error: LivepatchError) -> int:
    """Print an error; return its exit code."""
    session.error(error_data(error), error_text(error))
    return exit_code(error)


def error_text(error: LivepatchError) -> str:
    """An error in words: on a terminal its parts have lines of their own."""
    words = "; ".join(error.log) or error.extack if isinstance(error, KernelError) else ""
    parts = (
        ("", error.message),
        ("state:  ", error.after),
        ("remedy: ", error.remedy),
        ("kernel: ", words),
        *(("note:   ", note) for note in getattr(error, "__notes__", ())),
    )
    if sys.stderr.isatty():
        text = "\n  ".join(f"{label}{words}" for label, words in parts if words)
    else:
        text = "; ".join([str(error), *getattr(error, "__notes__", ())])
    return printable(text, keep="\n\t")


def exit_code(error: LivepatchError) -> int:
    """The exit code of an error."""
    if isinstance(error, TransitionTimeoutError):
        return _STILL_IN_TRANSITION if error.state.in_transition else _REVERSED
    return next((code for kind, code in _CODES if isinstance(error, kind)), REFUSED)
