# SPDX-License-Identifier: MIT
"""Everybody at once, in a guest: all that can happen to patches happens, by chance and together.

stress.py SECONDS [SEED] [--without ACTOR]...

Afterwards klpctl must say what the core says, everything must be removable, nothing may be
left in the kernel's memory, and its log may hold nothing but what the livepatch core says of
patches that it refuses. The seed decides what is tried; what comes of it depends on the machine.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import random
import re
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "vm/guest"))
from rawdevice import CONFIRM, ENABLE, REVERT, WAIT, DeviceError, K, request
from rawnetlink import NLM_F_DUMP, Client, RefusedError, attribute, string

MODULES = Path(os.environ["PYLIVEPATCH_LAB_MODULES"])
LIVEPATCH = Path("/sys/kernel/livepatch")
REGISTERED = ("plp_cmdline", "plp_hold", "plp_callback", "plp_module", "plp_replace", "plp_states", "plp_prefail")
STANDALONE = ("plp_foreign", "plp_foreign_hold")
STATES = {
    K[f"KLPCTL_STATE_{name}"]: name
    for name in ("REGISTERED", "ENABLING", "ENABLED", "DISABLING", "DISABLED", "REPLACED")
}
# What the core, and the payloads' own callbacks, say of what they refuse; and what the lab's kernels always say.
EXPECTED = re.compile(
    r"livepatch: |loading out-of-tree module|module verification failed|TAINT_LIVEPATCH|virtio_fs_setup_dax"
    r"|Unknown kernel command line|hrtimer: interrupt took|clocksource: |workqueue: .* hogged CPU|smpboot"
    r"|^kmemleak: [A-Z]|systemd-udevd\[|: tainting kernel|netlink: \d+ bytes leftover"
)
FINIT_MODULE, DELETE_MODULE = 313, 176
libc = ctypes.CDLL(None, use_errno=True)


def insmod(name: str) -> int:
    """Load a module; 0 or the error number."""
    with open(MODULES / f"{name}.ko", "rb") as file:
        return ctypes.get_errno() if libc.syscall(FINIT_MODULE, file.fileno(), b"", 0) else 0


def rmmod(name: str) -> int:
    """Unload a module; 0 or the error number."""
    return ctypes.get_errno() if libc.syscall(DELETE_MODULE, name.encode(), os.O_NONBLOCK) else 0


def parameter(module: str, name: str, value: str) -> None:
    """Set a parameter, if the module is there."""
    with contextlib.suppress(OSError):
        Path("/sys/module", module, "parameters", name).write_text(value)


class Actor:
    """One of those who do something; it counts what came of it."""

    def __init__(self, rng: random.Random) -> None:
        self.rng = rng
        self.count: Counter[str] = Counter()

    def pause(self, longest: float = 0.2) -> None:
        """Wait for some time."""
        time.sleep(self.rng.random() * longest)

    def loaded(self, names: tuple[str, ...]) -> str:
        """One of the patches, of those that are loaded if there are any."""
        there = [name for name in names if Path("/sys/module", name).exists()]
        return self.rng.choice(there if there and self.rng.random() < 0.95 else names)

    def ask(self, device: int, what: str, command: int, name: str, **fields: int) -> bool:
        """Send a request."""
        try:
            request(device, command, name.encode(), **fields)
        except DeviceError as error:
            self.count[f"{what}: {os.strerror(error.errno or 0)}"] += 1
            return False
        self.count[what] += 1
        return True


class Enabler(Actor):
    """Enables and reverts, with windows and deadlines, and sometimes confirms."""

    def step(self) -> None:
        """Once."""
        name = self.loaded(REGISTERED + STANDALONE)
        device = os.open("/dev/klpctl", os.O_RDWR)
        window = self.rng.choice([0, 0, 1, 20, 300, 3000, K["KLPCTL_WAIT_FOREVER"]])
        flags = self.rng.randrange(4) if window else 0
        if self.ask(device, "enable", ENABLE, name, flags=flags, timeout_ms=window):
            self.ask(device, "wait", WAIT, name, timeout_ms=self.rng.randrange(500))
            if self.rng.random() < 0.5:
                self.ask(device, "confirm", CONFIRM, name)
        if self.rng.random() < 0.6:
            os.close(device)
            device = os.open("/dev/klpctl", os.O_RDWR)
        self.pause(0.1)
        self.ask(device, "revert", REVERT, name)
        os.close(device)


class Killed(Actor):
    """Owners that are killed."""

    def step(self) -> None:
        """Once."""
        child = os.fork()
        if child == 0:
            with contextlib.suppress(Exception):
                device = os.open("/dev/klpctl", os.O_RDWR)
                name = self.loaded(REGISTERED).encode()
                request(device, ENABLE, name, flags=K["KLPCTL_ENABLE_OWNED"], timeout_ms=60_000)
                request(device, WAIT, name, timeout_ms=60_000)
            os._exit(0)
        self.pause(0.3)
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        self.count["killed"] += 1


class Dumper(Actor):
    """Asks for everything."""

    def step(self) -> None:
        """Once."""
        try:
            client = Client()
        except (RefusedError, OSError):
            self.count["no family"] += 1
            self.pause()
            return
        for command, flags in ((K["KLPCTL_CMD_PATCH_GET"], NLM_F_DUMP), (K["KLPCTL_CMD_TASK_GET"], NLM_F_DUMP)):
            content = b""
            if command == K["KLPCTL_CMD_TASK_GET"] and self.rng.random() < 0.7:
                content = attribute(K["KLPCTL_A_OPTIONS"], b"\1\0\0\0")
            with contextlib.suppress(RefusedError, OSError):
                client.ask(command, content, flags)
                self.count["dumps"] += 1
        with contextlib.suppress(RefusedError, OSError):
            client.ask(K["KLPCTL_CMD_PATCH_GET"], string(K["KLPCTL_A_NAME"], self.rng.choice(REGISTERED)))
            client.ask(K["KLPCTL_CMD_FEATURES_GET"])
            self.count["gets"] += 1
        client.close()


class Nobody(Dumper):
    """The same as an ordinary user, who is refused the tasks."""

    def __init__(self, rng: random.Random) -> None:
        super().__init__(rng)
        os.setgroups([])
        os.setresgid(1000, 1000, 1000)
        os.setresuid(1000, 1000, 1000)


class Listener(Actor):
    """Hears events, whose numbers never go back."""

    def step(self) -> None:
        """Once: until klpctl goes, or nothing is heard for a while."""
        try:
            client = Client()
            client.subscribe()
        except (RefusedError, OSError):
            self.pause()
            return
        client.socket.settimeout(2)
        newest = 0
        try:
            while True:
                for _, _, content in client.receive():
                    event = client.message(content)
                    number = event.number(K["KLPCTL_A_SEQ"])
                    progress = event.number(K["KLPCTL_A_ACTION"]) == K["KLPCTL_ACTION_PROGRESS"]
                    assert number > newest or (progress and number == newest), (number, newest)
                    self.count["gaps"] += newest != 0 and number > newest + 1
                    self.count["events"] += 1
                    newest = number
        except (TimeoutError, OSError):
            self.count["silences"] += 1
        finally:
            client.close()


class Loader(Actor):
    """Loads and unloads patches."""

    def step(self) -> None:
        """Once."""
        name = self.rng.choice(REGISTERED + STANDALONE)
        error = insmod(name) if self.rng.random() < 0.8 else rmmod(name)
        self.count["done" if not error else os.strerror(error)] += 1
        self.pause(0.1)


class Target(Actor):
    """Loads and unloads what patches change, and lets those who sleep there wait or go on."""

    def step(self) -> None:
        """Once."""
        self.count["loaded"] += insmod("plp_target") == 0
        parameter("plp_target", "interruptible", self.rng.choice("YN"))
        for module in ("plp_target", "plp_hold"):
            parameter(module, "hold", self.rng.choice("YN"))
        self.pause(0.5)
        for module in ("plp_target", "plp_hold"):
            parameter(module, "hold", "N")
        self.pause()
        self.count["unloaded"] += rmmod("plp_target") == 0


class Sleeper(Actor):
    """Sleeps in a function that is changed."""

    def step(self) -> None:
        """Once."""
        child = os.fork()
        if child == 0:
            with contextlib.suppress(OSError):
                Path("/proc/plp_target").write_text("x")
            os._exit(0)
        os.waitpid(child, 0)
        self.count["slept"] += 1
        self.pause(0.1)


class Sysfs(Actor):
    """Writes to the core's own files."""

    def step(self) -> None:
        """Once."""
        for path in LIVEPATCH.glob("*/enabled"):
            try:
                path.write_text(self.rng.choice("001"))
                self.count["written"] += 1
            except OSError as error:
                self.count[os.strerror(error.errno or 0)] += 1
        self.pause()


class Callbacks(Actor):
    """Lets callbacks wait, and fail."""

    def step(self) -> None:
        """Once."""
        parameter("plp_callback", "fail", self.rng.choice(["0", "0", "-5", "7"]))
        parameter("plp_prefail", "fail", self.rng.choice(["0", "-12", "1"]))
        parameter("plp_callback", "hold", self.rng.choice("001234"))
        self.pause(0.5)
        parameter("plp_callback", "hold", "0")
        self.pause(0.5)
        self.count["times"] += 1


class Kprobes(Actor):
    """Disarms all kprobes for a while."""

    def step(self) -> None:
        """Once."""
        switch = Path("/sys/kernel/debug/kprobes/enabled")
        switch.write_text("0")
        self.pause(0.5)
        switch.write_text("1")
        self.pause(2)
        self.count["times"] += 1


class Hotplug(Actor):
    """Takes a CPU away, and brings it back."""

    def step(self) -> None:
        """Once."""
        online = Path("/sys/devices/system/cpu/cpu1/online")
        if not online.exists():
            self.pause(5)
            return
        for value in "01":
            with contextlib.suppress(OSError):
                online.write_text(value)
            self.pause(1)
        self.count["times"] += 1


class Forks(Actor):
    """Many short lives."""

    def step(self) -> None:
        """Once."""
        children = []
        for _ in range(20):
            child = os.fork()
            if child == 0:
                os.sched_yield()
                os._exit(0)
            children.append(child)
        for child in children:
            os.waitpid(child, 0)
        self.count["forks"] += 20
        self.pause(0.5)


class Signals(Actor):
    """Enables under a hail of signals; never is a signal told as a refusal."""

    def step(self) -> None:
        """Once."""
        signal.signal(signal.SIGALRM, lambda *_: None)
        signal.setitimer(signal.ITIMER_REAL, 0.02, 0.02)
        device = os.open("/dev/klpctl", os.O_RDWR)
        name = self.loaded(REGISTERED)
        for what, command in (("enable", ENABLE), ("revert", REVERT)):
            while True:
                try:
                    request(device, command, name.encode())
                except DeviceError as error:
                    if error.errno == errno.EINTR:
                        self.count["interrupted"] += 1
                        continue
                    if error.errno == errno.EAGAIN:
                        sys.exit(f"{what}: a signal is told as a refusal")
                break
        signal.setitimer(signal.ITIMER_REAL, 0)
        os.close(device)


class Reinsert(Actor):
    """Removes klpctl whenever nobody uses it, and inserts it again."""

    def step(self) -> None:
        """Once."""
        self.pause(8)
        for name in REGISTERED:
            rmmod(name)
        if rmmod("klpctl") == 0:
            self.count["removed"] += 1
            self.pause(0.2)
            assert insmod_klpctl() == 0
        else:
            self.count["in use"] += 1


ACTORS: tuple[tuple[type[Actor], int], ...] = (
    (Enabler, 3), (Killed, 1), (Dumper, 2), (Nobody, 1), (Listener, 2), (Loader, 3), (Target, 1), (Sleeper, 3),
    (Sysfs, 1), (Callbacks, 1), (Kprobes, 1), (Hotplug, 1), (Forks, 1), (Signals, 1), (Reinsert, 1),
)  # fmt: skip


def insmod_klpctl() -> int:
    """Load klpctl."""
    return subprocess.run(["modprobe", "klpctl"], check=False).returncode


def act(kind: type[Actor], seed: int, end: float, out: int) -> None:
    """One actor's life, in a process of its own."""
    status = 0
    try:
        actor = kind(random.Random(seed))
        while time.monotonic() < end:
            try:
                actor.step()
            except FileNotFoundError:
                actor.count["no klpctl"] += 1
                actor.pause()
            except OSError as fault:
                actor.count[f"! {fault.strerror}"] += 1
                actor.pause()
        text = ", ".join(f"{number} {what}" for what, number in sorted(actor.count.items()))
        os.write(out, f"{kind.__name__}: {text}\n".encode())
    except BaseException:
        import traceback

        os.write(out, f"{kind.__name__} failed\n{traceback.format_exc()}\n".encode())
        status = 1
    os._exit(status)


def core_says(what: str) -> dict[str, str]:
    """What the core's files of that name say, by patch; a patch may go while it is asked for."""
    found = {}
    for path in LIVEPATCH.iterdir():
        with contextlib.suppress(OSError):
            found[path.name] = (path / what).read_text().strip()
    return found


def settle() -> None:
    """Let everything end that can."""
    end = time.monotonic() + 300
    while time.monotonic() < end:
        for module in ("plp_target", "plp_hold"):
            parameter(module, "hold", "N")
        parameter("plp_callback", "hold", "0")
        if set(core_says("transition").values()) <= {"0"}:
            return
        time.sleep(0.2)
    sys.exit("a transition does not end")


def compare() -> None:
    """klpctl says what the core says."""
    client = Client()
    for _ in range(50):
        said = {
            each.text(K["KLPCTL_A_NAME"]): STATES[each.number(K["KLPCTL_A_STATE"])]
            for each in client.ask(K["KLPCTL_CMD_PATCH_GET"], b"", NLM_F_DUMP)
        }
        enabled = {name for name, value in core_says("enabled").items() if value == "1"}
        if {name for name, state in said.items() if state == "ENABLED"} == enabled and not (
            {"ENABLING", "DISABLING"} & set(said.values())
        ):
            print(f"klpctl and the core agree: {said}")
            client.close()
            return
        time.sleep(0.2)
    sys.exit(f"klpctl says {said}, and the core has enabled {enabled}")


def clean_up() -> None:
    """Remove everything."""
    end = time.monotonic() + 300
    while (left := {path.name for path in Path("/sys/module").glob("plp_*")}) and time.monotonic() < end:
        for path in LIVEPATCH.glob("*/enabled"):
            with contextlib.suppress(OSError):
                path.write_text("0")
        for name in left:
            rmmod(name)
        time.sleep(0.1)
    if left:
        sys.exit(f"still loaded: {left}")
    while rmmod("klpctl"):
        if time.monotonic() > end:
            sys.exit("klpctl cannot be removed")
        time.sleep(0.1)


class KernelLog:
    """What the kernel warns of, read as it comes: its own buffer is small."""

    def __init__(self) -> None:
        self._descriptor = os.open("/dev/kmsg", os.O_RDONLY | os.O_NONBLOCK)
        os.lseek(self._descriptor, 0, os.SEEK_END)
        self.bad: list[str] = []

    def read(self) -> None:
        """Read what there is."""
        while True:
            try:
                head, _, text = os.read(self._descriptor, 8192).decode(errors="replace").partition(";")
            except BlockingIOError:
                return
            except BrokenPipeError:
                self.bad.append("(some lines were lost)")
                continue
            text = text.split("\n")[0]
            if (int(head.split(",")[0]) & 7) <= 4 and not EXPECTED.search(text):
                self.bad.append(text)


def leaks() -> str:
    """What kmemleak has found, where it is built in."""
    path = Path("/sys/kernel/debug/kmemleak")
    if not path.exists():
        return ""
    for _ in range(3):
        path.write_text("scan")
        time.sleep(6)
    return path.read_text()


def main() -> int:
    """Run the actors, then look at what they have left."""
    arguments = sys.argv[1:]
    without = {arguments[at + 1] for at, word in enumerate(arguments) if word == "--without"}
    numbers = [word for word in arguments if word.isdigit()]
    seconds, seed = int(numbers[0]), int(numbers[1]) if len(numbers) > 1 else 1
    if not Path("/sys/kernel/debug/kprobes").exists():
        subprocess.run(["mount", "-t", "debugfs", "none", "/sys/kernel/debug"], check=True)
    log = KernelLog()
    assert insmod_klpctl() == 0
    end = time.monotonic() + seconds
    children = {}
    for kind, copies in ACTORS:
        if kind.__name__ in without:
            continue
        for copy in range(copies):
            child = os.fork()
            if child == 0:
                act(kind, seed * 1000 + len(children), end, 1)
            children[child] = f"{kind.__name__} {copy}"
    failed = []
    late = time.monotonic() + seconds + 120
    while children and time.monotonic() < late:
        # Those who sleep, or wait for a callback, have to be let go.
        if time.monotonic() > end:
            for module in ("plp_target", "plp_hold"):
                parameter(module, "hold", "N")
            parameter("plp_callback", "hold", "0")
        log.read()
        child, status = os.waitpid(-1, os.WNOHANG)
        if child:
            name = children.pop(child)
            failed += [name] if status else []
        else:
            time.sleep(0.2)
    if children:
        failed += [f"{name} does not end" for name in children.values()]
    Path("/sys/kernel/debug/kprobes/enabled").write_text("1")
    with contextlib.suppress(OSError):
        Path("/sys/devices/system/cpu/cpu1/online").write_text("1")
    if not Path("/sys/module/klpctl").exists():
        insmod_klpctl()
    settle()
    compare()
    clean_up()
    found = leaks()
    log.read()
    bad = log.bad
    print(*failed, *bad, found, sep="\n")
    print(f"{seconds} s, seed {seed}: {len(failed)} actors failed, {len(bad)} lines in the kernel log, "
          f"{found.count('unreferenced object')} leaks")  # fmt: skip
    return int(bool(failed or bad or found))


socket.setdefaulttimeout(30)
if __name__ == "__main__":
    sys.exit(main())
