# SPDX-License-Identifier: MIT
"""Several patches in order, all or nothing, for asyncio."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Self

from pylivepatch.sequence import BaseSequence

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from types import TracebackType

    from pylivepatch.aio import Core
    from pylivepatch.sequence import PlannedStep, Step, StepReport
    from pylivepatch.state import Progress


class Sequence(BaseSequence):
    """Enables and reverts several patches in order, all of them or none, as `pylivepatch.Sequence`.

    Cancelling `run` undoes everything, and lets the cancellation go on then; so does an exception
    that leaves ``async with sequence``.

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
        self._loop = core.loop

    async def plan(self, *, preflight: bool = True) -> list[PlannedStep]:
        """Tell what the pending steps would do, as `pylivepatch.Sequence.plan`, in a thread."""
        return await asyncio.to_thread(self._plan, preflight)

    async def run(self, *steps: Step) -> Self:
        """Do the steps that are pending, and these after them, as `pylivepatch.Sequence.run`.

        Raises:
            asyncio.CancelledError: All steps were undone, as far as ``reports`` tells.
            LivepatchError: As `pylivepatch.Sequence.run`.
        """
        await self._loop.run(self.flow(steps))
        return self

    async def undo(self) -> None:
        """Undo all that was done, in reverse order; the reports tell how that went."""
        await self._loop.run(self._undo())

    async def __aenter__(self) -> Self:
        self._inside = True
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._loop.run(self._leave(error))
