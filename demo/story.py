# SPDX-License-Identifier: MIT
"""The demo: a kernel is live-patched under a workload that never stops.

`make demo` runs it on stock kernels in QEMU. It uses the public API alone, tells what
happens, checks it, and exits with 1 if anything did not hold.
"""

from __future__ import annotations

import contextlib
import json
import os
import platform
import queue
import re
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from pylivepatch import Action, Core, Event, LivepatchError, Monitor, Patch, PatchState, Transition

HERE = Path(__file__).resolve().parent
RULE = Path("/run/udev/rules.d/90-livepatch.rules")
HOOK = Path("/usr/local/lib/livepatch/hook")
HOOK_LOG = Path("/run/livepatch.log")
KNOWN_LOG = re.compile(
    "loading out-of-tree module taints kernel"
    "|module verification failed: signature and/or required key missing"
    "|tainting kernel with TAINT_LIVEPATCH"
)
# What a kernel in QEMU says when the machine that it runs on is busy with other things.
SLOW_LOG = re.compile("hrtimer: interrupt took|clocksource: |sched_clock: Marking")
WATCH = 0.3
PATIENCE = 10.0


class Story:
    """Numbered steps, lines below them, and checks."""

    def __init__(self) -> None:
        self.steps = 0
        self.checks = 0
        self.failed: list[str] = []

    def step(self, text: str) -> None:
        """Begin the next step."""
        self.steps += 1
        print(f"\n{self.steps:2}. {text}", flush=True)

    def say(self, text: str) -> None:
        """Say something about the step."""
        print(f"    {text}", flush=True)

    def check(self, holds: bool, text: str) -> None:
        """Say something that must hold."""
        self.checks += 1
        if not holds:
            self.failed.append(f"step {self.steps}: {text}")
        print(f"    {'ok  ' if holds else 'FAIL'}  {text}", flush=True)


class Workload:
    """The process that uses the function that is patched."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, HERE / "workload.py"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.pid = self._process.pid
        self.reads = 0
        self.errors = 0

    def look(self) -> dict[str, int]:
        """What it has seen since the last look, with how often."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        print(file=self._process.stdin, flush=True)
        counted = json.loads(self._process.stdout.readline())
        self.errors += counted["errors"]
        seen: dict[str, int] = counted["seen"]
        self.reads += sum(seen.values())
        return seen

    def watch(self) -> dict[str, int]:
        """What it sees from now on, for a moment."""
        self.look()
        time.sleep(WATCH)
        return self.look()

    def end(self) -> bool:
        """End it; whether it was still there, and ended well."""
        self.look()
        running = self._process.poll() is None
        self._process.communicate()
        return running and self._process.returncode == 0


class Arrival(NamedTuple):
    """An event, and the CLOCK_MONOTONIC time at which it was read here."""

    event: Event
    at: float


class Listener:
    """Takes events from a monitor as they come, and keeps them."""

    def __init__(self, monitor: Monitor) -> None:
        self._arrivals: queue.SimpleQueue[Arrival] = queue.SimpleQueue()
        self._monitor = monitor
        threading.Thread(target=self._listen, daemon=True).start()

    def _listen(self) -> None:
        for event in self._monitor:
            # A slow transition tells of its progress, too; how often depends on the machine.
            if event.action != "progress":
                self._arrivals.put(Arrival(event, time.monotonic()))

    def take(self, count: int) -> list[Arrival]:
        """The next events, as many as have come in time."""
        end = time.monotonic() + PATIENCE
        taken: list[Arrival] = []
        with contextlib.suppress(queue.Empty):
            while len(taken) < count:
                taken.append(self._arrivals.get(timeout=max(0.0, end - time.monotonic())))
        return taken


class Demo:
    """The story of one kernel."""

    def __init__(self, story: Story, core: Core, file: Path) -> None:
        self.story = story
        self.core = core
        self.file = file
        self.durations: list[float] = []
        self.begun = 0.0
        self.workload = Workload()
        self.listeners = (Listener(core.monitor("netlink")), Listener(core.monitor("udev")))
        self.original = Path("/proc/version").read_text().strip()
        uts = platform.uname()
        self.patched = f"{uts.system} version {uts.release} {uts.version}"

    def run(self) -> None:
        """Tell it."""
        story, workload = self.story, self.workload

        story.step(f"A workload, process {workload.pid}, reads /proc/version again and again.")
        self.sees(self.original)

        story.step(f"Load {self.file.name}. It registers with klpctl; nothing changes.")
        story.say("Times of events count from the call: in the kernel, and when they came here.")
        self.begin()
        patch = self.core.load(self.file)
        self.events(Action.REGISTERED)
        story.check(patch.state is PatchState.REGISTERED, f"the patch is {patch.state}")
        self.sees(self.original)

        story.step("Enable it: each task goes over to the new code when that is safe.")
        self.enable(patch)
        self.command("pylivepatch", "status")

        story.step("Revert it: the old code is back.")
        self.revert(patch)

        story.step("Enable it again, without loading it again.")
        self.enable(patch)

        story.step("Revert it again.")
        self.revert(patch)

        story.step("Unload it.")
        self.begin()
        patch.unload()
        self.events(Action.UNREGISTERED)
        story.check(self.core.patches() == [], "no patch is left")
        self.sees(self.original)

        story.step("The workload ends. It has never been stopped or restarted.")
        story.check(workload.end(), f"process {workload.pid} ran to the end")
        story.check(workload.errors == 0, f"{workload.reads} reads, {workload.errors} errors")

    def begin(self) -> None:
        """Events from here on are timed from here."""
        self.begun = time.monotonic()

    def enable(self, patch: Patch) -> None:
        """Enable the patch, and see what that brings."""
        self.begin()
        self.transition(patch.enable())
        self.story.check(patch.state is PatchState.ENABLED, f"the patch is {patch.state}")
        self.sees(self.patched)

    def revert(self, patch: Patch) -> None:
        """Revert the patch, and see what that brings."""
        self.begin()
        self.transition(patch.revert())
        self.story.check(patch.state is PatchState.DISABLED, f"the patch is {patch.state}")
        self.sees(self.original)

    def transition(self, transition: Transition) -> None:
        """Show a transition that has ended."""
        self.durations.append(transition.duration)
        started, completed = self.events(Action.STARTED, Action.COMPLETED)
        progress = transition.progress()
        kernel = "?" if started is None or completed is None else f"{ms(completed - started)}"
        self.story.say(
            f"transition to {transition.target}: {ms(transition.duration)} by the call, "
            f"{kernel} in the kernel, {progress.total} tasks"
        )

    def events(self, *actions: Action) -> list[float | None]:
        """Show the events since `begin`; return the kernel's times of them."""
        arrivals = [listener.take(len(actions)) for listener in self.listeners]
        times: list[float | None] = []
        for number, action in enumerate(actions):
            came = [taken[number] for taken in arrivals if len(taken) > number]
            good = len(came) == 2 and all(arrival.event.action is action for arrival in came)
            same = len({(a.event.sequence, a.event.time, a.event.state) for a in came}) == 1
            by = ", ".join(f"by {a.event.source} {ms(a.at - self.begun)}" for a in came)
            at = came[0].event.time - self.begun if came else None
            text = f"event {action}" + (f" at {ms(at)}, {by}" if at is not None else " is missing")
            self.story.check(good and same, text)
            times.append(at)
        return times

    def sees(self, wanted: str) -> None:
        """Check what the workload sees now."""
        seen = self.workload.watch()
        for text, count in seen.items():
            self.story.check(text == wanted, f"the workload reads, {count} times in {ms(WATCH)}:")
            self.story.say(f'        "{shortened(text)}"')
        if not seen:
            self.story.check(False, "the workload reads")

    def command(self, *words: str) -> None:
        """Run a command, and show what it prints."""
        self.story.say(f"$ {' '.join(words)}")
        ran = subprocess.run(words, stdout=subprocess.PIPE, text=True, check=False)
        for line in ran.stdout.splitlines():
            self.story.say(f"  {line}")
        self.story.check(ran.returncode == 0, f"exit code {ran.returncode}")


def ms(seconds: float) -> str:
    """A time in milliseconds."""
    return f"{seconds * 1000:.0f} ms"


def shortened(text: str, width: int = 88) -> str:
    """The text, or its beginning and its end."""
    if len(text) <= width:
        return text
    return f"{text[: width // 2]} … {text[-width // 2 + 3 :]}"


def install_hook(story: Story) -> None:
    """Install the example of udev/: the rule, and the hook that it runs."""
    story.step("Install a udev rule that runs a hook on events of live patches.")
    for source, target in ((RULE.name, RULE), (HOOK.name, HOOK)):
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(HERE.parent / "udev" / source, target)
        story.say(f"{target}")
    HOOK_LOG.unlink(missing_ok=True)
    subprocess.run(["udevadm", "control", "--reload"], check=True)


def check_hook(story: Story, name: str) -> None:
    """Show what the hook was told."""
    story.step(f"What udev told the hook, in {HOOK_LOG}:")
    # udevd tells its listeners of an event after its hooks have run: the lines are there.
    lines = HOOK_LOG.read_text().splitlines() if HOOK_LOG.exists() else []
    for line in lines:
        story.say(line)
    told = [re.search(r"\bACTION=(\w+)", line) for line in lines]
    actions = [found[1] for found in told if found]
    wanted = ["registered", *["completed"] * 4, "unregistered"]
    story.check(actions == wanted, f"the hook ran {len(lines)} times, in this order")
    story.check(all(f"NAME={name} " in f"{line} " for line in lines), f"each time for {name}")


@contextlib.contextmanager
def kernel_log(story: Story) -> Iterator[None]:
    """Check what the kernel logs during the story: warnings and worse."""
    log = os.open("/dev/kmsg", os.O_RDONLY | os.O_NONBLOCK)
    os.lseek(log, 0, os.SEEK_END)
    yield
    story.step("The kernel log.")
    bad: list[str] = []
    known: list[str] = []
    with contextlib.suppress(BlockingIOError):
        while True:
            head, _, text = os.read(log, 8192).decode(errors="replace").partition(";")
            line = text.partition("\n")[0]
            if KNOWN_LOG.search(line):
                known.append(line)
            elif SLOW_LOG.search(line):
                story.say(f"(this machine is busy: {line})")
            elif int(head.partition(",")[0]) & 7 <= 4:
                bad.append(line)
    os.close(log)
    for line in (*known, *bad):
        story.say(line)
    story.check(not bad, f"no warning but the {len(known)} lines about taint that each patch brings")


def main() -> int:
    """Tell the story; return the exit status."""
    if os.environ.get("PYLIVEPATCH_LAB") != "1":
        print("This changes the running kernel: use `make demo`, which takes one in QEMU.")
        return 2
    began = time.monotonic()
    file = Path(os.environ["DEMO_PATCH"])
    story = Story()
    with kernel_log(story):
        with Core() as core:
            print(f"Linux {core.release}, {os.cpu_count()} CPUs, by {core.backend}")
            story.check(core.backend == "klpctl", "klpctl is loaded, and pylivepatch found it")
            install_hook(story)
            demo = Demo(story, core, file)
            try:
                demo.run()
            except LivepatchError as error:
                story.check(False, f"{type(error).__name__}: {error}")
            kicks = core.features.kicks
        check_hook(story, "fix_version")
    transitions = ", ".join(f"{seconds * 1000:.0f}" for seconds in demo.durations)
    print()
    for text in story.failed:
        print(f"did not hold: {text}")
    verdict = "FAILED" if story.failed else "ok"
    print(
        f"{verdict}: Linux {platform.release()}: {story.checks - len(story.failed)} of "
        f"{story.checks} checks held; transitions {transitions} ms ({kicks} early retries); "
        f"{demo.workload.reads} reads, {demo.workload.errors} errors; "
        f"{time.monotonic() - began:.0f} s"
    )
    return 1 if story.failed else 0


if __name__ == "__main__":
    sys.exit(main())
