# SPDX-License-Identifier: MIT
"""``pylivepatch wait`` and ``signal``: what to do about a transition that runs."""

from __future__ import annotations

import click

from pylivepatch.cli._data import blocker_data
from pylivepatch.cli._session import Session, changed, json_option, policy, progress_bar, seconds
from pylivepatch.cli.completion import patch_names


@click.command()
@click.argument("name", shell_complete=patch_names)
@click.option(
    "--timeout",
    type=float,
    default=30.0,
    show_default=True,
    metavar="SECONDS",
    callback=seconds,
    help="How long to wait from now; inf for any time.",
)
@click.option(
    "--on-timeout",
    type=click.Choice(["report", "reverse"]),
    default="report",
    show_default=True,
    help="Leave the transition going, or reverse it.",
)
@json_option
@click.pass_obj
def wait(session: Session, name: str, timeout: float | None, on_timeout: str) -> None:
    """Wait for the end of the transition of the patch NAME, whoever started it.

    Returns at once when the patch is in no transition. Interrupting it changes nothing.
    """
    with session.core() as core:
        patch = core.patch(name)
        session.subject = patch.name
        transition = patch.transition
        if transition is None:
            changed(session, patch, changed=False)
            return
        transition.within(None if timeout is None else transition.duration + timeout, policy(on_timeout))
        with progress_bar(session, patch.name) as show:
            for progress in transition:
                if show is not None:
                    show(progress)
        changed(session, patch, transition.duration, changed=False)


@click.command()
@json_option
@click.pass_obj
def signal(session: Session) -> None:
    """Make the tasks that the running transition waits for leave the functions they sleep in.

    Their processes are stopped for a tenth of a second, and continued, as kpatch does: a task that
    sleeps interruptibly leaves its system call for that, which is restarted afterwards. Uninterruptible
    sleepers, kernel threads and stopped processes are left alone.
    """
    with session.core() as core:
        found = core.signal_blockers()
    lines = [f"signalled {blocker}" for blocker in found] or ["no task that can be signalled holds a transition up"]
    session.result({"signalled": [blocker_data(blocker) for blocker in found]}, "\n".join(lines))
