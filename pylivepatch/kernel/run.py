# SPDX-License-Identifier: MIT
"""Performs the effects of a flow one after the other, in the calling thread."""

from __future__ import annotations

import contextlib
import functools
import inspect
import time
from typing import TYPE_CHECKING, Self, TypeVar

from pylivepatch._flow import Call, Check, Now, Read, Record, Seen, Sleep, Wait
from pylivepatch.kernel.journal import record

if TYPE_CHECKING:
    from collections.abc import Callable

    from pylivepatch._flow import Effect, Flow
    from pylivepatch.kernel import Kernel, Watch

_T = TypeVar("_T")


class Runner:
    """Runs flows; what it opens to wait is kept until the end of the ``with`` block."""

    def __init__(self, kernel: Kernel) -> None:
        self._kernel = kernel
        self._stack = contextlib.ExitStack()
        self._watch: Watch | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self._stack.close()

    def run(self, flow: Flow[_T]) -> _T:
        """Run a flow; what interrupts it, at an effect or between two, is thrown into it."""
        step: Callable[[], Effect] = functools.partial(next, flow)
        while True:
            try:
                while True:
                    effect = step()
                    try:
                        step = functools.partial(flow.send, self._perform(effect))
                    except BaseException as error:
                        step = functools.partial(flow.throw, error)
            except StopIteration as end:
                result: _T = end.value
                return result
            except BaseException as error:
                if inspect.getgeneratorstate(flow) == inspect.GEN_CLOSED:
                    raise
                step = functools.partial(flow.throw, error)

    def _perform(self, effect: Effect) -> object:
        match effect:
            case Call():
                return effect.function()
            case Read():
                return Seen(self._kernel.status(effect.name), time.monotonic())
            case Wait():
                self._wait(effect)
            case Sleep():
                time.sleep(effect.seconds)
            case Now():
                return time.monotonic()
            case Record():
                record(self._kernel.root, effect.action, effect.name, effect.error)
            case Check():
                from pylivepatch.sequence.check import run_check

                run_check(effect.command, effect.timeout, effect.patch)
        return None

    def _wait(self, wait: Wait) -> None:
        left = None if wait.until is None else wait.until - time.monotonic()
        if wait.end:
            self._kernel.backend.wait(wait.name, left)
        elif self._watch is None:
            # What happened before it was opened was not reported: this wait ends at once, so that all is read again.
            self._watch = self._stack.enter_context(self._kernel.backend.watch())
        else:
            self._watch.wait(_LONGEST if left is None else left)


_LONGEST = 3600.0


def run(kernel: Kernel, flow: Flow[_T]) -> _T:
    """Run one flow."""
    with Runner(kernel) as runner:
        return runner.run(flow)
