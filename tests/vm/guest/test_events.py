# SPDX-License-Identifier: MIT
"""Events: by netlink and by udev, of all patches, numbered."""

from __future__ import annotations

import os
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from conftest import Sleeper, until

from pylivepatch import Action, Core, Event, Monitor

Payload = Callable[[str], Path]
RULE = Path("/run/udev/rules.d/90-plp-test.rules")
HOOK = Path("/run/plp-hook")


def read(monitor: Monitor, count: int) -> list[Event]:
    """Read as many events, and pass over progress: how often that comes, time decides."""
    events: list[Event] = []
    while len(events) < count:
        event = monitor.read(timeout=120)
        assert event is not None, f"only {events}"
        if event.action is not Action.PROGRESS:
            events.append(event)
    return events


def story(events: list[Event]) -> list[tuple[str, str, str | None]]:
    """What happened to whom, and the target."""
    return [(event.name, str(event.action), event.target and str(event.target)) for event in events]


CYCLE = [
    ("plp_cmdline", "registered", None),
    ("plp_cmdline", "started", "patched"),
    ("plp_cmdline", "completed", "patched"),
    ("plp_cmdline", "started", "unpatched"),
    ("plp_cmdline", "completed", "unpatched"),
    ("plp_cmdline", "unregistered", None),
]


@pytest.mark.smoke
@pytest.mark.parametrize("source", ["netlink", "udev"])
def test_a_registered_patch_sends_its_life(core: Core, payload: Payload, source: str) -> None:
    """From registration to the end each step is an event, in order, numbered without a gap, with its time."""
    with core.monitor(source) as monitor:  # type: ignore[arg-type]
        before = time.monotonic()
        patch = core.load(payload("plp_cmdline"))
        patch.enable()
        patch.revert()
        patch.unload()
        events = read(monitor, len(CYCLE))
        assert story(events) == CYCLE
        assert monitor.lost == 0
    numbers = [event.sequence for event in events]
    assert numbers == list(range(numbers[0], numbers[0] + len(CYCLE)))
    times = [event.time for event in events]
    assert before <= times[0]
    assert times == sorted(times)
    assert times[-1] <= time.monotonic()
    assert all(event.registered and not event.replace and event.source == source for event in events)
    assert [str(event.state) for event in events] == [
        "registered",
        "enabling",
        "enabled",
        "disabling",
        "disabled",
        "disabled",
    ]


def test_both_sources_give_the_same_events(core: Core, payload: Payload) -> None:
    """An event by udev equals the one by netlink in all but its source."""
    with core.monitor("netlink") as netlink, core.monitor("udev") as udev:
        patch = core.load(payload("plp_cmdline"))
        patch.enable()
        patch.revert()
        patch.unload()

        def told(event: Event) -> tuple[object, ...]:
            fields = (event.sequence, event.time, event.action, event.name, event.state)
            return (*fields, event.target, event.registered, event.replace, event.forced)

        pairs = zip(read(netlink, len(CYCLE)), read(udev, len(CYCLE)), strict=True)
        assert all(told(one) == told(other) for one, other in pairs)


def test_a_foreign_patch_sends_events_too(core: Core, payload: Payload) -> None:
    """An ordinary livepatch module is followed from its first transition until it is unloaded."""
    with core.monitor() as monitor:
        patch = core.load(payload("plp_foreign"))
        if transition := patch.transition:
            transition.wait()
        # Past klpctl: the file that an operator would write to.
        Path("/sys/kernel/livepatch/plp_foreign/enabled").write_text("0")
        until(lambda: str(patch.state) == "disabled")
        patch.unload()
        events = read(monitor, 6)
    assert [(action, target) for _, action, target in story(events)] == [
        (action, target) for _, action, target in CYCLE
    ]
    assert not any(event.registered for event in events)


def test_replaced_and_reversed_are_events(
    core: Core, payload: Payload, sleeper: Callable[..., Sleeper]
) -> None:
    """An atomic replace tells who was replaced; a reversal tells the new target."""
    lower, replace = core.load(payload("plp_cmdline")), core.load(payload("plp_replace"))
    lower.enable()
    with core.monitor() as monitor:
        replace.enable()
        assert story(read(monitor, 3)) == [
            ("plp_replace", "started", "patched"),
            ("plp_replace", "completed", "patched"),
            ("plp_cmdline", "replaced", None),
        ]
        replace.revert()
        read(monitor, 2)
        sleeper()
        hold = core.load(payload("plp_hold"))
        hold.enable(wait=False)
        hold.revert()
        assert story(read(monitor, 4)) == [
            ("plp_hold", "registered", None),
            ("plp_hold", "started", "patched"),
            ("plp_hold", "reversed", "unpatched"),
            ("plp_hold", "completed", "unpatched"),
        ]


def test_a_failed_enable_sends_nothing(core: Core, payload: Payload, log: object) -> None:
    """A patch whose callback fails was never in transition: there is no event."""
    log.expect("pre-patch callback failed")  # type: ignore[attr-defined]
    log.expect("failed to enable patch")  # type: ignore[attr-defined]
    patch = core.load(payload("plp_prefail"), params={"fail": -123})
    with core.monitor() as monitor:
        with pytest.raises(OSError, match="plp_prefail"):
            patch.enable()
        patch.unload()
        assert story(read(monitor, 1)) == [("plp_prefail", "unregistered", None)]


def test_a_listener_that_is_too_slow_knows_what_it_lost(core: Core, payload: Payload) -> None:
    """Events beyond the socket's buffer are lost, and the gap in the numbers says how many."""
    rounds = 40
    with core.monitor() as monitor:
        with socket.socket(fileno=os.dup(monitor.fileno())) as small:
            small.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 0)
        first = core.load(payload("plp_cmdline"))
        assert monitor.read(timeout=120)
        first.unload()
        for _ in range(rounds):
            core.load(payload("plp_cmdline")).unload()
        received = 0
        while monitor.read(timeout=0):
            received += 1
        last = core.load(payload("plp_module"))
        while (event := monitor.read(timeout=120)) and event.name != "plp_module":
            received += 1
        last.unload()
        assert monitor.lost > 0
        assert received + monitor.lost == 1 + 2 * rounds


@pytest.fixture
def rule() -> Iterator[None]:
    """A udev rule that writes what it is told into a file."""
    RULE.parent.mkdir(parents=True, exist_ok=True)
    script = f"echo $env{{LIVEPATCH_ACTION}} $env{{LIVEPATCH_NAME}} >> {HOOK}"
    RULE.write_text(f"SUBSYSTEM==\"livepatch\", RUN+=\"/bin/sh -c '{script}'\"\n")
    subprocess.run(["udevadm", "control", "--reload"], check=True)
    yield
    RULE.unlink()
    HOOK.unlink(missing_ok=True)
    subprocess.run(["udevadm", "control", "--reload"], check=True)


@pytest.mark.smoke
def test_a_udev_rule_fires(core: Core, payload: Payload, rule: None) -> None:
    """A udev rule runs a program for every event, with the event in its environment."""
    patch = core.load(payload("plp_cmdline"))
    patch.enable()
    patch.revert()
    patch.unload()
    until(lambda: HOOK.exists() and len(HOOK.read_text().splitlines()) == len(CYCLE))
    assert HOOK.read_text().splitlines() == [f"{action} {name}" for name, action, _ in CYCLE]


@pytest.mark.parametrize("source", ["netlink", "udev"])
def test_a_monitor_may_be_closed_twice(core: Core, source: str) -> None:
    """Closing a monitor in its own block is no error, whatever it listens to."""
    with core.monitor(source) as monitor:  # type: ignore[arg-type]
        monitor.close()
