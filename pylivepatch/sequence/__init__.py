# SPDX-License-Identifier: MIT
"""Several patches in order, all or nothing. Here: doing and undoing the steps.

* `step`: a step, and what becomes of it. `toml`: sequence files. `plan`: what a sequence would do.
* `check`: health checks.
"""

from __future__ import annotations

import contextlib
import errno
import math
import time
from pathlib import Path
from typing import TYPE_CHECKING, Self

from pylivepatch.errors import (
    LivepatchError,
    PatchNotFoundError,
    TransitionTimeoutError,
    UnsupportedError,
)
from pylivepatch.kernel.names import patch_name
from pylivepatch.kernel.refusal import refusal
from pylivepatch.sequence.plan import rehearse
from pylivepatch.sequence.step import Outcome, PlannedStep, Step, StepReport
from pylivepatch.sequence.toml import read
from pylivepatch.state import PatchState
from pylivepatch.transition import Transition

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Iterable, Mapping
    from types import TracebackType

    from pylivepatch.core import Core
    from pylivepatch.patch import Patch
    from pylivepatch.state import PatchStatus

__all__ = ["Outcome", "PlannedStep", "Sequence", "Step", "StepReport"]

_UNDO = 30.0


class Sequence:
    """Enables and reverts several patches in order: all of them, or none.

    When a step fails, or is interrupted, it and the steps before it are taken back in
    reverse order: what was enabled is reverted, what was reverted is enabled, what was
    replaced is enabled again, what was loaded is unloaded. A patch that was as a step
    wants it before is not touched. The exception of the step goes on then, with a note.

    In a ``with`` statement an exception that leaves the block takes everything back,
    too, and the sequence is settled at the end of the block; without one it is settled
    when `run` returns. Until then the kernel itself takes back what the sequence has
    enabled when the process dies, even of SIGKILL; that needs klpctl, registered
    patches and their default window, ``confirm_within`` of None.

    Args:
        core: The livepatch core.
        steps: The steps.
        follow: Waits for each transition, and shows it, perhaps; by default
            `Transition.wait`.
        notify: Is told of each step when it begins, is late, ends, and is undone.

    Attributes:
        reports: What has become of each step.
    """

    def __init__(
        self,
        core: Core,
        steps: Iterable[Step] = (),
        *,
        follow: Callable[[Transition], object] = Transition.wait,
        notify: Callable[[StepReport], object] = lambda _: None,
    ) -> None:
        self.reports: list[StepReport] = []
        self._core = core
        self._follow = follow
        self._notify = notify
        self._inside = False
        self._before: dict[int, dict[str, PatchState]] = {}
        self._unsettled: dict[str, StepReport] = {}
        self._add(steps)

    @staticmethod
    def read(path: str | os.PathLike[str]) -> list[Step]:
        """Read the steps of a sequence file, in TOML.

        Args:
            path: The file. Module files in it are relative to its directory.

        Raises:
            PatchNotFoundError: There is no such file.
            BadDataError: It is not TOML, or a key or value is wrong: which is said.
        """
        return read(Path(path))

    def plan(self, *, preflight: bool = True) -> list[PlannedStep]:
        """Say what the pending steps would do, and what would stop them. Changes nothing.

        Args:
            preflight: Whether to have `Core.preflight` look at each file.
        """
        pending = [(each.number, each.step) for each in self.reports if each.outcome is Outcome.PENDING]
        return list(rehearse(self._core, pending, preflight))

    def run(self, *steps: Step) -> Self:
        """Do the steps that are pending, and these after them.

        What can be told beforehand, as a file that is missing, is told before the
        first step begins.

        Returns:
            The sequence itself.

        Raises:
            LivepatchError: Of the step that failed. All steps were taken back, this
                one included, as far as ``reports`` says.
            KeyboardInterrupt: Likewise.
        """
        self._add(steps)
        for planned in self.plan(preflight=False):
            self.reports[planned.number - 1].name = planned.name
            if planned.error is not None:
                self._failed(self.reports[planned.number - 1], planned.error)
                raise planned.error
        for report in self.reports:
            if report.outcome is Outcome.PENDING:
                try:
                    self._do(report)
                except BaseException as error:
                    self._failed(report, error)
                    raise
        if not self._inside:
            self._settle()
        return self

    def undo(self) -> None:
        """Take back all that was done, in reverse order; the reports say how that went."""
        for report in reversed(self.reports):
            before = self._before.pop(report.number, None)
            if before is None:
                continue
            restored = False
            try:
                self._restore(report, before)
                restored = True
            except LivepatchError as error:
                report.undo_error = error
            finally:
                if report.outcome is Outcome.DONE:
                    report.outcome = Outcome.UNDONE if restored else Outcome.NOT_UNDONE
                self._look(report)

    def __enter__(self) -> Self:
        self._inside = True
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._inside = False
        if error is None:
            self._settle()
        else:
            self.undo()

    def _add(self, steps: Iterable[Step]) -> None:
        for step in steps:
            name = "" if step.name is None else patch_name(step.name)
            self.reports.append(StepReport(len(self.reports) + 1, step, name))

    def _settle(self) -> None:
        """Confirm what awaits it: from here on the patches stay."""
        for name, report in self._unsettled.items():
            try:
                # One that a later step replaced awaits nothing; one that the kernel took back is refused.
                if not self._status(name, PatchState.REPLACED):
                    self._core.patch(name).confirm()
            except BaseException as error:
                self._failed(report, error)
                raise
        self._unsettled.clear()
        self._before.clear()

    def _failed(self, report: StepReport, error: BaseException) -> None:
        report.outcome = Outcome.FAILED if isinstance(error, Exception) else Outcome.INTERRUPTED
        report.error = error
        self._look(report)
        self.undo()
        undone = [each.name for each in reversed(self.reports) if each.outcome is Outcome.UNDONE]
        left = [each.name for each in self.reports if each.undo_error is not None]
        words = [f"step {report.number} of the sequence failed ({report.name or report.step.file})"]
        words += [f"undone: {', '.join(undone)}"] if undone else []
        words += [f"could not be undone: {', '.join(left)}"] if left else []
        error.add_note("; ".join(words))

    def _do(self, report: StepReport) -> None:
        step, started = report.step, time.monotonic()
        self._look(report)
        wanted = PatchState.ENABLED if step.action == "enable" else None
        now = {status.name: status.state for status in self._core.status()}
        state = now.get(report.name)
        if state is (PatchState.ENABLING if wanted else PatchState.DISABLING):
            # Somebody else's: neither can it be started, nor is it ours to take back.
            raise refusal(errno.EBUSY, step.action, report.name, busy=report.name)
        there = state is PatchState.ENABLED if wanted else state not in (PatchState.ENABLED, PatchState.ENABLING)
        if not there:
            self._before[report.number] = now
            if wanted:
                self._enable(report)
            else:
                patch = self._core.patch(report.name)
                self._unsettled.pop(report.name, None)
                self._finish(report, patch.revert(step.timeout, on_timeout=step.on_timeout, wait=False))
        if step.check is not None:
            from pylivepatch.sequence.check import run_check

            run_check(step.check, step.check_timeout, report.name)
        report.outcome = Outcome.UNCHANGED if there else Outcome.DONE
        report.duration = time.monotonic() - started
        self._look(report)

    def _enable(self, report: StepReport) -> None:
        step = report.step
        status = self._status(report.name)
        patch = self._core.patch(report.name) if status else None
        if patch is not None and status is not None and not status.registered and step.file is not None:
            # Such a patch is enabled only by being loaded.
            patch.unload()
            patch = None
        if patch is not None:
            self._finish(report, self._start(report, patch))
            return
        if step.file is None:
            raise PatchNotFoundError(f"there is no patch {report.name}", remedy="load it first, or name its file")
        patch = self._core.load(step.file, **step.params)
        if patch.registered:
            self._finish(report, self._start(report, patch))
        elif (running := patch.transition) is not None:
            self._finish(report, running.within(step.timeout, step.on_timeout))

    def _start(self, report: StepReport, patch: Patch) -> Transition:
        step = report.step
        window = step.confirm_within
        if window is None and self._core.backend == "klpctl" and patch.registered:
            window = math.inf
        if window is not None:
            self._unsettled[report.name] = report
        return patch.enable(step.timeout, on_timeout=step.on_timeout, wait=False, confirm_within=window, owned=True)

    def _finish(self, report: StepReport, transition: Transition) -> None:
        with transition:
            try:
                self._follow(transition)
            except TransitionTimeoutError as error:
                if error.reversed or not error.state.in_transition:
                    raise
                report.late = error
                self._look(report)
                self._follow(transition.within(None))

    def _restore(self, report: StepReport, before: Mapping[str, PatchState]) -> None:
        """Bring the patch of a step back to where it was, and what it replaced."""
        name = report.name
        self._unsettled.pop(name, None)
        status = self._status(name)
        if status is not None:
            self._bring(name, status, report.step, enabled=before.get(name) is PatchState.ENABLED)
        for other, state in before.items():
            now = self._status(other) if state is PatchState.ENABLED and other != name else None
            if now is not None and now.state is PatchState.REPLACED:
                self._bring(other, now, None, enabled=True)
        if name not in before and self._status(name) is not None:
            self._core.patch(name).unload()

    def _bring(self, name: str, status: PatchStatus, step: Step | None, *, enabled: bool) -> None:
        patch, state = self._core.patch(name), status.state
        if state is (PatchState.ENABLING if enabled else PatchState.DISABLING):
            running = patch.transition
            if running is not None:
                running.within(running.duration + _UNDO, "report").wait()
        elif not enabled and state in (PatchState.ENABLED, PatchState.ENABLING):
            # Not in one call: when that is interrupted, the revert goes on.
            patch.revert(_UNDO, wait=False).wait()
        elif enabled and state is not PatchState.ENABLED:
            self._enable_again(patch, step)

    def _enable_again(self, patch: Patch, step: Step | None) -> None:
        try:
            patch.enable(_UNDO, wait=False).wait()
        except UnsupportedError:
            if step is None or step.file is None:
                raise
            patch.unload()
            running = self._core.load(step.file, **step.params).transition
            if running is not None:
                running.within(_UNDO).wait()

    def _status(self, name: str, *states: PatchState) -> PatchStatus | None:
        with contextlib.suppress(PatchNotFoundError):
            status = self._core.patch(name).status()
            return status if not states or status.state in states else None
        return None

    def _look(self, report: StepReport) -> None:
        """Read where the patch stands, and tell."""
        with contextlib.suppress(LivepatchError):
            status = self._status(report.name) if report.name else None
            report.state = None if status is None else status.state
        self._notify(report)
