# SPDX-License-Identifier: MIT
"""``pylivepatch check``."""

from __future__ import annotations

import dataclasses
import platform
import sys
from pathlib import Path

import click

from pylivepatch.cli._data import finding_data
from pylivepatch.cli._session import REFUSED, Session, json_option
from pylivepatch.cli.info import proof_lines
from pylivepatch.cli.load import parameters
from pylivepatch.module import ModuleFile
from pylivepatch.preflight import Finding, Severity, Stage
from pylivepatch.state import printable

_ALREADY = 10


_IN_PART = "nothing wrong was found, and not all of it is proved"


@click.command()
@click.argument("file", type=click.Path())
@click.argument("params", nargs=-1, metavar="[PARAM=VALUE]...", callback=parameters)
@click.option("--deep", is_flag=True,
              help="Prove FILE anew instead, from the diff in it and the source of its kernel, whatever runs here.")
@click.option("--module-source", type=click.Path(exists=True, file_okay=False, path_type=Path), metavar="DIR",
              help="With --deep, as for build: the source of modules that are not of the kernel's tree.")
@click.option("--module-file", "module_files", multiple=True, metavar="FILE",
              type=click.Path(exists=True, dir_okay=False, path_type=Path), help="With --deep, as for build.")
@json_option
@click.pass_obj
def check(
    session: Session, file: str, params: dict[str, str | int | bool], deep: bool, module_source: Path | None,
    module_files: tuple[Path, ...],
) -> None:
    """Check the patch module FILE against the running kernel, without loading it.

    Prints all findings. Exits with 8 when one of them is fatal, and with 10 when this very
    patch is loaded already. What only root may see is not checked for others, which is a finding, too.
    """
    if deep:
        _deep(session, Path(file), module_source, module_files)
        return
    if module_source or module_files:
        raise click.UsageError("--module-source and --module-file go with --deep")
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


def _deep(session: Session, file: Path, module_source: Path | None, module_files: tuple[Path, ...]) -> None:
    from pylivepatch.build import for_release, prove

    release = (ModuleFile.open(file).vermagic.split() or [platform.release()])[0]
    verdict = prove(file, target=for_release(release), module_source=module_source, module_files=module_files,
                    say=lambda words: None if session.json else print(words, file=sys.stderr))
    name = ModuleFile.open(file).name
    lines = [*(f"{'wrong:':14}{text}" for text in verdict.complaints), *proof_lines(verdict),
             *(f"{'note:':14}{text}" for text in verdict.notes),
             f"{name}: {'NOT what its diff says' if verdict.complaints else 'proved' if verdict.proved else _IN_PART}"]
    session.result({"file": str(file), "name": name, "proved": verdict.proved,
                    "verdict": dataclasses.asdict(verdict)}, "\n".join(lines))
    if verdict.complaints:
        click.get_current_context().exit(REFUSED)


def _verdict(fatal: list[Finding]) -> str:
    if any(finding.stage is Stage.LOAD for finding in fatal):
        return "cannot be loaded"
    return "can be loaded, but not enabled as things are" if fatal else "nothing found that stands in its way"


def _lines(finding: Finding) -> str:
    line = printable(f"{finding.severity:8} {finding.code:16} {finding.subject}: {finding.message}")
    return f"{line}\n{'':26}{finding.remedy}" if finding.remedy else line
