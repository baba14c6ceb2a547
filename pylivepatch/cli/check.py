# SPDX-License-Identifier: MIT
"""``pylivepatch check``."""

from __future__ import annotations

import click

from pylivepatch.cli._data import finding_data
from pylivepatch.cli._session import REFUSED, Session, json_option
from pylivepatch.cli.load import parameters
from pylivepatch.module import ModuleFile
from pylivepatch.preflight import Finding, Severity, Stage
from pylivepatch.state import printable

_ALREADY = 10


@click.command()
@click.argument("file", type=click.Path())
@click.argument("params", nargs=-1, metavar="[PARAM=VALUE]...", callback=parameters)
@json_option
@click.pass_obj
def check(session: Session, file: str, params: dict[str, str | int | bool]) -> None:
    """Check the patch module FILE against the running kernel, without loading it.

    Prints all findings. Exits with 8 when one of them is fatal, and with 10 when this very
    patch is loaded already. What only root may see is not checked for others, which is a finding, too.
    """
    with session.core() as core:
        findings = core.preflight(file, params=params)
    name = ModuleFile.open(file).name
    fatal = [finding for finding in findings if finding.severity is Severity.FATAL]
    applied = bool(fatal) and all(finding.code == "applied" for finding in fatal)
    data = {
        "file": file,
        "name": name,
        "fatal": bool(fatal),
        "findings": [finding_data(finding) for finding in findings],
    }
    verdict = "loaded already" if applied else _verdict(fatal)
    session.result(data, "\n".join([*map(_lines, findings), f"{name}: {verdict}"]))
    if fatal:
        click.get_current_context().exit(_ALREADY if applied else REFUSED)


def _verdict(fatal: list[Finding]) -> str:
    if any(finding.stage is Stage.LOAD for finding in fatal):
        return "cannot be loaded"
    return "can be loaded, but not enabled as things are" if fatal else "nothing found that stands in its way"


def _lines(finding: Finding) -> str:
    line = printable(f"{finding.severity:8} {finding.code:16} {finding.subject}: {finding.message}")
    return f"{line}\n{'':26}{finding.remedy}" if finding.remedy else line
