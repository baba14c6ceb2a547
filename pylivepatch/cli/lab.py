# SPDX-License-Identifier: MIT
"""`pylivepatch lab`: run a command on a stock kernel in QEMU."""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import NoReturn

import click

from pylivepatch import lab as stock
from pylivepatch.cli._data import error_data
from pylivepatch.cli._session import Session, json_option
from pylivepatch.errors import LivepatchError, UnsupportedError
from pylivepatch.lab import archive
from pylivepatch.lab import kernel as stock_kernel
from pylivepatch.lab.session import TIMEOUT

EXIT_LAB = 125
"""The guest was lost, or could not be started: nothing is known about the command."""

EXIT_UNSUPPORTED = 9
EXIT_INTERRUPTED = 130


@click.group("lab")
def lab() -> None:
    """Try things on stock kernels in QEMU."""


def _fail(session: Session, error: LivepatchError, status: int) -> NoReturn:
    session.error(error_data(error), str(error))
    sys.exit(status)


def _terminated(_number: int, _frame: FrameType | None) -> NoReturn:
    raise KeyboardInterrupt


@lab.command("run")
@click.option("--kernel", required=True, metavar="SERIES|RELEASE",
              help="Newest stock kernel of a series, e.g. 6.1, or a certain one, e.g. 6.1.0-54-amd64.")
@click.option("--flavour", type=click.Choice(stock.FLAVOURS), default="standard", show_default=True)
@click.option("--suite", default="", metavar="SUITE",
              help="Take the kernel from this suite or distribution, e.g. bookworm; the newest by default.")
@click.option("--cpus", type=click.IntRange(1, 64), default=2, show_default=True)
@click.option("--memory", metavar="SIZE", default="1G", show_default=True)
@click.option("--share", "shares", multiple=True, metavar="DIR[:rw]",
              help="Mount DIR at the same path, read-only unless :rw follows. May be repeated.")
@click.option("--module", "modules", multiple=True, metavar="DIR",
              type=click.Path(exists=True, file_okay=False, path_type=Path),
              help="Build the modules of DIR for the guest, into $PYLIVEPATCH_LAB_MODULES there. May be repeated.")
@click.option("--env", "variables", multiple=True, metavar="NAME=VALUE", help="Variable for COMMAND. May be repeated.")
@click.option("--timeout", type=click.FloatRange(min=0, min_open=True), metavar="SECONDS", default=TIMEOUT,
              show_default=True, help="Stop the guest when COMMAND takes longer.")
@click.option("--klpctl/--no-klpctl", default=True, help="Whether the guest has klpctl; it does by default.")
@click.option("--kaslr", is_flag=True, help="Randomize the kernel's addresses; boots more slowly.")
@click.option("--append", "parameters", default="", metavar="TEXT", help="More of the kernel's command line.")
@click.option("--console", type=click.Path(dir_okay=False, path_type=Path), metavar="FILE",
              help="Keep what the guest's console said in FILE.")
@json_option
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED)
@click.pass_obj
def run(
    session: Session, kernel: str, flavour: str, suite: str, cpus: int, memory: str, shares: tuple[str, ...],
    modules: tuple[Path, ...], variables: tuple[str, ...], timeout: float, klpctl: bool, kaslr: bool, parameters: str,
    console: Path | None, command: tuple[str, ...],
) -> None:
    """Run COMMAND as root in a guest with a stock kernel and exit with its exit status.

    The guest has the pylivepatch package and command, klpctl for `modprobe klpctl`, and udevd. Everything
    but the shared directories is forgotten when it ends. With --json COMMAND's output is kept, and printed at
    the end in one JSON object with how it all ended.

    Exit status: COMMAND's own; 125 when the guest was lost (died or hung) or could not be started, with the
    end of its console; 130 when interrupted; 9 when this machine cannot run the lab; 2 for wrong usage.
    """
    environment = {}
    for variable in variables:
        name, equals, value = variable.partition("=")
        if not equals or not name.isidentifier():
            raise click.UsageError(f"--env {variable!r}: expected NAME=VALUE")
        environment[name] = value
    booted: list[stock.Kernel] = []
    kept = (stock.Kept(), stock.Kept()) if session.json else (None, None)
    status: int | None = None
    failure: LivepatchError | None = None
    before = signal.signal(signal.SIGTERM, _terminated)
    try:
        status = stock.run(command, kernel=kernel, flavour=flavour, suite=suite, cpus=cpus, memory=memory,
                           shares=[share.removesuffix(":ro") for share in shares if not share.endswith(":rw")],
                           writable=[share.removesuffix(":rw") for share in shares if share.endswith(":rw")],
                           modules=modules, timeout=timeout, environment=environment, klpctl=klpctl,
                           kaslr=kaslr, parameters=parameters, console=console, stdout=kept[0], stderr=kept[1],
                           prepared=booted.append)
    except ValueError as error:
        raise click.UsageError(str(error)) from error
    except KeyboardInterrupt:
        session.error({"type": "Interrupted", "message": "interrupted; the guest was stopped"},
                      "interrupted; the guest was stopped")
        sys.exit(EXIT_INTERRUPTED)
    except LivepatchError as error:
        if not session.json:
            _fail(session, error, _status(error))
        failure = error
    finally:
        signal.signal(signal.SIGTERM, before)
    if session.json:
        stdout, stderr = (stream.getvalue().decode(errors="replace") if stream else "" for stream in kept)
        lost = failure if isinstance(failure, stock.GuestLostError) else None
        session.result({
            "kernel": booted[0].release if booted else None, "flavour": flavour, "status": status, "stdout": stdout,
            "stderr": stderr, "lost": lost.reason if lost else None, "console": lost.console if lost else None,
            "error": error_data(failure) if failure and not lost else None,
        }, "")  # fmt: skip
    if failure:
        sys.exit(_status(failure))
    sys.exit(status)


def _status(error: LivepatchError) -> int:
    return EXIT_UNSUPPORTED if isinstance(error, UnsupportedError) else EXIT_LAB


@lab.command("kernels")
@click.option("--all", "every", is_flag=True, help="Each release, not only the newest of a series in a suite.")
@json_option
@click.pass_obj
def kernels(session: Session, every: bool) -> None:
    """List the stock kernels that can be had, newest first, and whether they are in the cache."""
    try:
        rows = list(_kernels(every))
    except LivepatchError as error:
        _fail(session, error, EXIT_LAB)
    line = "{series:8}{flavour:10}{release:34}{version:24}{suite:20}{cached}"
    lines = [line.format(**{name: name.upper() for name in rows[0]}) if rows else "no kernels"]
    lines += (line.format(**{**row, "cached": "yes" if row["cached"] else "no"}) for row in rows)
    session.result({"kernels": rows}, "\n".join(lines))


def _kernels(every: bool) -> Iterator[dict[str, object]]:
    held = {(kernel.release, kernel.version) for kernel in stock_kernel.cached()}
    seen = set()
    for series, flavour, image in stock_kernel.available():
        release = stock_kernel.release_of(image)
        if every or (series, flavour, image.distribution) not in seen:
            seen.add((series, flavour, image.distribution))
            yield {"series": series, "flavour": flavour, "release": release, "version": image.version,
                   "suite": image.suite, "cached": (release, image.version) in held}  # fmt: skip


@lab.command("state")
@json_option
@click.pass_obj
def state(session: Session) -> None:
    """Print the name of the archive's state, after refreshing package lists that are older than a day.

    With this name in PYLIVEPATCH_ARCHIVE, commands see one state of the archive, whatever happens meanwhile.
    """
    try:
        name = archive.state().name
    except LivepatchError as error:
        _fail(session, error, EXIT_LAB)
    session.result({"state": name}, name)
