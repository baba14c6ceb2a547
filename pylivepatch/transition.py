# SPDX-License-Identifier: MIT
"""Transitions: tasks being switched to the new code, or back, one by one."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Self

from pylivepatch._flow import REFRESH, Course, OnTimeout
from pylivepatch.kernel.run import Runner, run
from pylivepatch.state import Target

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pylivepatch.kernel import Kernel
    from pylivepatch.patch import Patch
    from pylivepatch.state import Blocker, Progress, Task

__all__ = ["OnTimeout", "Transition"]

HEARTBEAT = 1.0
"""Seconds after which progress is yielded at the latest, changed or not."""


class BaseTransition:
    """What `Transition` and its namesake for asyncio have in common."""

    def __init__(self, kernel: Kernel, course: Course) -> None:
        self._kernel = kernel
        self._course = course

    def __repr__(self) -> str:
        state = "finished" if self.finished else "running"
        return f"<Transition of {self._course.name} to {self.target}, {state}>"

    @property
    def target(self) -> Target:
        """Where the transition was started to."""
        return self._course.target

    @property
    def started(self) -> float:
        """CLOCK_MONOTONIC time in seconds, as `time.monotonic` gives."""
        return self._course.started

    @property
    def reversed(self) -> bool:
        """Whether it was reversed from here."""
        return self._course.reversed

    @property
    def changed(self) -> bool:
        """Whether there was something to do; False with *if_needed* for a patch that was so already."""
        return self._course.changed

    @property
    def finished(self) -> bool:
        """Whether its end has been seen here."""
        return self._course.final is not None

    @property
    def duration(self) -> float:
        """Seconds that it took, or has taken until now."""
        final = self._course.final
        return time.monotonic() - self.started if final is None else final.elapsed

    def within(self, timeout: float | None, on_timeout: OnTimeout = "reverse") -> Self:
        """Set the deadline.

        Args:
            timeout: Seconds from the start of the transition; None for none.
            on_timeout: "reverse": reverse the transition, wait for that, and
                raise; "report": raise, and leave it going.

        Returns:
            The transition itself.

        Raises:
            BadDataError: One of the arguments; the deadline is as it was.
        """
        self._course.within(timeout, on_timeout)
        return self

    def progress(self) -> Progress:
        """Read how far it has come; once it has ended, how it ended.

        Source: klpctl, KLPCTL_A_TRANSITION_DONE and _TOTAL; without klpctl
        /proc/<pid>/task/<tid>/patch_state (4.12).
        """
        run(self._kernel, self._course.look())
        return self._course.final or self._course.last


class Transition(BaseTransition):
    """A patch on its way, or at its end when the call that started it waited.

    The kernel completes a transition by itself; what waits here enforces its
    deadline. There are three ways to wait, all alike: `wait`; iterating, which
    yields `Progress` as it goes; and the end of a ``with`` block.

    What interrupts the wait, Ctrl-C for example, reverses a transition that was
    started from here, and waits for the end of the reversal. One that somebody
    else started is reversed by an exception that leaves its ``with`` block only.
    """

    def __init__(self, kernel: Kernel, course: Course, patch: Patch) -> None:
        super().__init__(kernel, course)
        self._patch = patch

    @property
    def patch(self) -> Patch:
        """The patch."""
        return self._patch

    def tasks(self) -> list[Task]:
        """Read the tasks, switched and pending.

        Returns:
            The tasks; none when the transition has ended.

        Raises:
            AccessError: The caller is not root.
        """
        return self._kernel.backend.tasks()

    def blockers(self) -> list[Blocker]:
        """Read the tasks that it waits for, each with its reason; none when it has ended.

        Raises:
            AccessError: The caller is not root.

        Source: klpctl, KLPCTL_CMD_TASK_GET; without klpctl /proc/<pid>/task/<tid>
        patch_state (4.12), stat and stack, which know no idle tasks.
        """
        return self._kernel.backend.blockers()

    def wait(self) -> Self:
        """Wait for the end.

        Returns:
            The transition itself, finished.

        Raises:
            TransitionTimeoutError: The deadline passed; the transition was
                reversed, or goes on, as *on_timeout* says.
            ConfirmationExpiredError: Nobody confirmed the patch in time, and the
                kernel reversed the transition.
            TransitionReversedError: Somebody else reversed it; the patch is
                where it was before.
        """
        run(self._kernel, self._course.step())
        return self

    def __iter__(self) -> Iterator[Progress]:
        """Yield progress when it has changed, once a second at least, and the end.

        Raises:
            LivepatchError: As `wait`.
        """
        course = self._course
        last = self.progress()
        yield last
        with Runner(self._kernel) as runner:
            while last is not course.final:
                due = time.monotonic() + HEARTBEAT
                while course.final is None and (course.last.done, course.last.total) == (last.done, last.total):
                    if time.monotonic() >= due:
                        break
                    runner.run(course.step(REFRESH))
                last = course.final or course.last
                yield last
            # This raises what went wrong.
            runner.run(course.step())

    def reverse(self) -> None:
        """Reverse the transition. It leads back then, and takes time again: wait for it.

        One that has just ended is undone: the patch is reverted, or enabled again.

        Raises:
            AccessError: The caller is not root. Nothing has changed.
            UnsupportedError: It has ended, and a standalone patch cannot be
                enabled again. The patch stays disabled.

        Source: klp_reverse_transition().
        """
        run(self._kernel, self._course.reverse())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: object) -> None:
        run(self._kernel, self._course.leave(error))
