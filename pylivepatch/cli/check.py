# SPDX-License-Identifier: MIT
"""``pylivepatch check``."""

from __future__ import annotations

import click

from pylivepatch.cli._session import Session, json_option
from pylivepatch.cli.load import parameters
from pylivepatch.module import ModuleFile
from pylivepatch.preflight import Finding, Severity, Stage

_FATAL = 8


@click.command()
@click.argument("file", type=click.Path())
@click.argument("params", nargs=-1, metavar="[PARAM=VALUE]...", callback=parameters)
@json_option
@click.pass_obj
def check(session: Session, file: str, params: dict[str, str | int | bool]) -> None:
    """Check the patch module FILE against the running kernel, without loading it.

    Prints all findings. Exits with 8 when one of them is fatal. What only root may
    see is not checked for others, and is said to be so.
    """
    with session.core() as core:
        findings = core.preflight(file, params=params)
    name = ModuleFile.open(file).name
    fatal = [finding for finding in findings if finding.severity is Severity.FATAL]
    data = {
        "file": file,
        "name": name,
        "fatal": bool(fatal),
        "findings": [_data(finding) for finding in findings],
    }
    session.result(data, "\n".join([*map(_lines, findings), f"{name}: {_verdict(fatal)}"]))
    if fatal:
        click.get_current_context().exit(_FATAL)


def _verdict(fatal: list[Finding]) -> str:
    if any(finding.stage is Stage.LOAD for finding in fatal):
        return "cannot be loaded"
    return "can be loaded, but not enabled as things are" if fatal else "nothing found that stands in its way"


def _data(finding: Finding) -> dict[str, str]:
    return {
        "code": finding.code,
        "severity": str(finding.severity),
        "subject": finding.subject,
        "message": finding.message,
        "remedy": finding.remedy,
        "stage": str(finding.stage),
    }


def _lines(finding: Finding) -> str:
    line = f"{finding.severity:8} {finding.code:16} {finding.subject}: {finding.message}"
    return f"{line}\n{'':26}{finding.remedy}" if finding.remedy else line
