# SPDX-License-Identifier: MIT
"""One guest: QEMU's command line, its life, and the three ways out of it.

The command's output and its exit status come over ports of their own (virtio-serial), never over the
console. The guest ends each output with a word that only this run knows, so the host has everything
when it has both words and the status, and a guest that vanishes before that is lost, whatever it said.
"""

from __future__ import annotations

import contextlib
import os
import re
import selectors
import shlex
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from pylivepatch.lab import accel as acceleration
from pylivepatch.lab import tools
from pylivepatch.lab.errors import GuestLostError, LabError
from pylivepatch.lab.jail import ENVIRONMENT, Jail
from pylivepatch.lab.share import Server

PORTS = ("control", "stdout", "stderr")

CONSOLE = "console"

CONSOLE_KEPT = 1 << 20
"""Bytes of the console's end that are kept: a guest may write without end."""

LINE = 4096
"""Bytes that a line of the control port may have."""

BOOT_LIMIT = 180.0
"""Seconds until the command starts: about 4 on an idle machine, ten times that on a busy one."""

PARAMETERS = (
    "console=ttyS0 quiet panic=-1 oops=panic mitigations=off no_timer_check tsc=reliable cryptomgr.notests "
    "random.trust_cpu=on audit=0 apparmor=0 rcupdate.rcu_expedited=1"
)
"""The guest kernel's command line: quick to boot, and every oops ends the guest."""

SIGNALLED = 128
"""What is added to the number of a signal that killed QEMU."""

_ESCAPES = re.compile(rb"\x1b(?:c|\[[0-9;?]*[A-Za-z])")

Sink = Callable[[bytes], None]


@dataclass(slots=True)
class Stream:
    """One output of the command, up to the word that marks its end."""

    sink: Sink
    mark: bytes
    ended: bool = False
    _held: bytes = b""

    def feed(self, data: bytes) -> None:
        """Pass *data* on, except what may be the start of the mark."""
        if self.ended:
            return
        data = self._held + data
        at = data.find(self.mark)
        if at >= 0:
            self.ended, self._held = True, b""
            ready = data[:at]
        else:
            keep = next((n for n in range(min(len(self.mark) - 1, len(data)), 0, -1)
                         if data.endswith(self.mark[:n])), 0)
            ready, self._held = data[: len(data) - keep], data[len(data) - keep :]
        if ready:
            self.sink(ready)

    def flush(self) -> None:
        """Pass on what was held back: no mark will come any more."""
        if self._held:
            held, self._held = self._held, b""
            self.sink(held)


@dataclass(slots=True)
class Control:
    """What the guest says of the command: lines, "ready" when it starts and "exit STATUS" at its end.

    Attributes:
        ready: Whether the command has started.
        status: Its exit status; None while it runs.
    """

    lost: Callable[[str], GuestLostError]
    ready: bool = False
    status: int | None = None
    _rest: bytes = b""

    def feed(self, data: bytes) -> None:
        """Read *data*.

        Raises:
            GuestLostError: The guest says something else: nothing that it says can be believed.
        """
        *lines, self._rest = (self._rest + data).split(b"\n")
        for line in lines:
            ended = re.fullmatch(rb"exit (\d{1,3})", line)
            if ended and int(ended[1]) < 256:
                self.status = int(ended[1])
            elif line == b"ready":
                self.ready = True
            else:
                raise self.lost(f"it said {_printable(line[:60].decode(errors='replace'))!r} where its status belongs")
        if len(self._rest) > LINE:
            raise self.lost("it said much where its status belongs")


def _printable(text: str) -> str:
    return "".join(c if c.isprintable() or c == "\t" else "\N{REPLACEMENT CHARACTER}" for c in text)


@dataclass(frozen=True, slots=True)
class Machine:
    """What the guest is made of.

    Attributes:
        kernel: vmlinux (quick) or vmlinuz (with KASLR).
        initramfs: What it starts with.
        disk: Root file system; the guest's changes to it are forgotten.
        cpus: Number of CPUs.
        memory: In bytes.
        accel: "kvm", or "tcg," and how its CPUs are emulated.
        parameters: More of the kernel's command line.
    """

    kernel: Path
    initramfs: Path
    disk: Path
    cpus: int
    memory: int
    accel: str
    parameters: str = ""


def command_line(machine: Machine, tags: Sequence[tuple[str, str]], ports: Sequence[int]) -> list[str]:
    """Return QEMU's command line.

    Args:
        machine: What the guest is made of.
        tags: For each shared directory its tag and its virtiofsd's socket.
        ports: Descriptors of the sockets for `PORTS`, and for the console.
    """
    disk = str(machine.disk).replace(",", ",,")
    argv = [
        tools.find("qemu-system-x86_64"),
        "-sandbox", "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny",
        "-name", "pylivepatch-lab", *acceleration.machine(machine.accel),
        "-M", "pc,hpet=off,vmport=off,usb=off,graphics=off,memory-backend=ram",
        "-object", f"memory-backend-memfd,id=ram,size={machine.memory},share=on",
        "-m", f"{machine.memory // 1024}k", "-smp", str(machine.cpus),
        "-kernel", str(machine.kernel), "-initrd", str(machine.initramfs),
        "-append", f"{PARAMETERS} {machine.parameters}".strip(),
        "-serial", "chardev:console", "-nic", "none", "-device", "virtio-serial-pci",
        "-drive", f"file={disk},format=raw,if=none,id=root,snapshot=on", "-device", "virtio-blk-pci,drive=root",
    ]  # fmt: skip
    for name, descriptor in zip((*PORTS, CONSOLE), ports, strict=True):
        argv += ["-chardev", f"socket,id={name},fd={descriptor}"]
    for name in PORTS:
        argv += ["-device", f"virtserialport,chardev={name},name=lab.{name}"]
    for number, (tag, path) in enumerate(tags):
        argv += ["-chardev", f"socket,id=fs{number},path={path}",
                 "-device", f"vhost-user-fs-pci,chardev=fs{number},tag={tag},queue-size=512"]  # fmt: skip
    return argv


@dataclass(slots=True)
class Guest:
    """A guest from its start to its end; use it as a context manager.

    Attributes:
        machine: What it is made of.
        servers: The running servers of its shared directories, by tag.
        folder: The run's directory: sockets, and QEMU's own words.
        console: The end of what the guest's console said, as it came.
    """

    machine: Machine
    servers: Sequence[tuple[str, Server]]
    folder: Path
    console: bytearray = field(default_factory=bytearray)
    _process: subprocess.Popen[bytes] = field(init=False)
    _sockets: dict[str, socket.socket] = field(init=False, default_factory=dict)

    def __enter__(self) -> Guest:
        pairs = {name: socket.socketpair() for name in (*PORTS, CONSOLE)}
        self._sockets = {name: ours for name, (ours, _) in pairs.items()}
        theirs = [pair[1] for pair in pairs.values()]
        tags = [(tag, server.socket) for tag, server in self.servers]
        argv = command_line(self.machine, tags, [end.fileno() for end in theirs])
        (self.folder / "command").write_text(shlex.join(argv) + "\n")
        jail = Jail(read=[self.machine.kernel, self.machine.disk], write=[self.folder], devices=[Path("/dev/kvm")])
        with open(self.folder / "qemu.log", "wb") as log:
            self._process = subprocess.Popen(
                jail.argv(argv, self.folder), stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                pass_fds=[end.fileno() for end in theirs], start_new_session=True,
                env={**ENVIRONMENT, "TMPDIR": str(self.folder)})  # fmt: skip
        for end in theirs:
            end.close()
        return self

    def __exit__(self, *exc: object) -> None:
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait()
        for ours in self._sockets.values():
            ours.close()

    def words(self, lines: int = 60) -> str:
        """Return the end of what the guest's console and QEMU itself have said, without what a terminal obeys."""
        said = []
        for data in ((self.folder / "qemu.log").read_bytes()[-CONSOLE_KEPT:], bytes(self.console)):
            text = _ESCAPES.sub(b"", data).decode(errors="replace")
            said += [_printable(line) for line in re.split(r"[\r\n]+", text) if line.strip()][-lines:]
        return "\n".join(said)

    def _lost(self, reason: str) -> GuestLostError:
        return GuestLostError(reason, self.words())

    def _events(self) -> Iterator[tuple[str, bytes]]:
        """Yield (port, data) as it comes, (port, b"") at its end, and ("", b"") at least once a second."""
        with selectors.DefaultSelector() as selector:
            for name, ours in self._sockets.items():
                selector.register(ours, selectors.EVENT_READ, name)
            while selector.get_map():
                ready = selector.select(0.5)
                for key, _ in ready:
                    try:
                        data = os.read(key.fd, 1 << 16)
                    except ConnectionResetError:
                        data = b""
                    if not data:
                        selector.unregister(key.fileobj)
                    yield str(key.data), data
                yield "", b""

    def follow(self, stdout: Sink, stderr: Sink, nonce: str, timeout: float) -> int:
        """Pass the command's output on until it ends, and return its exit status.

        Args:
            stdout: Called with each piece of the command's standard output.
            stderr: Called with each piece of its standard error.
            nonce: The word that ends each output.
            timeout: Seconds that the command may take, from its start.

        Raises:
            GuestLostError: The guest died, did not boot, or did not end in time; it is stopped then.
        """
        streams = {name: Stream(sink, nonce.encode()) for name, sink in (("stdout", stdout), ("stderr", stderr))}
        control = Control(self._lost)
        status: int | None = None
        started = False
        boot_deadline = deadline = time.monotonic() + BOOT_LIMIT
        for port, data in self._events():
            if port in streams and data:
                streams[port].feed(data)
            elif port == CONSOLE:
                self._hear(data)
            elif port == "control":
                control.feed(data)
                status = control.status
                if control.ready and not started:
                    started = True
                    deadline = time.monotonic() + timeout
            if status is not None and all(stream.ended for stream in streams.values()):
                self._drain()
                return status
            if not port:
                self._check_servers()
            if not started and time.monotonic() > boot_deadline:
                raise self._lost(f"it did not boot within {BOOT_LIMIT:.0f} s")
            if started and time.monotonic() > deadline:
                for stream in streams.values():
                    stream.flush()
                self._drain()
                raise self._lost(f"the command did not end within {timeout:g} s; the guest was stopped")
        for stream in streams.values():
            stream.flush()
        try:
            ended = self._process.wait(10)
        except subprocess.TimeoutExpired:
            raise self._lost("it closed its ports") from None
        if not started and ended > 0:
            said = [server.trouble() for _, server in self.servers]
            raise LabError("\n".join([f"QEMU did not start (status {ended})", *filter(None, said), self.words()]))
        raise self._lost(self._how(ended, started))

    def _hear(self, data: bytes) -> None:
        self.console += data
        del self.console[:-CONSOLE_KEPT]

    def _drain(self) -> None:
        """Take what the console has said and nobody has read yet."""
        with contextlib.suppress(OSError):  # there is no more for now, or QEMU has ended
            while data := self._sockets[CONSOLE].recv(1 << 16, socket.MSG_DONTWAIT):
                self._hear(data)

    def _check_servers(self) -> None:
        for _, server in self.servers:
            if said := server.trouble():
                with contextlib.suppress(subprocess.TimeoutExpired):
                    self._process.wait(2)
                    return  # QEMU ended, and the servers with it
                raise self._lost(said)

    def _how(self, ended: int, started: bool) -> str:
        when = "while the command ran" if started else "before the command started"
        if ended < 0 or ended > SIGNALLED:
            return f"QEMU was killed by signal {-ended if ended < 0 else ended - SIGNALLED} {when}"
        console = self.words(200)
        if "Kernel panic" in console:
            cause = next(line for line in console.splitlines() if "Kernel panic" in line)
            return f"its kernel panicked {when}: {cause.partition('Kernel panic')[2].lstrip(' -')}"
        return f"it powered off, reset or crashed {when} (QEMU status {ended})"
