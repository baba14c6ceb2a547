# SPDX-License-Identifier: MIT
"""Transitions, on captured trees in which a thread plays the kernel's part."""

from __future__ import annotations

import contextlib
import signal
import threading
import time
from typing import TYPE_CHECKING, Literal, cast

import pytest

from pylivepatch import (
    BadDataError,
    Core,
    PatchState,
    Progress,
    Target,
    Transition,
    TransitionReversedError,
    TransitionTimeoutError,
)

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

HOLD = "sys/kernel/livepatch/plp_hold"


def running(root: Path) -> Transition:
    """The transition of plp_hold."""
    transition = Core(root=root)["plp_hold"].transition
    assert transition is not None
    return transition


def end(root: Path, enabled: str) -> None:
    """End the transition as the kernel does: with `enabled` as it is."""
    (root / HOLD / "enabled").write_text(f"{enabled}\n")
    (root / HOLD / "transition").write_text("0\n")


@pytest.fixture
def reversing(enabling: Path) -> Iterator[Path]:
    """A kernel that ends the transition as soon as it is turned round."""
    stop = threading.Event()

    def kernel() -> None:
        while not stop.is_set():
            if (enabling / HOLD / "enabled").read_text().startswith("0"):
                end(enabling, "0")
                return
            time.sleep(0)

    thread = threading.Thread(target=kernel)
    thread.start()
    yield enabling
    stop.set()
    thread.join()


def test_iteration(enabling: Path) -> None:
    """Iterating yields progress while it goes on, and the end once."""
    transition = running(enabling)
    steps = iter(transition)
    first = next(steps)
    assert (first.target, first.pending) == (Target.PATCHED, 1)
    end(enabling, "1")
    last = next(steps)
    assert last.pending == 0
    assert last.total == first.total
    assert list(steps) == []
    assert transition.finished


def test_a_finished_transition_yields_its_end(enabling: Path) -> None:
    """Iterating over a finished transition yields how it ended."""
    transition = running(enabling)
    end(enabling, "1")
    transition.wait()
    (last,) = transition
    assert isinstance(last, Progress)
    assert last.done == last.total > 0
    assert transition.duration == last.elapsed


def test_wait(enabling: Path) -> None:
    """Waiting returns the transition itself, also the second time."""
    transition = running(enabling)
    end(enabling, "1")
    assert transition.wait() is transition
    assert transition.wait() is transition


def test_a_disabled_patch_vanishes(disabling: Path) -> None:
    """A patch whose directory is gone has been disabled: that is the end of a revert."""
    transition = running(disabling)
    directory = disabling / HOLD
    directory.rename(disabling / "gone")
    assert transition.wait().progress().target is Target.UNPATCHED


def test_reversed_by_somebody_else(enabling: Path) -> None:
    """A transition that ends where it started was reversed, and says so every time."""
    transition = running(enabling)
    end(enabling, "0")
    for _ in range(2):
        with pytest.raises(TransitionReversedError, match="somebody else") as error:
            transition.wait()
        assert error.value.state is PatchState.DISABLED


def test_report_at_the_deadline(enabling: Path) -> None:
    """With "report" the deadline raises, and the transition goes on."""
    transition = running(enabling).within(1e-9, "report")
    with pytest.raises(TransitionTimeoutError, match="still enabling") as error:
        transition.wait()
    assert not error.value.reversed
    assert error.value.progress.pending == 1
    assert error.value.state is PatchState.ENABLING
    assert (enabling / HOLD / "enabled").read_text().startswith("1")


def test_a_new_deadline_after_a_report(enabling: Path) -> None:
    """A deadline that was only reported is forgotten when there is a new one."""
    transition = running(enabling).within(1e-9, "report")
    with pytest.raises(TransitionTimeoutError):
        transition.wait()
    end(enabling, "1")
    assert transition.within(None).wait().finished


def test_reverse_at_the_deadline(reversing: Path) -> None:
    """By default the deadline turns the transition round, waits for that and raises."""
    transition = running(reversing).within(1e-9)
    with pytest.raises(TransitionTimeoutError, match="it was reversed") as error:
        transition.wait()
    assert error.value.reversed
    assert error.value.state is PatchState.DISABLED
    assert transition.finished


def test_deadline_while_iterating(reversing: Path) -> None:
    """Iterating enforces the deadline too."""
    transition = running(reversing).within(1e-9)
    with pytest.raises(TransitionTimeoutError):
        list(transition)


def test_an_exception_in_the_block_reverses(reversing: Path) -> None:
    """An exception that leaves the with block turns the transition round."""
    transition = running(reversing)
    with pytest.raises(KeyboardInterrupt), transition:
        raise KeyboardInterrupt
    assert transition.reversed
    assert (reversing / HOLD / "transition").read_text() == "0\n"


def test_the_end_of_the_block_waits(enabling: Path) -> None:
    """The end of the with block waits for the end of the transition."""
    with running(enabling) as transition:
        end(enabling, "1")
    assert transition.finished


def test_reverse(reversing: Path) -> None:
    """A transition that is turned round from here ends without an exception."""
    transition = running(reversing)
    transition.reverse()
    assert transition.wait().progress().target is Target.UNPATCHED
    assert transition.reversed


def test_bad_deadlines(enabling: Path) -> None:
    """A deadline or a policy that cannot be is refused."""
    with pytest.raises(BadDataError):
        running(enabling).within(0)
    with pytest.raises(BadDataError):
        running(enabling).within(1, cast("Literal['reverse']", "explode"))


@contextlib.contextmanager
def interrupted() -> Iterator[None]:
    """Have Ctrl-C come soon, while something is waited for."""
    before = signal.signal(signal.SIGALRM, signal.default_int_handler)
    signal.setitimer(signal.ITIMER_REAL, 0.05)
    try:
        with pytest.raises(KeyboardInterrupt):
            yield
    finally:
        signal.signal(signal.SIGALRM, before)


def test_ctrl_c_at_the_end_of_the_block_reverses(reversing: Path) -> None:
    """Ctrl-C while the end of the with block waits turns the transition round."""
    transition = running(reversing)
    with interrupted(), transition:
        pass
    assert transition.reversed
    assert (reversing / HOLD / "transition").read_text() == "0\n"


def test_ctrl_c_in_a_bare_call_reverses(disabling: Path) -> None:
    """Ctrl-C while enable() itself waits turns the transition round: nobody else enforces its deadline."""

    def kernel() -> None:
        for value in ("1", "0"):
            while not (disabling / HOLD / "enabled").read_text().startswith(value):
                time.sleep(0)
        end(disabling, "0")

    patch = Core(root=disabling)["plp_hold"]
    thread = threading.Thread(target=kernel, daemon=True)
    thread.start()
    with interrupted():
        patch.enable(timeout=None)
    thread.join(10)
    assert patch.state is PatchState.DISABLED


def test_a_reversal_that_is_refused_is_noted(enabling: Path) -> None:
    """What hinders the reversal stands in the notes of the exception that asked for it."""
    transition = running(enabling)
    end(enabling, "0")
    with pytest.raises(RuntimeError) as info, transition:
        raise RuntimeError
    assert "not reversed" in info.value.__notes__[0]
