# SPDX-License-Identifier: MIT
"""``pylivepatch watch``."""

from __future__ import annotations

import dataclasses
import time
from typing import TYPE_CHECKING, cast

import click

from pylivepatch.cli._data import event_data, wall_time
from pylivepatch.cli._session import Session, json_option, seconds, state_words
from pylivepatch.cli.completion import patch_names
from pylivepatch.kernel.names import patch_name
from pylivepatch.monitor import Action
from pylivepatch.state import Target

if TYPE_CHECKING:
    from pylivepatch.monitor import Event, EventSource
    from pylivepatch.state import PatchStatus


@click.command()
@click.argument("names", nargs=-1, metavar="[NAME]...", shell_complete=patch_names)
@click.option(
    "--source",
    type=click.Choice(["netlink", "udev"]),
    default="netlink",
    show_default=True,
    help="From klpctl itself, or after udevd.",
)
@click.option(
    "--action",
    "actions",
    type=click.Choice([str(action) for action in Action]),
    multiple=True,
    help="Only these; more than once for several.",
)
@click.option("--progress", is_flag=True, help="Progress of transitions, too.")
@click.option("--count", type=click.IntRange(min=1), metavar="N", help="End after N events.")
@click.option("--timeout", type=float, metavar="SECONDS", callback=seconds, help="End after that time.")
@json_option
@click.pass_obj
def watch(
    session: Session,
    names: tuple[str, ...],
    source: str,
    actions: tuple[str, ...],
    progress: bool,
    count: int | None,
    timeout: float | None,
) -> None:
    """Print events of all patches, or of the patches NAME, as they happen, one on a line."""
    wanted = {patch_name(name) for name in names}
    end = None if timeout is None else time.monotonic() + timeout
    with session.core() as core, core.monitor(cast("EventSource", source)) as monitor:
        if not session.json:
            click.echo(f"pylivepatch: listening to {source}", err=True)
        lost = shown = 0
        while shown != count:
            event = monitor.read(None if end is None else max(0.0, end - time.monotonic()))
            if event is None:
                break
            if monitor.lost > lost:
                number, lost = monitor.lost - lost, monitor.lost
                session.result({"type": "lost", "count": number}, f"({number} events were lost)")
            is_wanted = event.action is not Action.PROGRESS or progress or event.action in actions
            if is_wanted and (not wanted or event.name in wanted) and (not actions or event.action in actions):
                # An event does not tell whether the patch that is being enabled, or was, is to be confirmed.
                asked = event.target is Target.PATCHED and event.action in (Action.STARTED, Action.COMPLETED)
                status = core.kernel.status(event.name) if asked else None
                session.result(event_data(event, status), event_line(event, status))
                shown += 1


def event_line(event: Event, status: PatchStatus | None = None) -> str:
    """An event in words; with a status, whether the patch will be reverted if nobody confirms it."""
    target = f" → {event.target}" if event.target else ""
    if event.action is Action.PROGRESS:
        target += f" {event.done} of {event.total}"
    state = event.state if status is None else state_words(dataclasses.replace(status, state=event.state))
    return f"{wall_time(event.time)}  {event.sequence:6}  {event.name}  {event.action}{target}  ({state})"
