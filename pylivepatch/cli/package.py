# SPDX-License-Identifier: MIT
"""``pylivepatch package``."""

from __future__ import annotations

from pathlib import Path

import click

from pylivepatch.boot import package as packages
from pylivepatch.cli._session import Session, json_option
from pylivepatch.cli.load import parameters


@click.command()
@click.argument("file", type=click.Path())
@click.argument("params", nargs=-1, metavar="[PARAM=VALUE]...", callback=parameters)
@click.option(
    "-o",
    "--output",
    type=click.Path(dir_okay=False, path_type=Path),
    help="The package, instead of its usual name here.",
)
@click.option("--version", default="1", show_default=True, help="Version of the package.")
@click.option("--image-version", metavar="VERSION", help="Of the kernel's package, instead of that installed here.")
@click.option(
    "--maintainer",
    default="root <root@localhost>",
    show_default=True,
    metavar="'NAME <ADDRESS>'",
    help="Who is responsible for it.",
)
@click.option(
    "--check",
    default="",
    metavar="COMMAND",
    help="Confirm the patch when it is installed: if COMMAND fails, it is reverted, and the installation fails.",
)
@json_option
@click.pass_obj
def package(
    session: Session,
    file: str,
    params: dict[str, str | int | bool],
    output: Path | None,
    version: str,
    image_version: str | None,
    maintainer: str,
    check: str,
) -> None:
    """Make a Debian package of the patch module FILE, for apt to install.

    It depends on the exact kernel package that the patch is for. Installing it applies
    the patch at once if that kernel runs, and at each of its boots; removing it
    reverts the patch.
    """
    made = packages.write(
        file, output, image=image_version, version=version, maintainer=maintainer, params=params, check=check
    )
    session.result({"package": str(made)}, str(made))
