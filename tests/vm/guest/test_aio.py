# SPDX-License-Identifier: MIT
"""asyncio on a real kernel: waiting without threads, and cancellation that reverses."""

from __future__ import annotations

import asyncio
import subprocess
import threading
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path

import pytest
from conftest import Sleeper, cmdline

from pylivepatch import Action, Core, PatchState, TransitionReversedError, TransitionTimeoutError, aio

Payload = Callable[[str], Path]
Sleep = Callable[..., Sleeper]
WAITERS = 100
SHORT = 0.5


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


@pytest.fixture
def without_klpctl(log: object) -> Iterator[None]:
    """A kernel without klpctl."""
    subprocess.run(["rmmod", "klpctl"], check=True)
    yield
    subprocess.run(["modprobe", "klpctl"], check=True)


async def until(condition: Callable[[], bool]) -> None:
    """Wait for something that must come."""
    async with asyncio.timeout(180):
        while not condition():
            await asyncio.sleep(0.01)


@pytest.mark.smoke
def test_a_patch_lives(log: object, payload: Payload) -> None:
    """Load, enable, revert, enable again without a reload, revert, unload; all awaited."""
    original = cmdline()

    async def body() -> None:
        async with aio.Core("klpctl") as core:
            patch = await core.load(payload("plp_cmdline"))
            assert patch.state is PatchState.REGISTERED
            for _ in range(2):
                assert (await patch.enable()).finished
                assert cmdline() == "cmdline: patched"
                transition = await patch.revert(wait=False)
                steps = [step async for step in transition]
                assert steps[-1].done == steps[-1].total > 0
                assert cmdline() == original
            await patch.unload()
            assert core.patches() == []

    run(body())


def test_a_hundred_waiters_cancelled_half_way(core: Core, payload: Payload, sleeper: Sleep) -> None:
    """Cancelling half of the waiters changes nothing, cancelling all reverses; nothing is left of them."""
    sleeper()
    core.load(payload("plp_hold"))

    async def body() -> None:
        async with aio.Core("klpctl") as here:
            patch = here["plp_hold"]
            transition = await patch.enable(timeout=None, wait=False)
            waiters = [asyncio.create_task(transition.wait()) for _ in range(WAITERS)]
            await asyncio.sleep(0)
            await until(lambda: transition.progress().pending == 1)
            held = descriptors()
            for waiter in waiters[: WAITERS // 2]:
                waiter.cancel()
            await asyncio.wait(waiters[: WAITERS // 2])
            assert patch.state is PatchState.ENABLING
            assert descriptors() == held
            assert threading.active_count() == 1
            for waiter in waiters[WAITERS // 2 :]:
                waiter.cancel()
            ended = await asyncio.gather(*waiters, return_exceptions=True)
            assert all(isinstance(each, asyncio.CancelledError) for each in ended)
            assert transition.reversed
            assert patch.state is PatchState.DISABLED
            assert descriptors() == held
            # One subscription, whatever the number of waiters.
            again = [asyncio.create_task(each.wait()) for each in await several(patch)]
            await asyncio.sleep(0)
            assert descriptors() == held
            for waiter in again:
                waiter.cancel()
            await asyncio.wait(again)
            assert patch.state is PatchState.ENABLING
            await patch.revert()

    async def several(patch: aio.Patch) -> list[aio.Transition]:
        await patch.enable(wait=False)
        found = [patch.transition for _ in range(WAITERS)]
        return [each for each in found if each is not None]

    run(body())


def test_all_waiters_see_the_end(core: Core, payload: Payload, sleeper: Sleep) -> None:
    """When the last task has switched all who wait learn it, through one transition or through many."""
    held = sleeper()
    core.load(payload("plp_hold"))

    async def body() -> None:
        async with aio.Core("klpctl") as here:
            patch = here["plp_hold"]
            transition = await patch.enable(wait=False)
            others = [patch.transition for _ in range(WAITERS)]
            waiters = [asyncio.create_task(each.wait()) for each in [transition, *others] if each]
            steps = aiter(transition)
            while (await anext(steps)).pending != 1:
                pass
            held.wake()
            assert len(await asyncio.gather(*waiters)) == WAITERS + 1
            assert [step.pending async for step in steps][-1] == 0
            assert patch.state is PatchState.ENABLED

    run(body())


@pytest.mark.smoke
def test_cancelling_an_enable_and_a_revert(core: Core, payload: Payload, sleeper: Sleep) -> None:
    """A cancelled enable leaves the patch disabled, a cancelled revert leaves it enabled: at once, not later."""
    held = sleeper()
    core.load(payload("plp_hold"))

    async def body() -> None:
        async with aio.Core("klpctl") as here:
            patch = here["plp_hold"]
            change = asyncio.create_task(patch.enable(timeout=None))
            await until(lambda: patch.state is PatchState.ENABLING)
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(SHORT):
                    await change
            assert patch.state is PatchState.DISABLED
            held.wake()
            await patch.enable()
            sleeper("plp_hold")
            change = asyncio.create_task(patch.revert(timeout=None))
            await until(lambda: patch.state is PatchState.DISABLING)
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(change, SHORT)
            assert patch.state is PatchState.ENABLED

    run(body())


def test_deadlines(core: Core, payload: Payload, sleeper: Sleep) -> None:
    """A deadline reverses, or reports and leaves it going; who looked on is told that it was reversed."""
    sleeper()
    core.load(payload("plp_hold"))

    async def body() -> None:
        async with aio.Core("klpctl") as here:
            patch = here["plp_hold"]
            with pytest.raises(TransitionTimeoutError) as info:
                await patch.enable(timeout=SHORT, on_timeout="report")
            assert info.value.state is PatchState.ENABLING
            running = patch.transition
            assert running is not None
            looking_on = asyncio.create_task(running.wait())
            await asyncio.sleep(0)
            await patch.revert()
            with pytest.raises(TransitionReversedError):
                await looking_on
            with pytest.raises(TransitionTimeoutError) as info:
                await patch.enable(timeout=SHORT)
            assert info.value.reversed
            assert patch.state is PatchState.DISABLED

    run(body())


@pytest.mark.smoke
@pytest.mark.parametrize("source", ["netlink", "udev"])
def test_events(core: Core, payload: Payload, source: str) -> None:
    """``async for event in monitor`` sees what happens, and several readers share it."""

    async def body() -> None:
        async with aio.Core("klpctl") as here, here.monitor(source) as monitor:  # type: ignore[arg-type]
            readers = [asyncio.create_task(monitor.read()) for _ in range(3)]
            await asyncio.sleep(0)
            patch = await here.load(payload("plp_cmdline"))
            await patch.enable()
            events = await asyncio.gather(*readers)
            seen = {event.action for event in events if event is not None}
            await patch.revert()
            await patch.unload()
            async for event in monitor:
                seen.add(event.action)
                if event.action is Action.UNREGISTERED:
                    break
            assert {Action.REGISTERED, Action.STARTED, Action.COMPLETED, Action.UNREGISTERED} <= seen
            assert await monitor.read(timeout=0) is None
            assert monitor.lost == 0

    run(body())


def test_without_klpctl(without_klpctl: None, payload: Payload, sleeper: Sleep) -> None:
    """By sysfs the same works by sleeping and reading: waiting, cancelling, and the deadline."""
    held = sleeper()

    async def body() -> None:
        async with aio.Core("sysfs") as here:
            loading = asyncio.create_task(here.load(payload("plp_foreign_hold")))
            # Until the core has started it, sysfs has it as one that is being disabled.
            await until(lambda: "plp_foreign_hold" in here and here["plp_foreign_hold"].state is PatchState.ENABLING)
            transition = here["plp_foreign_hold"].transition
            assert transition is not None
            waiters = [asyncio.create_task(transition.wait()) for _ in range(WAITERS)]
            await until(lambda: transition.progress().pending == 1)
            loading.cancel()
            with pytest.raises(asyncio.CancelledError):
                await loading
            assert len(here) == 0
            for ended in await asyncio.gather(*waiters, return_exceptions=True):
                assert isinstance(ended, TransitionReversedError)
            held.wake()
            patch = await here.load(payload("plp_foreign_hold"))
            await patch.revert(timeout=60)
            await patch.enable(timeout=60)
            await patch.revert(timeout=60)
            await patch.unload()

    run(body())
