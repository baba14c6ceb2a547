# SPDX-License-Identifier: MIT
"""The group that holds all commands."""

from __future__ import annotations

import importlib

import click

from pylivepatch.cli._session import Session, interruptible, report, report_interruption
from pylivepatch.errors import LivepatchError

_EPILOG = """\b
Exit codes:
    0  done
    2  usage
    3  not permitted
    4  no such patch or file
    5  another transition is running
    6  reverted: timed out, not confirmed, or a check failed
    7  timed out, still in transition
    8  refused
    9  not supported here
   10  it is so already
  128  and the signal's number: interrupted; 130 by Ctrl-C
"""


_COMMANDS = {
    "apply": "apply:apply", "blockers": "show:blockers", "boot": "boot:boot", "build": "build:build",
    "check": "check:check", "completion": "completion:completion", "confirm": "change:confirm",
    "enable": "change:enable", "force": "change:force", "info": "info:info", "install": "install:install",
    "lab": "lab:lab", "list": "show:list_", "load": "load:load", "metrics": "metrics:metrics",
    "revert": "change:revert", "status": "show:status", "try": "build:try_", "uninstall": "install:uninstall",
    "unload": "load:unload", "watch": "watch:watch",
}
"""Where each command is: its module in this package, and its name there."""


class Commands(click.Group):
    """A group that turns exceptions into messages and exit codes, and imports a command when it is asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002
        """Name all commands."""
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        """Find a command."""
        if cmd_name not in _COMMANDS:
            return None
        module, _, name = _COMMANDS[cmd_name].partition(":")
        command: click.Command = getattr(importlib.import_module(f"pylivepatch.cli.{module}"), name)
        return command

    def invoke(self, ctx: click.Context) -> object:
        """Run a command; report what it raises."""
        session = ctx.ensure_object(Session)
        try:
            with interruptible():
                return super().invoke(ctx)
        except LivepatchError as error:
            ctx.exit(report(session, error))
        except KeyboardInterrupt as error:
            ctx.exit(report_interruption(session, error))


@click.group(cls=Commands, epilog=_EPILOG, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="pylivepatch")
@click.option(
    "--backend",
    type=click.Choice(["auto", "klpctl", "sysfs"]),
    default="auto",
    show_default=True,
    help="How to reach the kernel.",
)
@click.option("--root", type=click.Path(file_okay=False, exists=True), default="/", hidden=True)
@click.pass_context
def group(ctx: click.Context, backend: str, root: str) -> None:
    """Live-patch the running kernel: load, enable, follow and revert patches."""
    session = ctx.ensure_object(Session)
    session.backend = backend
    session.root = root
