# SPDX-License-Identifier: MIT
"""Several patches in order, all or nothing. Here: the sequence, and what it does step by step.

* `step`: a step, and what becomes of it. `toml`: sequence files. `plan`: what a sequence would do.
* `undo`: brings patches back to where they were. `check`: health checks.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import math
from pathlib import Path
from typing import TYPE_CHECKING, Self

from pylivepatch._flow import Call, Check, Course, Now
from pylivepatch.errors import CheckError, LivepatchError, PatchNotFoundError, TransitionTimeoutError
from pylivepatch.kernel import changes
from pylivepatch.kernel.changes import Options
from pylivepatch.kernel.names import patch_name
from pylivepatch.kernel.refusal import refusal
from pylivepatch.kernel.run import run
from pylivepatch.sequence.plan import rehearse
from pylivepatch.sequence.step import Outcome, PlannedStep, Step, StepReport
from pylivepatch.sequence.toml import read
from pylivepatch.sequence.undo import restore, status_of
from pylivepatch.state import PatchState

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Iterable
    from types import TracebackType

    from pylivepatch._flow import Flow
    from pylivepatch.core import Core
    from pylivepatch.kernel import Kernel
    from pylivepatch.state import PatchStatus, Progress

__all__ = ["Outcome", "PlannedStep", "Sequence", "Step", "StepReport"]


class BaseSequence:
    """What `Sequence` and its namesake for asyncio have in common."""

    def __init__(
        self,
        kernel: Kernel,
        steps: Iterable[Step],
        notify: Callable[[StepReport], object],
        on_progress: Callable[[StepReport, Progress], object] | None,
    ) -> None:
        self._reports: list[StepReport] = []
        self._kernel = kernel
        self._notify = notify
        self._on_progress = on_progress
        self._inside = False
        self._before: dict[int, dict[str, PatchState]] = {}
        self._unsettled: dict[str, StepReport] = {}
        self._add(steps)

    @property
    def reports(self) -> list[StepReport]:
        """What has become of each step."""
        return self._reports

    @staticmethod
    def read(path: str | os.PathLike[str]) -> list[Step]:
        """Read the steps of a sequence file, in TOML.

        Args:
            path: The file. Module files in it are relative to its directory.

        Raises:
            PatchNotFoundError: There is no such file.
            BadDataError: It is not TOML, or a key or value is wrong; which one is named.
        """
        return read(Path(path))

    def _plan(self, preflight: bool) -> list[PlannedStep]:
        pending = [(each.number, each.step) for each in self.reports if each.outcome is Outcome.PENDING]
        return list(rehearse(self._kernel, pending, preflight))

    def flow(self, steps: Iterable[Step] = ()) -> Flow[None]:
        """Do the steps that are pending, and these after them."""
        self._add(steps)
        plan: list[PlannedStep] = yield Call("plan", functools.partial(self._plan, preflight=False), slow=True)
        for planned in plan:
            report = self.reports[planned.number - 1]
            report.name = planned.name
            if planned.error is not None:
                yield from self._fail(report, planned.error)
                raise planned.error
        for report in self.reports:
            if report.outcome is Outcome.PENDING:
                try:
                    yield from self._run_step(report)
                except GeneratorExit:
                    raise
                except BaseException as error:
                    yield from self._fail(report, error)
                    raise
        if not self._inside:
            yield from self._settle()

    def _undo(self) -> Flow[None]:
        for report in reversed(self.reports):
            before = self._before.pop(report.number, None)
            if before is None:
                continue
            self._unsettled.pop(report.name, None)
            restored = False
            try:
                yield from restore(self._kernel, report.name, report.step, before)
                restored = True
            except LivepatchError as error:
                report.undo_error = error
            finally:
                if report.outcome is Outcome.DONE:
                    report.outcome = Outcome.UNDONE if restored else Outcome.NOT_UNDONE
                self._refresh(report)

    def _leave(self, error: BaseException | None) -> Flow[None]:
        """End a ``with`` block."""
        self._inside = False
        if error is None:
            yield from self._settle()
        else:
            yield from self._undo()

    def _add(self, steps: Iterable[Step]) -> None:
        for step in steps:
            name = "" if step.name is None else patch_name(step.name)
            self.reports.append(StepReport(len(self.reports) + 1, step, name))

    def _settle(self) -> Flow[None]:
        """Confirm what awaits it: from here on the patches stay."""
        for name, report in self._unsettled.items():
            confirm = functools.partial(
                changes.confirm, self._kernel, name, window=report.step.confirm_within, if_needed=False
            )
            try:
                # One that a later step replaced awaits nothing; one that the kernel reverted is refused.
                status = status_of(self._kernel, name)
                if status is None or status.state is not PatchState.REPLACED:
                    yield Call(f"confirm {name}", confirm)
            except GeneratorExit:
                raise
            except BaseException as error:
                yield from self._fail(report, error)
                raise
        self._unsettled.clear()
        self._before.clear()

    def _fail(self, report: StepReport, error: BaseException) -> Flow[None]:
        report.outcome = Outcome.FAILED if isinstance(error, Exception) else Outcome.INTERRUPTED
        report.error = error
        self._refresh(report)
        yield from self._undo()
        if isinstance(error, CheckError):
            error.after = f"the patch is {report.state or 'not loaded'}"
        undone = [each.name for each in reversed(self.reports) if each.outcome is Outcome.UNDONE]
        left = [each.name for each in self.reports if each.undo_error is not None]
        words = []
        if len(self.reports) > 1:
            words = [f"step {report.number} of the sequence failed ({report.name or report.step.file})"]
        words += [f"undone: {', '.join(undone)}"] if undone else []
        words += [f"could not be undone: {', '.join(left)}"] if left else []
        if words:
            error.add_note("; ".join(words))

    def _run_step(self, report: StepReport) -> Flow[None]:
        step, started = report.step, (yield Now())
        self._refresh(report)
        enable = step.action == "enable"
        now = {status.name: status.state for status in self._kernel.backend.patches()}
        state = now.get(report.name)
        if state is (PatchState.ENABLING if enable else PatchState.DISABLING):
            # Somebody else's: neither can it be started, nor is it ours to reverse.
            raise refusal(errno.EBUSY, step.action, report.name, busy=report.name)
        there = state is PatchState.ENABLED if enable else state not in (PatchState.ENABLED, PatchState.ENABLING)
        if not there:
            self._before[report.number] = now
            if enable:
                yield from self._enable(report)
            else:
                self._unsettled.pop(report.name, None)
                options = self._options(report)
                yield from self._finish(report, (yield from changes.revert(self._kernel, report.name, options)))
        if step.check is not None:
            yield Check(step.check, step.check_timeout, report.name)
        report.outcome = Outcome.UNCHANGED if there else Outcome.DONE
        report.duration = (yield Now()) - started
        self._refresh(report)

    def _enable(self, report: StepReport) -> Flow[None]:
        step, name = report.step, report.name
        status = status_of(self._kernel, name)
        if status is not None and not status.registered and step.file is not None:
            # Such a patch is enabled only by being loaded.
            yield from changes.unload(self._kernel, name)
            status = None
        if status is None:
            if step.file is None:
                raise PatchNotFoundError(f"there is no patch {name}", remedy="load it first, or name its file")
            options = self._options(report)
            loaded = yield from changes.load(self._kernel, step.file, step.params, options, if_needed=False)
            if loaded.course is not None:
                yield from self._finish(report, loaded.course)
                return
            status = self._kernel.status(name)
        window = step.confirm_within
        if window is None and self._kernel.name == "klpctl" and status.registered:
            window = math.inf
        if window is not None:
            self._unsettled[name] = report
        flow = changes.enable(self._kernel, name, self._options(report), confirm_within=window, owned=True)
        yield from self._finish(report, (yield from flow))

    def _options(self, report: StepReport) -> Options:
        return Options(report.step.timeout, report.step.on_timeout, wait=False)

    def _finish(self, report: StepReport, course: Course) -> Flow[None]:
        """Wait for the end of a transition, however late, if that is only to be reported."""
        if self._on_progress is not None:
            course.on_progress = functools.partial(self._on_progress, report)
        try:
            yield from course.step()
        except TransitionTimeoutError as error:
            if error.reversed or not error.state.in_transition:
                raise
            report.late = error
            self._refresh(report)
            course.within(None)
            yield from course.step()

    def _refresh(self, report: StepReport) -> None:
        """Read the state of a step's patch, and report it."""
        with contextlib.suppress(LivepatchError):
            status: PatchStatus | None = status_of(self._kernel, report.name) if report.name else None
            report.state = None if status is None else status.state
        self._notify(report)


def one_step(
    kernel: Kernel, step: Step, on_progress: Callable[[Progress], object] | None
) -> BaseSequence:
    """A sequence of one step."""
    report = None if on_progress is None else lambda _, progress: on_progress(progress)
    return BaseSequence(kernel, [step], lambda _: None, report)


class Sequence(BaseSequence):
    """Enables and reverts several patches in order: all of them, or none.

    When a step fails, or is interrupted, it and the steps before it are undone in
    reverse order: what was enabled is reverted, what was reverted is enabled, what was
    replaced is enabled again, what was loaded is unloaded. A patch that was as a step
    wants it before is not touched. The exception of the step goes on then, with a note.

    In a ``with`` statement an exception that leaves the block undoes everything,
    too, and the sequence is settled at the end of the block; without one it is settled
    when `run` returns. Until then the kernel itself reverts what the sequence has
    enabled when the process dies, even of SIGKILL; that needs klpctl, registered
    patches and their default window, ``confirm_within`` of None.

    Args:
        core: The livepatch core.
        steps: The steps.
        notify: Called with the report of a step when it begins, is late, ends, and is undone.
        on_progress: Called with the report of a step and the progress of its transition,
            ten times a second.
    """

    def __init__(
        self,
        core: Core,
        steps: Iterable[Step] = (),
        *,
        notify: Callable[[StepReport], object] = lambda _: None,
        on_progress: Callable[[StepReport, Progress], object] | None = None,
    ) -> None:
        super().__init__(core.kernel, steps, notify, on_progress)

    def plan(self, *, preflight: bool = True) -> list[PlannedStep]:
        """Tell what the pending steps would do, and what would stop them. Changes nothing.

        Args:
            preflight: Whether to have `Core.preflight` look at each file.
        """
        return self._plan(preflight)

    def run(self, *steps: Step) -> Self:
        """Do the steps that are pending, and these after them.

        What can be told beforehand, as a file that is missing, is told before the
        first step begins.

        Returns:
            The sequence itself.

        Raises:
            LivepatchError: Of the step that failed. All steps were undone, this
                one included, as far as ``reports`` tells.
            KeyboardInterrupt: Likewise.
        """
        run(self._kernel, self.flow(steps))
        return self

    def undo(self) -> None:
        """Undo all that was done, in reverse order; the reports tell how that went."""
        run(self._kernel, self._undo())

    def __enter__(self) -> Self:
        self._inside = True
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        run(self._kernel, self._leave(error))
