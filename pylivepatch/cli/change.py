# SPDX-License-Identifier: MIT
"""``pylivepatch enable``, ``revert`` and ``force``."""

from __future__ import annotations

import contextlib
import functools
import math
import subprocess
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING

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
from pylivepatch.cli.completion import patch_names
from pylivepatch.errors import CheckError, PatchStateError
from pylivepatch.state import Target

if TYPE_CHECKING:
    from pylivepatch.patch import Patch
    from pylivepatch.transition import Transition


def _change(
    session: Session,
    name: str,
    target: Target,
    timeout: float | None,
    on_timeout: str,
    no_wait: bool,
    confirm_within: float | None = None,
    check: str | None = None,
    unload_replaced: bool = False,
) -> None:
    with session.core() as core:
        patch = core.patch(name)
        start: Callable[..., Transition] = patch.revert
        if target is Target.PATCHED:
            # With a check somebody is here to confirm: our end is the patch's end.
            window = math.inf if check is not None and confirm_within is None else confirm_within
            start = functools.partial(patch.enable, confirm_within=window, owned=check is not None)
        with interruptible(session, lambda: patch, target):
            transition = start(timeout, on_timeout=policy(on_timeout), wait=False)
            if not no_wait:
                follow(session, transition)
            if check is not None:
                _confirm_if(check, patch)
            if unload_replaced:
                core.unload_replaced()
            changed(session, patch, transition)


def _confirm_if(check: str, patch: Patch) -> None:
    """Confirm a patch if a command succeeds; otherwise take it back, and raise."""
    try:
        status = subprocess.run(check, shell=True, check=False, stdout=sys.stderr).returncode
    except KeyboardInterrupt:
        _take_back(patch)
        raise
    if status == 0:
        patch.confirm()
        return
    _take_back(patch)
    raise CheckError(
        f"the check of {patch.name} failed with exit status {status}: {check}",
        after=f"the patch was taken back and is {patch.state}",
        remedy="find out what the check found",
    )


def _take_back(patch: Patch) -> None:
    """Revert a patch, unless the kernel has done that when its window ended."""
    with contextlib.suppress(PatchStateError):
        # Not in one call: when that is interrupted, the revert goes on.
        patch.revert(wait=False).wait()


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
    _change(session, name, Target.PATCHED, timeout, on_timeout, no_wait, confirm_within, check, unload_replaced)


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
    _change(session, name, Target.UNPATCHED, timeout, on_timeout, no_wait)


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
