# SPDX-License-Identifier: MIT
"""``pylivepatch enable``, ``revert`` and ``force``."""

from __future__ import annotations

import click

from pylivepatch.cli._session import (
    Session,
    changed,
    follow,
    interruptible,
    json_option,
    policy,
    waiting_options,
)
from pylivepatch.state import Target


def _change(
    session: Session,
    name: str,
    target: Target,
    timeout: float | None,
    on_timeout: str,
    no_wait: bool,
) -> None:
    with session.core() as core:
        patch = core.patch(name)
        start = patch.enable if target is Target.PATCHED else patch.revert
        with interruptible(session, lambda: patch, target):
            transition = start(timeout, on_timeout=policy(on_timeout), wait=False)
            if not no_wait:
                follow(session, transition)
            changed(session, patch, transition)


@click.command()
@click.argument("name")
@waiting_options
@json_option
@click.pass_obj
def enable(session: Session, name: str, timeout: float | None, on_timeout: str, no_wait: bool) -> None:
    """Enable the patch NAME: switch all tasks to the new code."""
    _change(session, name, Target.PATCHED, timeout, on_timeout, no_wait)


@click.command()
@click.argument("name")
@waiting_options
@json_option
@click.pass_obj
def revert(session: Session, name: str, timeout: float | None, on_timeout: str, no_wait: bool) -> None:
    """Revert the patch NAME: switch all tasks back to the old code."""
    _change(session, name, Target.UNPATCHED, timeout, on_timeout, no_wait)


@click.command()
@click.argument("name")
@click.option("--accept-risk", is_flag=True, help="Yes, this may crash the kernel.")
@json_option
@click.pass_obj
def force(session: Session, name: str, accept_risk: bool) -> None:
    """End the transition of the patch NAME without waiting for its tasks.

    It breaks the consistency of the patch, and its module can never be unloaded.
    Prefer to revert.
    """
    with session.core() as core:
        patch = core.patch(name)
        patch.force(accept_risk=accept_risk)
        changed(session, patch, None)
