# SPDX-License-Identifier: MIT
"""``pylivepatch enable``, ``confirm``, ``revert`` and ``force``."""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING

import click

from pylivepatch.cli._session import (
    Session,
    changed,
    if_needed_option,
    json_option,
    policy,
    progress_bar,
    seconds,
    waiting_options,
)
from pylivepatch.cli.completion import patch_names
from pylivepatch.kernel.refusal import refusal
from pylivepatch.sequence import Outcome, Sequence, Step
from pylivepatch.state import PatchState

if TYPE_CHECKING:
    from pylivepatch._flow import OnProgress
    from pylivepatch.core import Core
    from pylivepatch.patch import Patch
    from pylivepatch.sequence import StepReport


@click.command()
@click.argument("name", shell_complete=patch_names)
@waiting_options
@click.option(
    "--confirm-within",
    type=click.FloatRange(min=0, min_open=True),
    metavar="SECONDS",
    help="The kernel reverts the patch unless it is confirmed in that time.",
)
@click.option(
    "--check",
    metavar="COMMAND",
    help="Confirm the patch if COMMAND succeeds; revert it if COMMAND fails, or if this command is killed.",
)
@click.option(
    "--check-timeout",
    type=float,
    default=30.0,
    show_default=True,
    metavar="SECONDS",
    callback=seconds,
    help="How long COMMAND may take; inf for any time.",
)
@click.option("--unload-replaced", is_flag=True, help="Then unload the patches that were replaced.")
@if_needed_option
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
    check_timeout: float | None,
    unload_replaced: bool,
    if_needed: bool,
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
                    if_needed=if_needed,
                    on_progress=show,
                )
                duration = transition.duration if transition.finished else None
                was_needed = transition.changed
            else:
                step = Step(
                    name=patch.name,
                    timeout=timeout,
                    on_timeout=policy(on_timeout),
                    check=check,
                    check_timeout=check_timeout,
                    confirm_within=confirm_within,
                )
                report = _enable_checked(core, patch, step, show, if_needed)
                duration, was_needed = report.duration, report.outcome is Outcome.DONE
        more = {"unloaded": core.unload_replaced()} if unload_replaced else {}
        changed(session, patch, duration, changed=was_needed, **more)
        if more and not session.json:
            click.echo("\n".join(f"{each}: unloaded" for each in more["unloaded"]) or "no patch was replaced")


def _enable_checked(core: Core, patch: Patch, step: Step, show: OnProgress | None, if_needed: bool) -> StepReport:
    """Enable a patch, and confirm it if a check succeeds; otherwise revert it."""
    if not if_needed and patch.state in (PatchState.ENABLED, PatchState.ENABLING):
        raise refusal(errno.EALREADY, "enable", patch.name)
    sequence = Sequence(core, [step], on_progress=None if show is None else lambda _, progress: show(progress))
    return sequence.run().reports[0]


@click.command()
@click.argument("name", shell_complete=patch_names)
@if_needed_option
@json_option
@click.pass_obj
def confirm(session: Session, name: str, if_needed: bool) -> None:
    """Keep the patch NAME, which was enabled with --confirm-within: the kernel does not revert it any more."""
    with session.core() as core:
        patch = core.patch(name)
        session.subject = patch.name
        changed(session, patch, changed=patch.confirm(if_needed=if_needed))


@click.command()
@click.argument("name", shell_complete=patch_names)
@waiting_options
@if_needed_option
@json_option
@click.pass_obj
def revert(
    session: Session, name: str, timeout: float | None, on_timeout: str, no_wait: bool, if_needed: bool
) -> None:
    """Revert the patch NAME: switch all tasks back to the old code."""
    with session.core() as core:
        patch = core.patch(name)
        session.subject = patch.name
        with progress_bar(session, patch.name) as show:
            transition = patch.revert(
                timeout, on_timeout=policy(on_timeout), wait=not no_wait, if_needed=if_needed, on_progress=show
            )
        changed(
            session, patch, transition.duration if transition.finished else None, changed=transition.changed
        )


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
    if not accept_risk:
        raise click.UsageError(f"forcing may crash the kernel: revert {name} instead, or give --accept-risk")
    with session.core() as core:
        patch = core.patch(name)
        session.subject = patch.name
        patch.force(accept_risk=accept_risk)
        changed(session, patch)
