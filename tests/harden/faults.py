# SPDX-License-Identifier: MIT
"""Each allocation fails once, by number, in a guest with a kernel that can inject faults.

faults.py

Everything that klpctl does for a caller is done with the first allocation failing, then with
the second one, and so on until none fails any more. Each time it must either succeed or be
refused with an error, klpctl must say what the core says, and the same must succeed right
afterwards. What klpctl allocates in its own work is made to fail in turn, too.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import sys
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "vm/guest"))
from rawdevice import CONFIRM, ENABLE, REVERT, WAIT, DeviceError, K, request
from rawnetlink import NLM_F_DUMP, Client, RefusedError, attribute, string
from stress import LIVEPATCH, KernelLog, compare, insmod, leaks, parameter, rmmod

FAILSLAB = Path("/sys/kernel/debug/failslab")
# That an allocation has failed is said by many; this is what must not be said.
REPORT = re.compile(
    r"BUG|KASAN|UBSAN|WARNING:|ODEBUG|INFO:|general protection|Oops|scheduling while|suspicious|refcount|lock|klpctl"
)
MOST = 3000
NAME = b"plp_cmdline"
FOREVER = K["KLPCTL_WAIT_FOREVER"]

Step = Callable[[], object]


class Faults:
    """The number of the allocation of this thread that fails next."""

    def __init__(self) -> None:
        self._file = os.open("/proc/thread-self/fail-nth", os.O_RDWR)

    def arm(self, number: int) -> None:
        """Let one fail; 0 for none."""
        os.pwrite(self._file, str(number).encode(), 0)

    def left(self) -> int:
        """What is left to count: 0 when it has failed."""
        return int(os.pread(self._file, 20, 0).split(b"\0")[0])


def number_of(call: Step) -> int:
    """The error number that a call ends with; 0 for none."""
    try:
        result = call()
    except (DeviceError, RefusedError) as error:
        return error.errno or 0 if isinstance(error, OSError) else error.number
    except OSError as error:
        return error.errno or 0
    return result if isinstance(result, int) and not isinstance(result, bool) and result > 0 else 0


def check(expected: int, what: str) -> None:
    """Insist."""
    if expected:
        sys.exit(f"{what}: {os.strerror(expected)}")


def sweep(faults: Faults, name: str, before: Step, call: Step, undo: Step) -> None:
    """Do something with each of its allocations failing."""
    refused: dict[str, int] = {}
    succeeded = 0
    for at in range(1, MOST):
        before()
        faults.arm(at)
        result = number_of(call)
        left = faults.left()
        faults.arm(0)
        if result:
            words = errno.errorcode.get(result, str(result))
            refused[words] = refused.get(words, 0) + 1
            check(number_of(call), f"{name} after a fault at {at}")
        else:
            succeeded += 1
        undo()
        if left:
            print(f"{name}: {at - 1} allocations, {refused}, {succeeded - 1} times done all the same", flush=True)
            return
    sys.exit(f"{name}: more than {MOST} allocations")


def nothing() -> None:
    """Nothing has to be done."""


def quiet(call: Step) -> None:
    """Do it, whatever comes of it."""
    with contextlib.suppress(OSError, RefusedError):
        call()


def reverted() -> None:
    """Bring the patch back to where it can be enabled."""
    device = os.open("/dev/klpctl", os.O_RDWR)
    quiet(lambda: request(device, REVERT, NAME))
    request(device, WAIT, NAME, timeout_ms=FOREVER)
    os.close(device)
    end = time.monotonic() + 60
    # The core lets go of the module a little later, and this kernel delays that on purpose.
    while Path("/sys/module/plp_cmdline/refcnt").read_text() != "0\n" and time.monotonic() < end:
        time.sleep(0.05)


def enabled(**fields: int) -> int:
    """Enable the patch, and wait."""
    device = os.open("/dev/klpctl", os.O_RDWR)
    try:
        request(device, ENABLE, NAME, **fields)
        return 0
    finally:
        os.close(device)


def settled() -> None:
    """Wait for the end of its transition."""
    device = os.open("/dev/klpctl", os.O_RDWR)
    request(device, WAIT, NAME, timeout_ms=FOREVER)
    os.close(device)


def gone(name: str) -> None:
    """Unload a module that may still be held for a moment."""
    end = time.monotonic() + 60
    with contextlib.suppress(OSError):
        (LIVEPATCH / name / "enabled").write_text("0")
    while rmmod(name) and Path("/sys/module", name).exists():
        if time.monotonic() > end:
            sys.exit(f"{name} cannot be unloaded")
        time.sleep(0.05)


def insert(name: str) -> int:
    """Load a module by hand: no process is started for it, whose allocations would count."""
    return insmod(name)


def questions(client: Client) -> dict[str, Step]:
    """What can be asked."""
    tasks = K["KLPCTL_CMD_TASK_GET"]
    get = K["KLPCTL_CMD_PATCH_GET"]
    return {
        "features": lambda: client.ask(K["KLPCTL_CMD_FEATURES_GET"]),
        "a patch": lambda: client.ask(get, string(K["KLPCTL_A_NAME"], "plp_hold")),
        "all patches": lambda: client.ask(get, b"", NLM_F_DUMP),
        "the tasks": lambda: client.ask(tasks, attribute(K["KLPCTL_A_OPTIONS"], b"\1\0\0\0"), NLM_F_DUMP),
    }


def own_work(log: KernelLog) -> None:
    """Let what klpctl allocates in its own work fail: events and patches seen first."""
    text = int(Path("/sys/module/klpctl/sections/.text").read_text(), 16)
    for name, value in (
        ("require-start", f"{text:#x}"), ("require-end", f"{text + 0x8000:#x}"), ("stacktrace-depth", "32"),
        ("probability", "50"), ("interval", "1"), ("times", "-1"), ("verbose", "0"), ("task-filter", "N"),
    ):  # fmt: skip
        (FAILSLAB / name).write_text(value)
    listener = Client()
    listener.subscribe()
    for _ in range(10):
        quiet(lambda: insmod("plp_foreign"))
        quiet(enabled)
        quiet(reverted)
        gone("plp_foreign")
    (FAILSLAB / "probability").write_text("0")
    listener.close()
    log.read()
    compare()
    print("own work: done", flush=True)


def main() -> int:
    """Sweep over everything."""
    (FAILSLAB / "ignore-gfp-wait").write_text("N")
    (FAILSLAB / "verbose").write_text("0")
    log = KernelLog()
    faults = Faults()
    sweep(faults, "load klpctl", nothing, lambda: insert("klpctl"), lambda: gone("klpctl"))
    check(insert("klpctl"), "klpctl")
    device = [0]

    def opened() -> int:
        device[0] = os.open("/dev/klpctl", os.O_RDWR)
        return 0

    sweep(faults, "open the device", nothing, opened, lambda: os.close(device[0]))
    sweep(faults, "register", nothing, lambda: insert("plp_cmdline"), lambda: gone("plp_cmdline"))
    sweep(faults, "register with states", nothing, lambda: insert("plp_callback"), lambda: gone("plp_callback"))
    check(insert("plp_cmdline"), "plp_cmdline")
    sweep(faults, "enable", nothing, enabled, reverted)
    window = {"timeout_ms": 60_000, "flags": K["KLPCTL_ENABLE_DEADLINE"]}
    sweep(faults, "enable with a window", nothing, lambda: enabled(**window), reverted)

    def confirm() -> int:
        request(device[0], CONFIRM, NAME)
        return 0

    def awaited() -> None:
        enabled(timeout_ms=60_000)
        settled()

    opened()
    sweep(faults, "confirm", awaited, confirm, reverted)

    def revert() -> int:
        request(device[0], REVERT, NAME)
        return 0

    sweep(faults, "revert", lambda: (enabled(), settled()), revert, reverted)
    sweep(faults, "a standalone patch", nothing, lambda: insert("plp_foreign"), lambda: gone("plp_foreign"))
    compare()

    check(insert("plp_target"), "plp_target")
    check(insert("plp_hold"), "plp_hold")
    parameter("plp_target", "hold", "Y")
    child = os.fork()
    if child == 0:
        quiet(lambda: Path("/proc/plp_target").write_text("x"))
        os._exit(0)
    while Path("/sys/module/plp_target/parameters/sleepers").read_text() != "1\n":
        time.sleep(0.05)
    request(device[0], ENABLE, b"plp_hold")
    client = Client()
    for name, ask in questions(client).items():

        def fresh(ask: Step = ask) -> object:
            # A fault may have taken the answer away: it is not waited for.
            client.socket.settimeout(1)
            return ask()

        sweep(faults, f"ask for {name}", nothing, fresh, nothing)
    client.close()
    parameter("plp_target", "hold", "N")
    os.waitpid(child, 0)
    own_work(log)
    os.close(device[0])
    for name in ("plp_hold", "plp_cmdline", "plp_target", "klpctl"):
        gone(name)
    found = leaks()
    log.read()
    bad = [line for line in log.bad if REPORT.search(line)]
    print(*bad, found, sep="\n")
    print(f"{len(bad)} reports in the kernel log, {found.count('unreferenced object')} leaks")
    return int(bool(bad or found))


if __name__ == "__main__":
    sys.exit(main())
