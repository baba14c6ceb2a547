# SPDX-License-Identifier: MIT
"""asyncio, on captured trees in which a task plays the kernel's part."""

from __future__ import annotations

import asyncio
import inspect
import threading
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import pylivepatch
from pylivepatch import PatchState, Target, TransitionReversedError, TransitionTimeoutError, UnsupportedError, aio

if TYPE_CHECKING:
    from collections.abc import Coroutine

HOLD = "sys/kernel/livepatch/plp_hold"
WAITERS = 100


def running(core: aio.Core) -> aio.Transition:
    """The transition of plp_hold."""
    transition = core["plp_hold"].transition
    assert transition is not None
    return transition


def end(root: Path, enabled: str) -> None:
    """End the transition as the kernel does: with `enabled` as it is."""
    (root / HOLD / "enabled").write_text(f"{enabled}\n")
    (root / HOLD / "transition").write_text("0\n")


async def reversing(root: Path) -> None:
    """End the transition as soon as it is turned round."""
    while not (root / HOLD / "enabled").read_text().startswith("0"):
        await asyncio.sleep(0)
    end(root, "0")


def descriptors() -> list[str]:
    """The open descriptors of this process."""
    return sorted(path.name for path in Path("/proc/self/fd").iterdir())


def run(body: Coroutine[object, object, None]) -> None:
    """Run a test; nothing may be left of it: no task, no thread, no descriptor."""

    async def whole() -> None:
        before = descriptors()
        await body
        assert asyncio.all_tasks() == {asyncio.current_task()}
        assert descriptors() == before

    threads = threading.active_count()
    asyncio.run(whole())
    assert threading.active_count() == threads


def test_what_only_reads(enabling: Path) -> None:
    """Patches, their states and objects are read as without asyncio."""

    async def body() -> None:
        async with aio.Core(root=enabling) as core:
            assert core.backend == "sysfs"
            assert set(core) == {"plp_foreign", "plp_hold", "plp_cmdline"}
            patch = core["plp-foreign"]
            assert patch == core.patch("plp_foreign")
            assert patch.state is PatchState.ENABLED
            assert patch.transition is None
            assert [part.name for part in patch.objects] == ["vmlinux"]
            with pytest.raises(UnsupportedError, match="klpctl"):
                core.monitor()

    run(body())


@pytest.mark.parametrize("kind", ["Core", "Patch", "Transition", "Monitor"])
def test_nothing_is_missing(kind: str) -> None:
    """Each public name of the classes without asyncio is there, and its parameters are the same."""
    sync, other = getattr(pylivepatch, kind), getattr(aio, kind)
    for name in (name for name in vars(sync) if not name.startswith("_")):
        assert hasattr(other, name), name
        if callable(there := getattr(sync, name)):
            mine, theirs = (inspect.signature(each).parameters.values() for each in (getattr(other, name), there))
            assert [(p.name, p.kind, p.default) for p in mine] == [(p.name, p.kind, p.default) for p in theirs], name


def test_waiting(enabling: Path) -> None:
    """All who wait for a transition see its end, and it can be waited for again."""

    async def body() -> None:
        async with aio.Core(root=enabling) as core, asyncio.TaskGroup() as group:
            transition = running(core)
            waiters = [group.create_task(transition.wait()) for _ in range(WAITERS)]
            await asyncio.sleep(0)
            end(enabling, "1")
            assert {await waiter for waiter in waiters} == {transition}
            assert transition.finished
            assert await transition.wait() is transition

    run(body())


def test_iteration(enabling: Path) -> None:
    """``async for`` yields progress while it goes on, and the end once."""

    async def body() -> None:
        async with aio.Core(root=enabling) as core:
            steps = aiter(running(core))
            first = await anext(steps)
            assert (first.target, first.pending) == (Target.PATCHED, 1)
            end(enabling, "1")
            last = [step async for step in steps][-1]
            assert last.pending == 0
            assert last.total == first.total

    run(body())


def test_reversed_by_somebody_else(enabling: Path) -> None:
    """A transition that ends where it started says so, to those who wait and to those who iterate."""

    async def body() -> None:
        async with aio.Core(root=enabling) as core:
            transition = running(core)
            end(enabling, "0")
            with pytest.raises(TransitionReversedError, match="somebody else"):
                await transition.wait()
            with pytest.raises(TransitionReversedError, match="somebody else"):
                [_ async for _ in transition]

    run(body())


def test_the_deadline_reverses_for_all(enabling: Path) -> None:
    """At the deadline the transition is turned round once, and each who waits is told."""

    async def body() -> None:
        async with aio.Core(root=enabling) as core:
            transition = running(core).within(1e-9)
            kernel = asyncio.create_task(reversing(enabling))
            errors = await asyncio.gather(*(transition.wait() for _ in range(WAITERS)), return_exceptions=True)
            await kernel
            for error in errors:
                assert isinstance(error, TransitionTimeoutError)
                assert error.reversed
                assert error.progress.pending == 1
                assert error.state is PatchState.DISABLED

    run(body())


def test_the_deadline_reports(enabling: Path) -> None:
    """With "report" the deadline raises, and the transition goes on."""

    async def body() -> None:
        async with aio.Core(root=enabling) as core:
            with pytest.raises(TransitionTimeoutError, match="still enabling") as info:
                await running(core).within(1e-9, "report").wait()
            assert not info.value.reversed
            assert (enabling / HOLD / "enabled").read_text().startswith("1")

    run(body())


def test_an_exception_in_the_block_reverses(enabling: Path) -> None:
    """An exception that leaves ``async with`` turns the transition round; others that wait are told."""

    async def body() -> None:
        async with aio.Core(root=enabling) as core:
            transition = running(core)
            other = asyncio.create_task(transition.wait())
            kernel = asyncio.create_task(reversing(enabling))
            await asyncio.sleep(0)
            with pytest.raises(RuntimeError):
                async with transition:
                    raise RuntimeError
            assert transition.reversed
            assert (enabling / HOLD / "transition").read_text() == "0\n"
            with pytest.raises(TransitionReversedError, match="interrupted"):
                await other
            await kernel

    run(body())


def test_cancelling_the_end_of_a_block_reverses(enabling: Path) -> None:
    """Who is cancelled while the end of ``async with`` waits turns the transition round, whoever started it."""

    async def block(core: aio.Core) -> None:
        async with running(core):
            pass

    async def body() -> None:
        async with aio.Core(root=enabling) as core:
            waiter = asyncio.create_task(block(core))
            kernel = asyncio.create_task(reversing(enabling))
            await asyncio.sleep(0.01)
            waiter.cancel()
            with pytest.raises(asyncio.CancelledError):
                await waiter
            assert (enabling / HOLD / "transition").read_text() == "0\n"
            kernel.cancel()

    run(body())


def test_cancelling_who_looks_on_changes_nothing(enabling: Path) -> None:
    """Who waits for what somebody else started may be cancelled: it goes on."""

    async def body() -> None:
        async with aio.Core(root=enabling) as core:
            waiters = [asyncio.create_task(running(core).wait()) for _ in range(WAITERS)]
            await asyncio.sleep(0)
            for waiter in waiters:
                waiter.cancel()
            ended = await asyncio.gather(*waiters, return_exceptions=True)
            assert all(isinstance(each, asyncio.CancelledError) for each in ended)
            assert (enabling / HOLD / "enabled").read_text().startswith("1")

    run(body())


def test_cancelling_an_enable_reverses(disabling: Path) -> None:
    """A cancelled enable is turned round, and the cancellation goes on when that has ended."""

    async def kernel() -> None:
        while (disabling / HOLD / "enabled").read_text().startswith("0"):
            await asyncio.sleep(0)
        enable.cancel()
        while (disabling / HOLD / "enabled").read_text().startswith("1"):
            await asyncio.sleep(0)
        end(disabling, "0")

    async def body() -> None:
        nonlocal enable
        async with aio.Core(root=disabling) as core:
            enable = asyncio.create_task(core["plp_hold"].enable())
            cancel = asyncio.create_task(kernel())
            with pytest.raises(asyncio.CancelledError):
                await enable
            await cancel
            assert core["plp_hold"].state is PatchState.DISABLED

    enable: asyncio.Task[aio.Transition]
    run(body())


def test_a_second_cancellation_ends_the_wait(disabling: Path) -> None:
    """Who is cancelled again while the reversal goes on does not wait for its end."""

    async def body() -> None:
        async with aio.Core(root=disabling) as core:
            enable = asyncio.create_task(core["plp_hold"].enable())
            for before in ("0", "1"):
                while (disabling / HOLD / "enabled").read_text().startswith(before):
                    await asyncio.sleep(0)
                enable.cancel()
                await asyncio.sleep(0)
            with pytest.raises(asyncio.CancelledError):
                await enable
            assert core["plp_hold"].state is PatchState.DISABLING

    run(body())


def test_a_reversal_that_is_refused_is_noted(enabling: Path) -> None:
    """What hinders the reversal stands in the notes of the exception that asked for it."""

    async def body() -> None:
        async with aio.Core(root=enabling) as core:
            transition = running(core)
            end(enabling, "0")
            with pytest.raises(RuntimeError) as info:
                async with transition:
                    raise RuntimeError
            assert "not reversed" in info.value.__notes__[0]

    run(body())
