# SPDX-License-Identifier: MIT
"""``pylivepatch metrics``."""

from __future__ import annotations

import math

import click

from pylivepatch.cli._session import Session, json_option
from pylivepatch.metrics import Metrics


@click.command()
@click.option(
    "--output",
    type=click.Path(dir_okay=False),
    metavar="FILE",
    help="Write to FILE, as a whole or not at all, instead of printing.",
)
@json_option
@click.pass_obj
def metrics(session: Session, output: str | None) -> None:
    """Print the state of all patches in Prometheus text format.

    It is meant for the textfile collector of the node exporter.
    """
    with session.core() as core:
        collected = Metrics(core)
        if output is not None:
            collected.write(output)
            session.result({"path": output}, "")
            return
        if not session.json:
            click.echo(collected.text(), nl=False)
            return
        samples = [
            {
                "name": sample.name,
                "labels": dict(sample.labels),
                "value": float(sample.value) if math.isfinite(sample.value) else None,
            }
            for family in collected.collect()
            for sample in family.samples
        ]
    session.result({"metrics": samples}, "")
