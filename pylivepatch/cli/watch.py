# SPDX-License-Identifier: MIT
"""``pylivepatch watch``."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import click

from pylivepatch.cli._session import Session, json_option
from pylivepatch.monitor import Action

if TYPE_CHECKING:
    from pylivepatch.monitor import Event, EventSource


@click.command()
@click.option(
    "--source",
    type=click.Choice(["netlink", "udev"]),
    default="netlink",
    show_default=True,
    help="From klpctl itself, or after udevd.",
)
@click.option("--progress", is_flag=True, help="Progress of transitions, too.")
@click.option("--count", type=click.IntRange(min=1), metavar="N", help="End after N events.")
@json_option
@click.pass_obj
def watch(session: Session, source: str, progress: bool, count: int | None) -> None:
    """Print events of all patches as they happen, one on a line."""
    with session.core() as core, core.monitor(cast("EventSource", source)) as monitor:
        if not session.json:
            click.echo(f"pylivepatch: listening to {source}", err=True)
        lost = 0
        events = (event for event in monitor if progress or event.action is not Action.PROGRESS)
        for seen, event in enumerate(events, start=1):
            if monitor.lost > lost:
                session.result({"lost": monitor.lost - lost}, f"({monitor.lost - lost} events were lost)")
                lost = monitor.lost
            session.result(_data(event), _line(event))
            if seen == count:
                break


def _data(event: Event) -> dict[str, object]:
    return {
        "sequence": event.sequence,
        "time": event.time,
        "action": str(event.action),
        "name": event.name,
        "state": str(event.state),
        "target": None if event.target is None else str(event.target),
        "registered": event.registered,
        "replace": event.replace,
        "forced": event.forced,
        "source": event.source,
        **({"done": event.done, "total": event.total} if event.action is Action.PROGRESS else {}),
    }


def _line(event: Event) -> str:
    target = f" → {event.target}" if event.target else ""
    if event.action is Action.PROGRESS:
        target += f" {event.done} of {event.total}"
    return f"{event.time:14.6f}  {event.sequence:6}  {event.name}  {event.action}{target}  ({event.state})"
