# SPDX-License-Identifier: MIT
"""``pylivepatch boot``: what the systemd unit runs."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import time
from collections.abc import Iterator
from types import FrameType
from typing import NoReturn

import click

from pylivepatch.boot import Boot, BootOutcome, BootStep
from pylivepatch.boot.store import Store
from pylivepatch.cli._data import error_data
from pylivepatch.cli._session import Session, exit_code, json_option, report
from pylivepatch.cli.install import CRASHED

_SETTLE = 60.0
_REFUSED = 8
_LONGEST_STEP = 90_000_000
"""Microseconds that a patch may take, for systemd: its deadline, its reversal, and loading it."""


class _Stopped(BaseException):
    """SIGTERM came: an orderly end."""


@click.command()
@click.option(
    "--settle",
    type=click.FloatRange(min=0),
    default=_SETTLE,
    show_default=True,
    metavar="SECONDS",
    help="How long a crash counts against the patches; wait for so long.",
)
@json_option
@click.pass_obj
def boot(session: Session, settle: float) -> None:
    """Apply the installed patches of the running kernel, as pylivepatch.service does at boot.

    Each is applied within 30 s or reversed, in the order of their installation; one
    that fails does not stop the others. Nothing is applied when the kernel's command
    line has pylivepatch.enable=0.

    Then it waits for a minute. If the machine crashes until then, the patches that
    this call has applied are not applied at the next boot, until they are installed
    again. SIGTERM and Ctrl-C end the wait in good order, and so does an orderly
    shutdown.

    The exit code is that of the first patch that failed, and 8 when one was left out
    because of a crash.
    """
    status = 0
    try:
        with _stoppable(), Boot(Store(root=session.root), backend=session.backend) as applied:
            status = _apply(session, applied)
            if applied.on_trial and settle:
                _notify(f"STATUS=A crash counts against {', '.join(applied.on_trial)}")
                time.sleep(settle)
            _notify("STATUS=")
    except _Stopped:
        status = 0
    click.get_current_context().exit(status)


def _apply(session: Session, applied: Boot) -> int:
    status = 0
    steps: list[BootStep] = []
    _alive()
    killed = applied.killed
    for step in applied.apply():
        steps.append(step)
        status = status or _report(session, step)
        _alive()
    if session.json:
        data: dict[str, object] = {
            "kernel": applied.store.release,
            "enabled": not killed,
            "patches": [
                {
                    "name": step.patch.name,
                    "outcome": str(step.outcome),
                    "error": None if step.error is None else error_data(step.error),
                }
                for step in steps
            ],
        }
        session.result(data, "")
    elif killed:
        click.echo("pylivepatch.enable=0 is on the kernel's command line: nothing is applied")
    _notify("READY=1")
    return status


def _report(session: Session, step: BootStep) -> int:
    name = step.patch.name
    if step.error is not None:
        return exit_code(step.error) if session.json else report(session, step.error)
    if step.outcome is BootOutcome.CRASHED:
        if not session.json:
            click.echo(f"pylivepatch: {name} is not applied: {CRASHED}", err=True)
        return _REFUSED
    if not session.json:
        click.echo(f"{name}: {'applied' if step.outcome is BootOutcome.APPLIED else 'applied already'}")
    return 0


def _alive() -> None:
    _notify(f"EXTEND_TIMEOUT_USEC={_LONGEST_STEP}")


def _notify(state: str) -> None:
    """Tell systemd, if it is listening.

    Source: sd_notify(3), NOTIFY_SOCKET.
    """
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address:
        return
    if address.startswith("@"):
        address = f"\0{address[1:]}"
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.connect(address)
        manager.send(state.encode())


@contextlib.contextmanager
def _stoppable() -> Iterator[None]:
    """Make an exception of SIGTERM."""

    def stop(_number: int, _frame: FrameType | None) -> NoReturn:
        raise _Stopped

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
