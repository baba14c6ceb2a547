# SPDX-License-Identifier: MIT
"""The group that holds all commands."""

from __future__ import annotations

import importlib
import itertools
import sys
from typing import TYPE_CHECKING, Any

import click

from pylivepatch.cli._session import USAGE, Session, json_option, report
from pylivepatch.cli._signals import interruptible, report_interruption
from pylivepatch.errors import LivepatchError

if TYPE_CHECKING:
    from collections.abc import Sequence

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

SECTIONS: dict[str, dict[str, str]] = {
    "Patches": {
        "load": "load:load",
        "enable": "change:enable",
        "confirm": "change:confirm",
        "revert": "change:revert",
        "unload": "load:unload",
        "apply": "apply:apply",
        "wait": "wait:wait",
        "signal": "wait:signal",
        "force": "change:force",
    },
    "Information": {
        "list": "show:list_",
        "status": "show:status",
        "blockers": "show:blockers",
        "info": "info:info",
        "check": "check:check",
        "watch": "watch:watch",
        "health": "health:health",
        "metrics": "metrics:metrics",
        "doctor": "doctor:doctor",
    },
    "Boot": {
        "install": "install:install",
        "uninstall": "install:uninstall",
        "boot": "boot:boot",
        "klpctl": "klpctl:klpctl",
    },
    "Building and trying": {
        "build": "build:build",
        "try": "build:try_",
        "package": "package:package",
        "lab": "lab:lab",
    },
    "Shell": {"completion": "completion:completion"},
}
"""The commands as the help groups them. Where each is: its module in this package, and its name there."""

_COMMANDS = {name: place for section in SECTIONS.values() for name, place in section.items()}


class Commands(click.Group):
    """A group that turns exceptions into messages and exit codes, and imports a command when it is asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002
        """Name all commands, in the order of the help."""
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        """Find a command."""
        if cmd_name not in _COMMANDS:
            return None
        module, _, name = _COMMANDS[cmd_name].partition(":")
        command: click.Command = getattr(importlib.import_module(f"pylivepatch.cli.{module}"), name)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the sections, each command with the whole of its first sentence."""
        for section, places in SECTIONS.items():
            commands = [(name, self.get_command(ctx, name)) for name in places]
            rows = [(name, each.get_short_help_str(limit=200)) for name, each in commands if each is not None]
            with formatter.section(section):
                formatter.write_dl(rows)

    def main(
        self,
        args: Sequence[str] | None = None,
        prog_name: str | None = None,
        complete_var: str | None = None,
        standalone_mode: bool = True,
        **extra: Any,
    ) -> Any:
        """Run the command line; a usage error is JSON, too, when that is asked for."""
        words = list(sys.argv[1:] if args is None else args)
        # What follows "--" is for another command.
        if not standalone_mode or "--json" not in itertools.takewhile(lambda word: word != "--", words):
            return super().main(args, prog_name, complete_var, standalone_mode, **extra)
        try:
            sys.exit(super().main(args, prog_name, complete_var, standalone_mode=False, **extra) or 0)
        except click.ClickException as error:
            Session(json=True).error({"type": type(error).__name__, "message": error.format_message()}, "")
            sys.exit(error.exit_code)
        except click.Abort:
            sys.exit(USAGE)

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


@click.group(
    cls=Commands,
    epilog=_EPILOG,
    context_settings={"help_option_names": ["-h", "--help"]},
)
@click.version_option(package_name="pylivepatch")
@click.option(
    "--backend",
    type=click.Choice(["auto", "klpctl", "sysfs"]),
    default="auto",
    show_default=True,
    envvar="PYLIVEPATCH_BACKEND",
    show_envvar=True,
    help="How to reach the kernel.",
)
@click.option("--root", type=click.Path(file_okay=False, exists=True), default="/", hidden=True)
@json_option
@click.pass_context
def group(ctx: click.Context, backend: Any, root: str) -> None:
    """Live-patch the running kernel: load, enable, follow and revert patches."""
    session = ctx.ensure_object(Session)
    session.backend = backend
    session.root = root
