# SPDX-License-Identifier: MIT
"""``pylivepatch enable``, ``revert`` and ``force``."""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING

import click

from pylivepatch.cli._session import (
    Session,
    changed,
    json_option,
    policy,
    progress_bar,
    waiting_options,
)
from pylivepatch.cli.completion import patch_names
from pylivepatch.kernel.refusal import refusal
from pylivepatch.sequence import Sequence, Step
from pylivepatch.state import PatchState

if TYPE_CHECKING:
    from pylivepatch._flow import OnProgress, OnTimeout
    from pylivepatch.core import Core
    from pylivepatch.patch import Patch


@click.command()
@click.argument("name", shell_complete=patch_names)
@waiting_options
@click.option(
    "--confirm-within",
    type=click.FloatRange(min=0, min_open=True),
    metavar="SECONDS",
    help="The kernel takes the patch back unless it is confirmed in that time.",
)
@click.option(
    "--check",
    metavar="COMMAND",
    help="Confirm the patch if COMMAND succeeds, take it back if it fails, or if this command is killed.",
)
@click.option("--unload-replaced", is_flag=True, help="Then unload the patches that were replaced.")
@json_option
@click.pass_obj
def enable(
    session: Session,
    name: str,
    timeout: float | None,
    on_timeout: str,
    no_wait: bool,
    confirm_within: float | None,
    check: str | None,
    unload_replaced: bool,
) -> None:
    """Enable the patch NAME: switch all tasks to the new code."""
    if check is not None and no_wait:
        raise click.UsageError("--check needs the end of the transition: leave --no-wait out")
    if unload_replaced and (no_wait or (confirm_within is not None and check is None)):
        raise click.UsageError("--unload-replaced needs a patch that is to stay: enabled, and confirmed")
    with session.core() as core:
        patch = core.patch(name)
        session.subject = patch.name
        with progress_bar(session, patch.name) as show:
            if check is None:
                transition = patch.enable(
                    timeout,
                    on_timeout=policy(on_timeout),
                    wait=not no_wait,
                    confirm_within=confirm_within,
                    on_progress=show,
                )
                duration = transition.duration if transition.finished else None
            else:
                duration = _enable_checked(core, patch, check, timeout, policy(on_timeout), confirm_within, show)
        if unload_replaced:
            core.unload_replaced()
        changed(session, patch, duration)


def _enable_checked(
    core: Core,
    patch: Patch,
    check: str,
    timeout: float | None,
    on_timeout: OnTimeout,
    confirm_within: float | None,
    show: OnProgress | None,
) -> float | None:
    """Enable a patch, and confirm it if a check succeeds; otherwise revert it. Returns how long that took."""
    if patch.state in (PatchState.ENABLED, PatchState.ENABLING):
        raise refusal(errno.EALREADY, "enable", patch.name)
    step = Step(
        name=patch.name, timeout=timeout, on_timeout=on_timeout, check=check, confirm_within=confirm_within
    )
    sequence = Sequence(core, [step], on_progress=None if show is None else lambda _, progress: show(progress))
    return sequence.run().reports[0].duration


@click.command()
@click.argument("name", shell_complete=patch_names)
@json_option
@click.pass_obj
def confirm(session: Session, name: str) -> None:
    """Let the patch NAME stay, which was enabled with --confirm-within."""
    with session.core() as core:
        patch = core.patch(name)
        patch.confirm()
        changed(session, patch, None)


@click.command()
@click.argument("name", shell_complete=patch_names)
@waiting_options
@json_option
@click.pass_obj
def revert(session: Session, name: str, timeout: float | None, on_timeout: str, no_wait: bool) -> None:
    """Revert the patch NAME: switch all tasks back to the old code."""
    with session.core() as core:
        patch = core.patch(name)
        session.subject = patch.name
        with progress_bar(session, patch.name) as show:
            transition = patch.revert(timeout, on_timeout=policy(on_timeout), wait=not no_wait, on_progress=show)
        changed(session, patch, transition.duration if transition.finished else None)


@click.command()
@click.argument("name", shell_complete=patch_names)
@click.option("--accept-risk", is_flag=True, help="Yes, this may crash the kernel.")
@json_option
@click.pass_obj
def force(session: Session, name: str, accept_risk: bool) -> None:
    """End the transition of the patch NAME without waiting for its tasks.

    It breaks the consistency of the patch, and a module whose code is left so can never be unloaded.
    Prefer to revert.
    """
    with session.core() as core:
        patch = core.patch(name)
        patch.force(accept_risk=accept_risk)
        changed(session, patch, None)
