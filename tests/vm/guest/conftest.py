# SPDX-License-Identifier: MIT
"""What the tests inside a guest share: the payloads, and a kernel left as it was found."""

from __future__ import annotations

import contextlib
import functools
import os
import re
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pylivepatch import Core, LivepatchError, Patch

MODULES = Path(os.environ["PYLIVEPATCH_LAB_MODULES"])
WARNING = 4
HARMLESS = re.compile(
    r"loading out-of-tree module taints kernel|module verification failed|TAINT_LIVEPATCH"
    r"|virtio_fs_setup_dax|Unknown kernel command line|hrtimer: interrupt took"
    r"|clocksource: |systemd-udevd|workqueue: .* hogged CPU|sched: (RT|DL) .*(throttling activated|lagged too much)"
)


class KernelLog:
    """The kernel log from a test's start on."""

    def __init__(self) -> None:
        self._descriptor = os.open("/dev/kmsg", os.O_RDONLY | os.O_NONBLOCK)
        os.lseek(self._descriptor, 0, os.SEEK_END)
        self._records: list[tuple[int, str]] = []
        self._expected: list[str] = []

    def expect(self, pattern: str) -> None:
        """Say that the test makes the kernel complain in these words, and that it must."""
        self._expected.append(pattern)

    def records(self) -> list[tuple[int, str]]:
        """Level and text of all records since the start."""
        while True:
            try:
                head, _, text = os.read(self._descriptor, 8192).decode(errors="replace").partition(";")
            except BlockingIOError:
                return self._records
            except BrokenPipeError:
                continue
            self._records.append((int(head.split(",")[0]) & 7, text.split("\n")[0]))

    def lines(self) -> list[str]:
        """All lines since the start."""
        return [text for _, text in self.records()]

    def check(self) -> None:
        """Fail on any warning that was not expected, and on an expected one that did not come."""
        records = self.records()
        os.close(self._descriptor)
        missing = [pattern for pattern in self._expected if not any(re.search(pattern, text) for _, text in records)]
        assert not missing, f"not in the kernel log: {missing}"
        bad = [
            text
            for level, text in records
            if level <= WARNING
            and not HARMLESS.search(text)
            and not any(re.search(pattern, text) for pattern in self._expected)
        ]
        assert not bad, "\n".join(["the kernel log is not clean:", *bad])


def loaded() -> set[str]:
    """Names of the test modules that are loaded."""
    return {path.name for path in Path("/sys/module").glob("plp_*")}


def clean_up() -> None:
    """Revert and unload everything; targets of patches last."""
    parameter("plp_target", "hold", "N")
    parameter("plp_hold", "hold", "N")
    with Core() as core:
        for patch in reversed(core.patches()):
            with contextlib.suppress(LivepatchError):
                if transition := patch.transition:
                    transition.wait()
            with contextlib.suppress(LivepatchError):
                patch.revert(timeout=60)
            with contextlib.suppress(LivepatchError):
                patch.unload()
    for name in sorted(loaded(), key=lambda name: name == "plp_target"):
        subprocess.run(["rmmod", name], check=False, capture_output=True)


def window(patch: Patch, least: float = 2.0) -> float:
    """Seconds in which an enable ends for certain, as fast as the machine is now; the patch is disabled."""
    start = time.monotonic()
    patch.enable(None)
    patch.revert(None)
    return max(least, min(5 * (time.monotonic() - start), 40))


def parameter(module: str, name: str, value: str | None = None) -> str:
    """Read, or write, a parameter of a module; nothing when it is not loaded."""
    path = Path("/sys/module", module, "parameters", name)
    if not path.exists():
        return ""
    if value is not None:
        path.write_text(value)
    return path.read_text().strip()


def until(condition: Callable[[], object], seconds: float = 180.0) -> None:
    """Wait for something that must come."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not come"
        time.sleep(0.01)


@functools.cache
def listens(file: Path) -> bool:
    """Tell whether tests in a file listen to udev."""
    return "udev" in file.read_text()


@pytest.fixture(autouse=True)
def log(request: pytest.FixtureRequest) -> Iterator[KernelLog]:
    """The kernel log; after each test no patch and no module is left, and the log is clean."""
    if listens(request.path):
        # Events of the tests before are not this one's.
        subprocess.run(["udevadm", "settle", "--timeout=120"], check=False)
    kernel_log = KernelLog()
    yield kernel_log
    left = loaded()
    if left:
        clean_up()
        left = loaded()
    assert not left, f"still loaded: {left}"
    assert not list(Path("/sys/kernel/livepatch").iterdir())
    kernel_log.check()


@pytest.fixture
def core() -> Iterator[Core]:
    """The livepatch core through klpctl."""
    with Core("klpctl") as opened:
        yield opened


@pytest.fixture
def payload() -> Callable[[str], Path]:
    """The file of a test module."""
    return lambda name: MODULES / f"{name}.ko"


@pytest.fixture
def target() -> Iterator[str]:
    """The module to be patched, loaded."""
    subprocess.run(["insmod", MODULES / "plp_target.ko"], check=True)
    yield "plp_target"


class Sleeper:
    """A process inside the function that sleeps, until it is woken."""

    def __init__(self, module: str = "plp_target", *, interruptible: bool = False) -> None:
        parameter("plp_target", "interruptible", "NY"[interruptible])
        parameter("plp_target", "hold", "Y")
        parameter("plp_hold", "hold", "Y")
        before = int(parameter(module, "sleepers"))
        self.process = subprocess.Popen(["sh", "-c", "exec echo x > /proc/plp_target"])
        until(lambda: int(parameter(module, "sleepers")) == before + 1)

    def wake(self) -> None:
        """Let it go on, and end."""
        parameter("plp_target", "hold", "N")
        parameter("plp_hold", "hold", "N")
        self.process.wait(120)


@pytest.fixture
def sleeper(target: str) -> Iterator[Callable[..., Sleeper]]:
    """Start processes inside the function that sleeps; they are woken at the end."""
    sleepers: list[Sleeper] = []

    def start(module: str = "plp_target", *, interruptible: bool = False) -> Sleeper:
        sleepers.append(Sleeper(module, interruptible=interruptible))
        return sleepers[-1]

    yield start
    for each in sleepers:
        each.wake()


class Workload:
    """A thread that reads /proc/cmdline in a loop, as a program would."""

    def __init__(self) -> None:
        self.reads = 0
        self.errors: list[Exception] = []
        self.seen: list[str] = []
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        path = Path("/proc/cmdline")
        while not self._stop.is_set():
            try:
                text = path.read_text().strip()
            except OSError as error:
                self.errors.append(error)
                continue
            if not self.seen or self.seen[-1] != text:
                self.seen.append(text)
            self.reads += 1

    def sees(self, text: str) -> None:
        """Wait until it sees that."""
        until(lambda: self.seen and text in self.seen[-1])

    def stop(self) -> None:
        """End it."""
        self._stop.set()
        self._thread.join()


@pytest.fixture
def workload() -> Iterator[Workload]:
    """A program that calls the function that is patched."""
    load = Workload()
    yield load
    load.stop()


def cmdline() -> str:
    """What /proc/cmdline says."""
    return Path("/proc/cmdline").read_text().strip()
