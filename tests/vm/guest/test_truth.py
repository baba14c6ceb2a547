# SPDX-License-Identifier: MIT
"""klpctl says what the core says, whatever it has seen, and holds nobody up."""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import MODULES, KernelLog, Sleeper, cmdline, parameter, until, window
from rawdevice import ENABLE, WAIT, K, request
from rawnetlink import NLM_F_DUMP, Client

from pylivepatch import (
    Action,
    ConfirmationExpiredError,
    Core,
    Patch,
    PatchRejectedError,
    PatchState,
    PatchStateError,
    Severity,
    TransitionBusyError,
    TransitionTimeoutError,
)

Payload = Callable[[str], Path]
Sleep = Callable[..., Sleeper]
PRE_PATCH, POST_PATCH, PRE_UNPATCH, POST_UNPATCH = "1", "2", "3", "4"
IOCTL = 16  # on x86-64
FTRACE = Path("/proc/sys/kernel/ftrace_enabled")


@pytest.fixture
def kprobes() -> Iterator[Path]:
    """The switch that disarms all kprobes; they are armed afterwards."""
    switch = Path("/sys/kernel/debug/kprobes/enabled")
    if not switch.exists():
        subprocess.run(["mount", "-t", "debugfs", "none", "/sys/kernel/debug"], check=True)
    yield switch
    switch.write_text("1")


class Thread(threading.Thread):
    """A call in another thread, and what came of it."""

    def __init__(self, call: Callable[[], object]) -> None:
        super().__init__(daemon=True)
        self.result: Any = None
        self.error: BaseException | None = None
        self._call = call
        self.start()

    def run(self) -> None:
        """Call it."""
        try:
            self.result = self._call()
        except BaseException as error:
            self.error = error

    def asks(self) -> bool:
        """Whether it is in an ioctl, and sleeps there."""
        task = Path(f"/proc/self/task/{self.native_id}")
        return (task / "syscall").read_text().startswith(f"{IOCTL} ")

    def end(self) -> Any:
        """Its result, when it has one within minutes: it hangs otherwise."""
        self.join(180)
        assert not self.is_alive(), "it hangs"
        if self.error is not None:
            raise self.error
        return self.result


@pytest.fixture
def callback(core: Core, payload: Payload) -> Iterator[Patch]:
    """A patch whose callbacks wait; they go on at the end."""
    yield core.load(payload("plp_callback"))
    parameter("plp_callback", "hold", "0")
    until(lambda: parameter("plp_callback", "waiting") in ("0", ""))


def held(patch: Patch, where: str, change: Callable[[], object]) -> Thread:
    """Start a change that a callback holds up."""
    parameter(patch.name, "hold", where)
    thread = Thread(change)
    until(lambda: parameter(patch.name, "waiting") == where)
    return thread


def refused(log: KernelLog) -> None:
    """Expect what the core says when a callback refuses an enable."""
    log.expect("pre-patch callback failed")
    log.expect("failed to enable patch 'plp_callback'")


# ---- what is missed ----


def test_an_end_that_no_probe_saw(core: Core, payload: Payload, sleeper: Sleep, kprobes: Path) -> None:
    """The end of a transition that was missed is known all the same: a wait returns, and a healthy patch stays."""
    patch = core.load(payload("plp_hold"))
    # Unseen, an end comes with the core's own retry.
    seconds = window(patch, 8)
    waiting = sleeper()
    device = os.open("/dev/klpctl", os.O_RDWR)
    patch.enable(timeout=None, wait=False, confirm_within=seconds)
    end = time.monotonic() + seconds
    kprobes.write_text("0")
    wait = Thread(lambda: request(device, WAIT, b"plp_hold", timeout_ms=K["KLPCTL_WAIT_FOREVER"]))
    waiting.wake()
    assert wait.end() == K["KLPCTL_STATE_ENABLED"]
    kprobes.write_text("1")
    os.close(device)
    assert patch.state is PatchState.ENABLED
    assert patch.transition is None
    patch.confirm()
    time.sleep(max(0.0, end - time.monotonic()) + 1)
    assert patch.state is PatchState.ENABLED


@pytest.mark.parametrize("name", ["plp_cmdline", "plp_foreign"])
def test_a_whole_transition_that_no_probe_saw(core: Core, payload: Payload, kprobes: Path, name: str) -> None:
    """A patch that was enabled and reverted unseen is in the state that it is in."""
    kprobes.write_text("0")
    patch = core.load(payload(name))
    if patch.registered:
        patch.enable()
    directory = Path("/sys/kernel/livepatch", name)
    until(lambda: (directory / "transition").read_text() == "0\n")
    assert patch.state is PatchState.ENABLED
    (directory / "enabled").write_text("0")
    until(lambda: not directory.exists())
    until(lambda: patch.state is PatchState.DISABLED)
    kprobes.write_text("1")
    assert patch.state is PatchState.DISABLED


def test_a_replacement_that_no_probe_saw(core: Core, payload: Payload, kprobes: Path) -> None:
    """Of all that happened between two looks the order is told as it must have been."""
    core.load(payload("plp_cmdline")).enable()
    with core.monitor() as monitor:
        kprobes.write_text("0")
        subprocess.run(["insmod", payload("plp_foreign"), "replace=1"], check=True)
        until(lambda: Path("/sys/kernel/livepatch/plp_foreign/transition").read_text() == "0\n")
        until(lambda: not Path("/sys/kernel/livepatch/plp_cmdline").exists())
        kprobes.write_text("1")
        assert core["plp_cmdline"].state is PatchState.REPLACED
        events = [monitor.read(timeout=120) for _ in range(4)]
    assert [event and (event.name, event.action) for event in events] == [
        ("plp_foreign", Action.REGISTERED),
        ("plp_foreign", Action.STARTED),
        ("plp_foreign", Action.COMPLETED),
        ("plp_cmdline", Action.REPLACED),
    ]


@pytest.fixture
def slowly(request: pytest.FixtureRequest) -> Iterator[None]:
    """The core takes half a second before each call of the function that the test names."""
    parameters = [f"func={request.param}", "delay=500"]
    subprocess.run(["insmod", MODULES / "plp_probe.ko", *parameters], check=True)
    yield
    subprocess.run(["rmmod", "plp_probe"], check=True)


@pytest.mark.parametrize("slowly", ["klp_free_replaced_patches_async"], indirect=True)
def test_what_is_replaced_is_so_with_the_end(core: Core, payload: Payload, slowly: None) -> None:
    """When an atomic replace is enabled, a standalone patch is replaced, though the core is not done with either."""
    foreign, replace = core.load(payload("plp_foreign")), core.load(payload("plp_replace"))
    thread = Thread(replace.enable)
    until(lambda: replace.state is PatchState.ENABLED)
    assert foreign.state is PatchState.REPLACED
    thread.end()
    assert foreign.state is PatchState.REPLACED
    assert foreign.unload()


def test_what_is_not_confirmed_goes_though_no_event_is_seen(core: Core, payload: Payload, kprobes: Path) -> None:
    """A patch whose window ends is reverted while all kprobes are disarmed."""
    patch = core.load(payload("plp_cmdline"))
    seconds = window(patch, 4)
    kprobes.write_text("0")
    patch.enable(confirm_within=seconds)
    assert patch.state is PatchState.ENABLED
    until(lambda: not Path("/sys/kernel/livepatch/plp_cmdline").exists())
    assert patch.state is PatchState.DISABLED


def test_reversals_are_told_or_leave_a_gap(core: Core, payload: Payload, sleeper: Sleep) -> None:
    """Of many reversals through sysfs each is told, or the numbers have a gap; the state is right in the end."""
    waiting = [sleeper()]
    patch = core.load(payload("plp_hold"))
    transition = patch.enable(timeout=None, wait=False)
    # One sleeps in the old function and one in the new: there is no end, whichever way it goes.
    waiting.append(sleeper("plp_hold"))
    enabled = Path("/sys/kernel/livepatch/plp_hold/enabled")
    with core.monitor() as monitor:
        for _ in range(20):
            enabled.write_text("0")
            enabled.write_text("1")
        assert patch.state is PatchState.ENABLING
        for each in waiting:
            each.wake()
        transition.wait()
        reversals, numbers, last = 0, [], None
        while last is not Action.COMPLETED:
            event = monitor.read(timeout=120)
            assert event is not None
            last = event.action
            reversals += last is Action.REVERSED
            if last is not Action.PROGRESS:
                numbers.append(event.sequence)
    missing = numbers[-1] - numbers[0] + 1 - len(numbers)
    assert reversals == 40 or missing > 0
    assert (last, patch.state) == (Action.COMPLETED, PatchState.ENABLED)


# ---- whom it holds up ----


@pytest.mark.parametrize("where", [PRE_PATCH, POST_PATCH, PRE_UNPATCH, POST_UNPATCH])
def test_a_callback_holds_up_no_query(core: Core, payload: Payload, callback: Patch, where: str) -> None:
    """While a callback runs, queries, dumps, closing the device and events go on, for a standalone patch, too."""
    core.load(payload("plp_foreign"))
    until(lambda: core["plp_foreign"].state is PatchState.ENABLED)
    other = core.load(payload("plp_cmdline"))
    if where in (PRE_UNPATCH, POST_UNPATCH):
        callback.enable()
    device = os.open("/dev/klpctl", os.O_RDWR)
    with core.monitor() as monitor:
        change = callback.enable if where in (PRE_PATCH, POST_PATCH) else callback.revert
        thread = held(callback, where, change)

        def ask() -> list[PatchState]:
            client = Client()
            client.ask(K["KLPCTL_CMD_FEATURES_GET"])
            names = {each.text(K["KLPCTL_A_NAME"]) for each in client.ask(K["KLPCTL_CMD_PATCH_GET"], b"", NLM_F_DUMP)}
            assert names == {"plp_callback", "plp_foreign", "plp_cmdline"}
            client.ask(K["KLPCTL_CMD_TASK_GET"], b"", NLM_F_DUMP)
            client.close()
            os.close(device)
            return [core[name].state for name in ("plp_callback", "plp_foreign", "plp_cmdline")]

        states = Thread(ask).end()
        # An event needs nothing that the core holds, either.
        with pytest.raises(PatchStateError, match="cannot confirm plp_cmdline"):
            Thread(other.confirm).end()
        assert parameter("plp_callback", "waiting") == where
        expected = {
            # Before it has started it is not in transition; afterwards it is, until all is done.
            PRE_PATCH: PatchState.REGISTERED,
            POST_PATCH: PatchState.ENABLING,
            PRE_UNPATCH: PatchState.ENABLED,
            POST_UNPATCH: PatchState.DISABLING,
        }
        assert states == [expected[where], PatchState.ENABLED, PatchState.REGISTERED]
        if where in (POST_PATCH, POST_UNPATCH):
            event = Thread(lambda: monitor.read(timeout=120)).end()
            assert (event.name, event.action) == ("plp_callback", Action.STARTED)
        parameter("plp_callback", "hold", "0")
        thread.end()


def test_a_callback_holds_up_no_other_family(core: Core, payload: Payload, callback: Patch) -> None:
    """While a callback runs and a family is unregistered, requests of other families are answered."""
    subprocess.run(["insmod", MODULES / "plp_family.ko"], check=True)
    thread = held(callback, PRE_PATCH, callback.enable)
    remover = subprocess.Popen(["rmmod", "plp_family"])
    # Other families are asked for and asked, while this one is, or wants to be, unregistered.
    time.sleep(1)
    Thread(lambda: Client().close()).end()
    assert parameter("plp_callback", "waiting") == PRE_PATCH
    parameter("plp_callback", "hold", "0")
    thread.end()
    assert remover.wait(240) == 0


def test_a_signal_does_not_refuse_an_enable(core: Core, payload: Payload, callback: Patch) -> None:
    """A program with a signal handler enables and reverts, though it has to wait for another."""
    patch = core.load(payload("plp_cmdline"))
    thread = held(callback, PRE_PATCH, callback.enable)
    signals = 0

    def handler(*_: object) -> None:
        nonlocal signals
        signals += 1
        if signals == 20:
            parameter("plp_callback", "hold", "0")

    old = signal.signal(signal.SIGALRM, handler)
    signal.setitimer(signal.ITIMER_REAL, 0.05, 0.05)
    try:
        # The other may be in transition by then, which is another refusal.
        until(lambda: enabled(patch))
        patch.revert()
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, old)
    assert signals >= 20
    thread.end()


def enabled(patch: Patch) -> bool:
    """Enable a patch, unless another one is in transition."""
    with contextlib.suppress(TransitionBusyError):
        patch.enable()
        return True
    return False


# ---- what programs see ----


def test_early_retries_send_no_signals(core: Core, payload: Payload, sleeper: Sleep, log: KernelLog) -> None:
    """A transition that is held up for seconds is retried as by the core: its signals come when it sends them."""
    waiting = sleeper()
    patch = core.load(payload("plp_hold"))
    before = core.features.kicks
    transition = patch.enable(timeout=None, wait=False)
    time.sleep(8)
    assert not [line for line in log.lines() if "signaling remaining tasks" in line]
    assert core.features.kicks - before <= 5
    waiting.wake()
    transition.wait()


def test_without_ftrace(core: Core, payload: Payload, callback: Patch, log: KernelLog) -> None:
    """While ftrace is switched off an enable says so, runs no callback, and `check` finds it."""
    try:
        FTRACE.write_text("0")
    except OSError as error:
        # Since 7.x it cannot be switched off any more.
        assert error.errno == errno.EOPNOTSUPP  # noqa: PT017
        log.expect("ftrace_enabled file is deprecated")
        assert FTRACE.read_text() == "1\n"
        return
    for complaint in ("failed to register ftrace handler", "failed to patch object", "failed to enable patch"):
        log.expect(f"{complaint} .*")
    try:
        parameter("plp_callback", "hold", PRE_PATCH)
        with pytest.raises(PatchRejectedError, match="ftrace is switched off") as info:
            Thread(callback.enable).end()
        assert "ftrace_enabled" in info.value.remedy
        assert parameter("plp_callback", "waiting") == "0"
        with pytest.raises(PatchRejectedError, match="ftrace is switched off"):
            core.load(payload("plp_foreign"))
        findings = [each for each in core.preflight(payload("plp_cmdline")) if each.code == "ftrace"]
        assert [each.severity for each in findings] == [Severity.FATAL]
    finally:
        FTRACE.write_text("1")
    parameter("plp_callback", "hold", "0")
    callback.enable()
    assert cmdline() == "cmdline: with callbacks"


def test_the_data_of_a_state_does_not_outlive_a_revert(core: Core, callback: Patch) -> None:
    """Each enable finds its states as the module declares them."""
    for _ in range(3):
        callback.enable()
        callback.revert()
    assert parameter("plp_callback", "stale") == "0"


# ---- windows ----


def test_a_window_begins_with_the_enable(core: Core, payload: Payload, callback: Patch, log: KernelLog) -> None:
    """An enable that has to wait for another has its whole window afterwards."""
    refused(log)
    patch = core.load(payload("plp_cmdline"))
    seconds = window(patch)
    parameter("plp_callback", "fail", "-5")
    thread = held(callback, PRE_PATCH, callback.enable)
    queued = Thread(lambda: patch.enable(confirm_within=seconds))
    until(queued.asks)
    time.sleep(seconds + 1)
    parameter("plp_callback", "hold", "0")
    with pytest.raises(PatchRejectedError):
        thread.end()
    queued.end()
    assert patch.state is PatchState.ENABLED
    patch.confirm()


def test_the_kernel_keeps_the_deadline(core: Core, payload: Payload, sleeper: Sleep) -> None:
    """Who is killed while waiting leaves a transition that the kernel reverses at the deadline."""
    patch = core.load(payload("plp_hold"))
    seconds = window(patch, 4)
    waiting = sleeper()
    child = os.fork()
    if child == 0:
        with Core("klpctl") as mine:
            mine["plp_hold"].enable(timeout=seconds)
        os._exit(0)
    until(lambda: patch.state is PatchState.ENABLING)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    assert patch.state is PatchState.ENABLING
    until(lambda: patch.state is PatchState.DISABLED)
    assert waiting.process.poll() is None


def test_a_deadline_that_nobody_enforced(core: Core, payload: Payload, sleeper: Sleep) -> None:
    """Who follows a transition only after the kernel has reversed it is told of the deadline."""
    sleeper()
    patch = core.load(payload("plp_hold"))
    transition = patch.enable(timeout=1, wait=False)
    until(lambda: patch.state is PatchState.DISABLED)
    with pytest.raises(TransitionTimeoutError, match="did not end within 1 s") as info:
        transition.wait()
    assert "the kernel has reversed it, and the patch is disabled" in str(info.value)
    assert info.value.reversed


def test_a_deadline_that_is_met_changes_nothing(core: Core, payload: Payload) -> None:
    """A transition that ends in time needs no confirmation, and is not reverted later."""
    seconds = window(core.load(payload("plp_cmdline")))
    device = os.open("/dev/klpctl", os.O_RDWR)
    flags = K["KLPCTL_ENABLE_DEADLINE"] | K["KLPCTL_ENABLE_OWNED"]
    request(device, ENABLE, b"plp_cmdline", flags=flags, timeout_ms=int(1000 * seconds))
    assert request(device, WAIT, b"plp_cmdline", timeout_ms=60_000) == K["KLPCTL_STATE_ENABLED"]
    assert core["plp_cmdline"].status().confirm_until is None
    os.close(device)
    time.sleep(seconds + 1)
    assert core["plp_cmdline"].state is PatchState.ENABLED


def test_an_expired_patch_cannot_be_confirmed(core: Core, payload: Payload, sleeper: Sleep) -> None:
    """Between the end of its window and the revert, which waits for another, a patch is not to be confirmed."""
    patch, other = core.load(payload("plp_cmdline")), core.load(payload("plp_hold"))
    seconds = window(patch, 4)
    waiting = sleeper()
    with core.monitor() as monitor:
        patch.enable(confirm_within=seconds)
        transition = other.enable(timeout=None, wait=False)
        until(lambda: (event := monitor.read(timeout=120)) and event.action is Action.EXPIRED)
    assert patch.state is PatchState.ENABLED
    with pytest.raises(ConfirmationExpiredError, match="not confirmed in time"):
        patch.confirm()
    waiting.wake()
    transition.wait()
    until(lambda: patch.state is PatchState.DISABLED)


def test_of_two_expired_patches_the_one_in_transition_goes_first(core: Core, payload: Payload, sleeper: Sleep) -> None:
    """The patch in transition is reversed though a newer one has expired, too, which would wait for it."""
    older, newer = core.load(payload("plp_hold")), core.load(payload("plp_cmdline"))
    seconds = window(newer, 4)
    sleeper()
    newer.enable(confirm_within=seconds)
    older.enable(timeout=None, wait=False, confirm_within=seconds)
    until(lambda: older.state is PatchState.DISABLED)
    until(lambda: newer.state is PatchState.DISABLED)


def test_a_replaced_patch_awaits_nothing(core: Core, payload: Payload) -> None:
    """A patch that is replaced awaits no confirmation any more, and does not expire."""
    patch, replacement = core.load(payload("plp_cmdline")), core.load(payload("plp_replace"))
    seconds = 2 * window(patch)
    with core.monitor() as monitor:
        patch.enable(confirm_within=seconds)
        replacement.enable()
        until(lambda: patch.state is PatchState.REPLACED)
        assert patch.status().confirm_until is None
        actions = []
        end = time.monotonic() + seconds + 2
        while time.monotonic() < end:
            event = monitor.read(timeout=1)
            actions += [event.action] if event else []
    assert Action.REPLACED in actions
    assert Action.EXPIRED not in actions


def test_an_enable_after_the_window_stays(core: Core, payload: Payload, callback: Patch, log: KernelLog) -> None:
    """What was reverted and enabled anew, while its expiry had to wait, is another enable."""
    refused(log)
    patch = core.load(payload("plp_cmdline"))
    patch.enable(confirm_within=window(patch, 6))
    parameter("plp_callback", "fail", "-5")
    with core.monitor() as monitor:
        thread = held(callback, PRE_PATCH, callback.enable)
        revert = Thread(lambda: patch.revert(wait=False))
        until(revert.asks)
        anew = Thread(lambda: patch.enable(wait=False))
        until(anew.asks)
        until(lambda: (event := monitor.read(timeout=120)) and event.action is Action.EXPIRED)
        time.sleep(1)
        parameter("plp_callback", "hold", "0")
        with pytest.raises(PatchRejectedError):
            thread.end()
        revert.end()
        anew.end()
    until(lambda: not patch.state.in_transition)
    time.sleep(2)
    assert patch.state is PatchState.ENABLED


def test_progress_leaves_no_gap_for_udev(core: Core, payload: Payload, sleeper: Sleep) -> None:
    """Progress, which udev is not told, takes no number."""
    waiting = sleeper()
    patch = core.load(payload("plp_hold"))
    with core.monitor() as listener, core.monitor(source="udev") as monitor:
        transition = patch.enable(timeout=None, wait=False)
        until(lambda: (event := listener.read(timeout=120)) and event.action is Action.PROGRESS)
        waiting.wake()
        transition.wait()
        patch.revert()
        actions = []
        while actions.count(Action.COMPLETED) < 2:
            event = monitor.read(timeout=60)
            assert event is not None
            actions.append(event.action)
        assert monitor.lost == 0
    assert actions == [Action.STARTED, Action.COMPLETED] * 2
