# SPDX-License-Identifier: MIT
"""``pylivepatch health``: the state of the patches in a form that monitoring systems read."""

from __future__ import annotations

import enum
import math
import time
from typing import TYPE_CHECKING

import click

from pylivepatch.boot.store import Store
from pylivepatch.cli._session import Session, json_option
from pylivepatch.errors import LivepatchError
from pylivepatch.state import PatchState

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pylivepatch.state import PatchStatus


class Health(enum.IntEnum):
    """How well it is; the value is the exit code that Nagios, Icinga and others expect."""

    OK = 0
    WARNING = 1
    CRITICAL = 2
    UNKNOWN = 3


@click.command()
@click.option("--warning", type=click.FloatRange(min=0), default=60.0, show_default=True, metavar="SECONDS",
              help="Warn of a transition that takes longer.")
@click.option("--critical", type=click.FloatRange(min=0), default=300.0, show_default=True, metavar="SECONDS",
              help="A transition that takes longer is critical.")
@json_option
@click.pass_obj
def health(session: Session, warning: float, critical: float) -> None:
    """Check patches and transitions, as a plugin of a monitoring system.

    Critical: a patch that is installed for the running kernel is not enabled, or was left out because of a
    crash; a transition takes too long. Warning: a patch awaits its confirmation, was forced, or a
    transition takes long; patches are installed for other kernels, and none for the running one.

    The first line is the verdict, with performance data after a bar. Exits with 0 when all is
    well, with 1 for a warning, 2 when it is critical, and 3 when that cannot be told.
    """
    try:
        store = Store(root=session.root)
        with session.core() as core:
            patches = core.status()
        findings = [*_transitions(patches, warning, critical), *_patches(patches), *_installed(store, patches)]
        level = max((each for each, _ in findings), default=Health.OK)
    except LivepatchError as error:
        patches, findings, level = [], [(Health.UNKNOWN, str(error))], Health.UNKNOWN
    enabled = sum(status.state is PatchState.ENABLED for status in patches)
    running = max((status.progress.elapsed for status in patches if status.progress), default=0.0)
    unconfirmed = sum(status.confirm_until is not None for status in patches)
    perfdata = {
        "enabled": enabled,
        "loaded": len(patches),
        "unconfirmed": unconfirmed,
        "transition_seconds": round(running, 3),
    }
    worst = [words for each, words in findings if each is level] or [f"{enabled} of {len(patches)} patches enabled"]
    limits = {"transition_seconds": f"s;{warning:g};{critical:g};0"}
    numbers = " ".join(f"{name}={value}{limits.get(name, ';;;0')}" for name, value in perfdata.items())
    lines = [f"LIVEPATCH {level.name} - {'; '.join(worst)} | {numbers}"]
    lines += [f"{each.name}: {words}" for each, words in findings if each is not level]
    data = {
        "health": level.name.lower(),
        "findings": [{"health": each.name.lower(), "message": words} for each, words in findings],
        "perfdata": perfdata,
    }
    session.result(data, "\n".join(lines))
    click.get_current_context().exit(int(level))


def _transitions(patches: list[PatchStatus], warning: float, critical: float) -> Iterator[tuple[Health, str]]:
    for status in patches:
        if status.progress is not None and status.progress.elapsed > min(warning, critical):
            level = Health.CRITICAL if status.progress.elapsed > critical else Health.WARNING
            yield level, f"{status.name} has been {status.state} for {status.progress.elapsed:.0f} s"


def _patches(patches: list[PatchStatus]) -> Iterator[tuple[Health, str]]:
    for status in patches:
        if status.forced:
            yield Health.WARNING, f"{status.name} was forced: its module cannot be unloaded any more"
        if status.confirm_until is not None:
            left = status.confirm_until - time.monotonic()
            when = "when its owner ends" if math.isinf(left) else f"in {max(left, 0.0):.0f} s"
            yield Health.WARNING, f"{status.name} is reverted {when} unless confirmed"


def _installed(store: Store, patches: list[PatchStatus]) -> Iterator[tuple[Health, str]]:
    states = {status.name: status.state for status in patches}
    installed = store.patches()
    for each in installed:
        if each.crashed:
            yield Health.CRITICAL, f"{each.name} is left out at boot: the machine crashed after it"
        elif states.get(each.name) not in (PatchState.ENABLED, PatchState.ENABLING, PatchState.REPLACED):
            yield Health.CRITICAL, f"{each.name} is installed, and {states.get(each.name, 'not loaded')}"
    others = [release for release in store.releases() if release != store.release]
    if others and not installed:
        yield Health.WARNING, f"patches are installed for {', '.join(others)}, and none for this kernel"
