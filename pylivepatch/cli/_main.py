# SPDX-License-Identifier: MIT
"""The group that holds all commands."""

from __future__ import annotations

import click

from pylivepatch.cli._session import Session, report
from pylivepatch.cli.apply import apply
from pylivepatch.cli.boot import boot
from pylivepatch.cli.change import confirm, enable, force, revert
from pylivepatch.cli.check import check
from pylivepatch.cli.completion import completion
from pylivepatch.cli.info import info
from pylivepatch.cli.install import install, uninstall
from pylivepatch.cli.load import load, unload
from pylivepatch.cli.metrics import metrics
from pylivepatch.cli.show import blockers, list_, status
from pylivepatch.cli.watch import watch
from pylivepatch.errors import LivepatchError

_EPILOG = """\b
Exit codes:
  0  done                              6  taken back: timed out, reversed, check failed
  2  usage                             7  timed out, still in transition
  3  not permitted                     8  refused by the kernel
  4  no such patch or file             9  not supported here
  5  another transition is running   130  interrupted
"""


class Commands(click.Group):
    """A group that turns exceptions into messages and exit codes.

    It imports `lab`, `build` and `try` when they are asked for: nothing else needs their machinery.
    """

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Name all commands."""
        return sorted([*super().list_commands(ctx), "lab", "build", "try"])

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Find a command."""
        if cmd_name == "lab":
            from pylivepatch.cli.lab import lab

            return lab
        if cmd_name in ("build", "try"):
            from pylivepatch.cli.build import build, try_

            return build if cmd_name == "build" else try_
        return super().get_command(ctx, cmd_name)

    def invoke(self, ctx: click.Context) -> object:
        """Run a command; report what it raises."""
        try:
            return super().invoke(ctx)
        except LivepatchError as error:
            ctx.exit(report(ctx.ensure_object(Session), error))
        except KeyboardInterrupt:
            ctx.exit(Session.INTERRUPTED)


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


for command in (load, enable, confirm, revert, unload, list_, status, blockers, watch, force):
    group.add_command(command)
for command in (install, uninstall, boot, completion):
    group.add_command(command)
for command in (apply, check, info, metrics):
    group.add_command(command)
