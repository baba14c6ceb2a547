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
import sys
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, ClassVar, Literal, TypeVar, cast

import click

from pylivepatch.core import Core
from pylivepatch.errors import (
    AccessError,
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
    from pylivepatch.patch import Patch
    from pylivepatch.state import PatchStatus, Target
    from pylivepatch.transition import OnTimeout, Transition

_Command = TypeVar("_Command", bound=Callable[..., Any])

# The first that fits, so leaves before their bases.
_CODES: tuple[tuple[type[LivepatchError], int], ...] = (
    (AccessError, 3),
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


@dataclasses.dataclass
class Session:
    """The options that all commands share."""

    INTERRUPTED: ClassVar[int] = 130

    backend: str = "auto"
    root: str = "/"
    json: bool = False

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
        help="Turn the transition round, or leave it going.",
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


def follow(session: Session, transition: Transition) -> None:
    """Wait for the end of a transition, with a bar on a terminal."""
    if session.json or not sys.stderr.isatty():
        transition.wait()
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
        bar = bars.add_task(f"{transition.patch.name} → {transition.target}", total=None)
        for progress in transition:
            bars.update(bar, completed=progress.done, total=progress.total or None)


@contextlib.contextmanager
def interruptible(
    session: Session, find: Callable[[], Patch], target: Target, *, unload: bool = False
) -> Iterator[None]:
    """Let Ctrl-C in the body turn the patch's transition to `target` round.

    What was started is asked of the kernel, so that no moment is too early or too
    late for it. A second Ctrl-C stops the wait for the reversal.
    """
    try:
        yield
    except KeyboardInterrupt:
        name, state = "", "not loaded"
        with contextlib.suppress(LivepatchError, KeyboardInterrupt):
            patch = find()
            name, state = patch.name, str(patch.state)
            try:
                running = patch.transition
                if running is not None and running.target is target:
                    running.reverse()
                    running.wait()
            finally:
                state = str(patch.state)
            if unload and not patch.state.in_transition:
                patch.unload()
                state = "not loaded"
        if session.json:
            data = {"type": "Interrupted", "message": "interrupted", "patch": name, "state": state}
            click.echo(json.dumps({"error": data}), err=True)
        else:
            click.echo(f"pylivepatch: interrupted; patch {name} is {state}", err=True)
        click.get_current_context().exit(Session.INTERRUPTED)


def changed(session: Session, patch: Patch, transition: Transition | None) -> None:
    """Print where a patch stands after a change, and how long that took."""
    status = patch.status()
    duration = transition.duration if transition is not None and transition.finished else None
    text = f"{status.name}: {status.state}"
    if duration is not None:
        text = f"{text}, in {duration:.3f} s"
    session.result({**patch_data(status), "duration": duration}, text)


def policy(name: str) -> OnTimeout:
    """The policy of ``--on-timeout``, which click has checked."""
    return cast("OnTimeout", name)
