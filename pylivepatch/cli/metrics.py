# SPDX-License-Identifier: MIT
"""``pylivepatch metrics``."""

from __future__ import annotations

import click

from pylivepatch.cli._session import Session
from pylivepatch.metrics import Metrics


@click.command()
@click.option(
    "--output",
    type=click.Path(dir_okay=False),
    metavar="FILE",
    help="Write to FILE, as a whole or not at all, instead of printing.",
)
@click.pass_obj
def metrics(session: Session, output: str | None) -> None:
    """Print the state of all patches in Prometheus text format.

    It is meant for the textfile collector of the node exporter.
    """
    with session.core() as core:
        collected = Metrics(core)
        if output is None:
            click.echo(collected.text(), nl=False)
        else:
            collected.write(output)
