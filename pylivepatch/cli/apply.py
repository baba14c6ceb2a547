# SPDX-License-Identifier: MIT
"""``pylivepatch apply``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from pylivepatch.cli._data import error_data, finding_data, report_data
from pylivepatch.cli._session import (
    REFUSED,
    Session,
    error_text,
    exit_code,
    json_option,
    policy,
    progress_bar,
    timeout_options,
)
from pylivepatch.cli._signals import interruption
from pylivepatch.errors import LivepatchError
from pylivepatch.preflight import Severity
from pylivepatch.sequence import Outcome, PlannedStep, Sequence, Step, StepReport
from pylivepatch.state import printable

if TYPE_CHECKING:
    from pylivepatch.preflight import Finding


@click.command()
@click.argument("files", type=click.Path(path_type=Path), nargs=-1, required=True, metavar="FILE...")
@click.option("--dry-run", is_flag=True, help="Print what would be done, and what stands in its way.")
@timeout_options
@json_option
@click.pass_obj
def apply(session: Session, files: tuple[Path, ...], dry_run: bool, timeout: float | None, on_timeout: str) -> None:
    """Apply several patches in order: all of them, or none.

    FILE is a patch module, which is enabled, or a sequence file in TOML (.toml) with
    steps, policies and health checks. When a step fails, all is undone in reverse
    order, and the exit code is that of the step; Ctrl-C undoes all, too. With
    on-timeout "report" a step that is late is reported, and waited for.
    """
    steps = []
    for file in files:
        if file.suffix == ".toml":
            steps += Sequence.read(file)
        else:
            steps.append(Step(file=file, timeout=timeout, on_timeout=policy(on_timeout)))
    with session.core() as core, progress_bar(session, "") as show:
        lines = _Progress(session, len(steps))
        progress = None if show is None else lambda _, progress: show(progress)
        sequence = Sequence(core, steps, notify=lines.show, on_progress=progress)
        if dry_run:
            click.get_current_context().exit(_planned(session, sequence.plan()))
        try:
            sequence.run()
        except LivepatchError as error:
            code = exit_code(error)
            _failed(session, sequence, error_data(error), error_text(error))
        except KeyboardInterrupt as error:
            data, words, code = interruption(session, error)
            _failed(session, sequence, data, words)
        else:
            code = 0
            text = f"{len(steps)} of {len(steps)} steps done"
            changed = any(report.outcome is Outcome.DONE for report in sequence.reports)
            session.result(
                {"steps": [report_data(report) for report in sequence.reports], "changed": changed}, text
            )
    click.get_current_context().exit(code)


class _Progress:
    """Lines on stderr, one for each thing that becomes of a step."""

    def __init__(self, session: Session, total: int) -> None:
        self._quiet = session.json
        self._total = total
        self._shown: set[tuple[int, str]] = set()

    def show(self, report: StepReport) -> None:
        """Print a line, unless it was printed already."""
        kind = "late" if report.late and report.outcome is Outcome.PENDING else str(report.outcome)
        if self._quiet or (report.number, kind) in self._shown:
            return
        self._shown.add((report.number, kind))
        _show(f"{report.number}/{self._total} {report.name or report.step.file}: {_words(report)}")


def _show(line: str) -> None:
    click.echo(printable(line), err=True)


def _words(report: StepReport) -> str:
    state = report.state or "not loaded"
    took = "" if report.duration is None else f", in {report.duration:.3f} s"
    why = f" ({report.undo_error})" if report.undo_error else ""
    match report.outcome:
        case Outcome.PENDING if report.late:
            return f"late, and waited for: {report.late.message}"
        case Outcome.PENDING:
            return report.step.action
        case Outcome.DONE:
            return f"{state}{took}"
        case Outcome.UNCHANGED:
            return f"{state} already"
        case _:
            return f"{report.outcome}, {state}{why}"


def _failed(session: Session, sequence: Sequence, error: dict[str, object], words: str) -> None:
    """Say which step failed, what was undone, and where all patches stand."""
    failed = [each for each in sequence.reports if each.outcome in (Outcome.FAILED, Outcome.INTERRUPTED)]
    # The order in which they were undone.
    undone = [report.name for report in reversed(sequence.reports) if report.outcome is Outcome.UNDONE]
    if session.json:
        error["step"] = failed[-1].number if failed else None
        error["undone"] = undone
        error["steps"] = [report_data(report) for report in sequence.reports]
        session.error(error, "")
        return
    where = "".join(f"step {each.number} ({each.name or each.step.file}): " for each in failed[-1:])
    click.echo(f"pylivepatch: {printable(where)}{words}", err=True)
    if undone:
        _show(f"pylivepatch: undone: {', '.join(undone)}")
    for report in sequence.reports:
        what = "not reached" if report.outcome is Outcome.PENDING else _words(report)
        _show(f"  {report.number}  {report.name or report.step.file}  {what}")


def _planned(session: Session, planned: list[PlannedStep]) -> int:
    """Print a plan; the exit code is that of the first thing that stands in its way."""
    errors = [each.error for each in planned if each.error is not None]
    lines = []
    for each in planned:
        what = ", ".join(each.actions) or "nothing to do"
        name = each.name or each.step.file
        what = f"error: {each.error}" if each.error else what
        lines.append(printable(f"{each.number}/{len(planned)} {name}: {what}"))
        lines += [f"    {finding}" for finding in each.findings]
    data = [
        {
            "number": each.number,
            "name": each.name,
            "file": each.step.file and str(each.step.file),
            "action": each.step.action,
            "actions": list(each.actions),
            "error": each.error and error_data(each.error),
            "findings": [finding_data(finding) for finding in each.findings],
        }
        for each in planned
    ]
    session.result({"plan": data}, "\n".join(lines))
    if errors:
        return exit_code(errors[0])
    return REFUSED if any(_fatal(finding) for each in planned for finding in each.findings) else 0


def _fatal(finding: Finding) -> bool:
    return finding.severity is Severity.FATAL
