# SPDX-License-Identifier: MIT
"""Programs in a sandbox: they see the toolchain, the directories that are named, and nothing else; no network.

What a stranger's diff makes of a compiler is a program of the stranger's. Here it can read no other file, change
nothing but the directories that are named for that, and has bounds of time, memory, output and file size. bubblewrap
makes the namespace where it is installed and allowed to, else unshare(1) and mount(8) do.

Inside there is no /sys, of /dev only null, of /proc one made-up file, and /tmp is empty and private. Capabilities are
dropped.
"""

from __future__ import annotations

import contextlib
import functools
import os
import re
import selectors
import shlex
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from pylivepatch.errors import UnsupportedError
from pylivepatch.lab import tools
from pylivepatch.lab.errors import LabError

TOOLCHAIN = ("usr/bin", "usr/sbin", "usr/include", "usr/lib", "usr/lib32", "usr/lib64", "usr/libx32", "usr/libexec",
             "usr/share", "usr/x86_64-linux-gnu", "bin", "sbin", "lib", "lib32", "lib64", "libx32", "etc/alternatives",
             "etc/ld.so.cache")  # fmt: skip
"""What is seen of a root file system. Not /usr/local, /usr/src, /opt, /etc: they may hold what is not for strangers."""

_PATH = "/usr/bin:/usr/sbin:/bin:/sbin"
_FLAGS = ((os.ST_NOSUID, "nosuid"), (os.ST_NODEV, "nodev"), (os.ST_NOEXEC, "noexec"), (os.ST_NOATIME, "noatime"),
          (os.ST_NODIRATIME, "nodiratime"), (os.ST_RELATIME, "relatime"))  # fmt: skip
_MAPS = "/proc/self/maps"
_STACK = "7ffffffde000-7ffffffff000 rw-p 00000000 00:00 0 [stack]\n"
"""What objtool of 6.16 and later insists on reading, to tell an overflow of its stack from other crashes."""

_SCRATCH = 2 << 30
"""Bytes that /tmp may hold."""


class LimitError(LabError):
    """A program in the sandbox exceeded a bound and was stopped. What it wrote is in its directories at most."""


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds of one run.

    Attributes:
        seconds: Until the run is stopped.
        cpu: Seconds of CPU time of each process.
        memory: Bytes of address space of each process.
        file: Bytes of each file that is written.
        output: Bytes of standard output, and of standard error.
        processes: How many there may be at one time; without effect for root.
    """

    seconds: float = 900.0
    cpu: int = 900
    memory: int = 4 << 30
    file: int = 1 << 30
    output: int = 64 << 20
    processes: int = 4096


@dataclass(frozen=True, slots=True)
class Done:
    """How a program ended.

    Attributes:
        status: Its exit status, or the negative number of the signal that ended it.
        stdout: Its standard output.
        stderr: Its standard error.
    """

    status: int
    stdout: bytes
    stderr: bytes

    def output(self, lines: int = 25) -> str:
        """Return the last lines of all that it wrote, as text."""
        text = (self.stdout + b"\n" + self.stderr).decode(errors="replace").strip()
        return "\n".join(text.splitlines()[-lines:])


@dataclass(frozen=True, slots=True)
class Sandbox:
    """A view of the machine for programs that work on what a stranger wrote.

    Attributes:
        read: Directories and files that are seen, each at its own path; not writable.
        write: Directories that are seen, and may be changed.
        root: The root file system that the toolchain is of.
        limits: Bounds of each run.
        programs: Directories of programs beside the toolchain's, which come first; they must be seen.
        confined: False to run programs without a namespace, with all rights of the caller: the bounds remain.
    """

    read: tuple[Path, ...] = ()
    write: tuple[Path, ...] = ()
    root: Path = Path("/")
    programs: tuple[Path, ...] = ()
    limits: Limits = Limits()
    confined: bool = True

    def seeing(self, *read: Path, write: Sequence[Path] = ()) -> Sandbox:
        """Return a sandbox in which more is seen."""
        return replace(self, read=(*self.read, *read), write=(*self.write, *write))

    def run(
        self, argv: Sequence[str | Path], *, cwd: Path, what: str, data: bytes = b"",
        env: Mapping[str, str] | None = None, limits: Limits | None = None,
    ) -> Done:  # fmt: skip
        """Run a program to its end.

        Args:
            argv: Program and arguments; the program is a path, or is found in the toolchain.
            cwd: Working directory; it must be seen.
            what: What this is for, for the message of an error.
            data: Its standard input.
            env: More environment variables; beside PATH, TMPDIR and LC_ALL=C there are no others.
            limits: Bounds of this run.

        Raises:
            LimitError: It exceeded a bound, and was stopped.
            UnsupportedError: This machine makes no namespace; nothing was run.
        """
        bounds = limits or self.limits
        inner = _bounded([str(word) for word in argv], bounds)
        environment = {"LC_ALL": "C", **(env or {})}
        if not self.confined:
            kept = {name: os.environ[name] for name in ("PATH", "HOME", "TMPDIR") if name in os.environ}
            return _follow(inner, cwd, kept | environment, data, bounds, what)
        environment |= {"PATH": ":".join([*map(str, self.programs), _PATH]), "TMPDIR": "/tmp", "HOME": "/tmp"}
        way = _way(self.root)
        with way(self, cwd, inner) as command:
            return _follow(command, None, environment, data, bounds, what)

    def binds(self) -> Iterator[tuple[Path, Path, bool]]:
        """Yield what is seen beside the toolchain, outer ones first: path outside, path inside, whether writable."""
        found: dict[Path, tuple[Path, bool]] = {}
        for writable, paths in ((False, self.read), (True, self.write)):
            for path in paths:
                real = path.resolve(strict=True)
                for place in (Path(os.path.normpath(path.absolute())), real):
                    found[place] = (real, writable)
        for place in sorted(found, key=lambda item: len(item.parts)):
            yield found[place][0], place, found[place][1]

    def system(self) -> Iterator[tuple[Path, Path]]:
        """Yield the parts of the toolchain: path outside, path inside."""
        for name in TOOLCHAIN:
            path = self.root / name
            if path.is_symlink() or path.exists():
                yield path, Path("/") / name


def _bounded(argv: list[str], limits: Limits) -> list[str]:
    """Return a command that sets the bounds of its process, then becomes *argv*; by any POSIX shell."""
    script = (f"ulimit -c 0; ulimit -t {limits.cpu}; ulimit -v {limits.memory >> 10}; ulimit -f {limits.file >> 9}; "
              f"ulimit -p {limits.processes} 2>/dev/null || ulimit -u {limits.processes} 2>/dev/null; "
              'exec "$@"')  # fmt: skip
    return ["/bin/sh", "-c", script, "sh", *argv]


def _follow(
    command: list[str], cwd: Path | None, env: Mapping[str, str], data: bytes, limits: Limits, what: str
) -> Done:
    """Run a command, keep what it writes, and stop it with all its processes when it exceeds a bound."""
    deadline = time.monotonic() + limits.seconds
    kept = {"stdout": bytearray(), "stderr": bytearray()}
    late = f"{what}: it did not end within {limits.seconds:.0f} s, and was stopped"
    with tempfile.TemporaryFile() as stdin:
        stdin.write(data)
        stdin.seek(0)
        process = subprocess.Popen(command, cwd=cwd, env=dict(env), stdin=stdin, stdout=subprocess.PIPE,
                                   stderr=subprocess.PIPE, start_new_session=True)  # fmt: skip
    assert process.stdout is not None
    assert process.stderr is not None
    with process, selectors.DefaultSelector() as selector:
        selector.register(process.stdout, selectors.EVENT_READ, "stdout")
        selector.register(process.stderr, selectors.EVENT_READ, "stderr")
        try:
            while selector.get_map():
                for key, _ in selector.select(max(0.0, deadline - time.monotonic())):
                    piece = os.read(key.fd, 1 << 16)
                    if not piece:
                        selector.unregister(key.fileobj)
                    kept[key.data] += piece
                if max(map(len, kept.values())) > limits.output:
                    raise LimitError(f"{what}: it wrote more than {limits.output >> 20} MiB, and was stopped")
                if time.monotonic() > deadline and selector.get_map():
                    raise LimitError(late)
            process.wait(max(0.1, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            raise LimitError(late) from None
        finally:
            if process.returncode is None:
                os.killpg(process.pid, signal.SIGKILL)
    return Done(process.returncode, bytes(kept["stdout"]), bytes(kept["stderr"]))


_Way = Callable[[Sandbox, Path, list[str]], contextlib.AbstractContextManager[list[str]]]


@functools.cache
def _way(root: Path) -> _Way:
    """Return how this machine makes the namespace: the first way by which a program ends well."""
    reasons = []
    for way in _WAYS:
        try:
            with way(Sandbox(root=root), Path("/"), ["/bin/sh", "-c", "exit 0"]) as command:
                done = _follow(command, None, {"LC_ALL": "C", "PATH": _PATH}, b"", Limits(seconds=60),
                               "trying the sandbox")  # fmt: skip
        except LabError as error:
            reasons.append(error.message)
            continue
        if done.status == 0:
            return way
        reasons.append(done.output(3) or f"status {done.status}")
    raise UnsupportedError(
        "this machine makes no namespace to run the compiler in, so that a diff could read any file of yours: "
        + "; ".join(reasons), feature="sandbox",
        remedy="install bubblewrap, allow user namespaces, or run it without a sandbox, for diffs that you have read "
        "(--unconfined)")  # fmt: skip


@contextlib.contextmanager
def _bubblewrap(sandbox: Sandbox, cwd: Path, inner: list[str]) -> Iterator[list[str]]:
    argv = [tools.find("bwrap"), "--unshare-all", "--die-with-parent", "--new-session", "--cap-drop", "ALL"]
    for outside, inside in sandbox.system():
        if outside.is_symlink():
            argv += ["--symlink", str(outside.readlink()), str(inside)]
        else:
            argv += ["--ro-bind", str(outside), str(inside)]
    argv += ["--dir", "/dev", "--dev-bind", "/dev/null", "/dev/null", "--size", str(_SCRATCH), "--tmpfs", "/tmp"]
    for outside, inside, writable in sandbox.binds():
        argv += ["--bind" if writable else "--ro-bind", str(outside), str(inside)]
    with tempfile.NamedTemporaryFile("w", prefix="pylivepatch-sandbox-") as maps:
        maps.write(_STACK)
        maps.flush()
        argv += ["--ro-bind", maps.name, _MAPS]
        yield [*argv, "--remount-ro", "/", "--chdir", str(cwd), "--", *inner]


@contextlib.contextmanager
def _unshare(sandbox: Sandbox, cwd: Path, inner: list[str], *, user: bool = True) -> Iterator[list[str]]:
    with tempfile.TemporaryDirectory(prefix="pylivepatch-sandbox-") as box:
        place = shlex.quote(box)
        script = "\n".join([
            "set -e", *_mounts(sandbox, box), f"cd {place}", "mkdir .old", "ln -s .old/proc proc", "pivot_root . .old",
            "cd /", "umount -l /.old",  # which reads /proc
            "rm proc", "rmdir .old", f"mkdir -p {Path(_MAPS).parent}", f"printf %s {shlex.quote(_STACK)} >{_MAPS}",
            "mount -t tmpfs -o remount,ro,nosuid,nodev sandbox /",
            f"cd {shlex.quote(str(cwd))}", "set +e",
            'setpriv --bounding-set=-all --inh-caps=-all --no-new-privs -- "$@"', "exit $?",  # not as process 1
        ])
        enter = ["--user", "--map-root-user"] if user else []
        yield [tools.find("setpriv"), "--pdeathsig", "KILL", "--", tools.find("unshare"), *enter, "--mount", "--pid",
               "--net", "--ipc", "--uts", "--fork", "--kill-child=KILL", "--propagation", "private",
               "/bin/sh", "-c", script, "sh", *inner]  # fmt: skip


def _mounts(sandbox: Sandbox, box: str) -> Iterator[str]:
    """Yield the shell commands that put together what is seen, below *box*."""
    yield f"mount -t tmpfs -o mode=755,nosuid,nodev,size=16m sandbox {shlex.quote(box)}"
    yield f"mkdir -p {shlex.quote(box)}/dev {shlex.quote(box)}/tmp"
    yield f"mount -t tmpfs -o mode=1777,nosuid,nodev,size={_SCRATCH} sandbox {shlex.quote(box)}/tmp"
    for outside, inside in sandbox.system():
        if outside.is_symlink():
            yield f"ln -s {shlex.quote(str(outside.readlink()))} {shlex.quote(f'{box}{inside}')}"
        else:
            yield from _bind(outside, f"{box}{inside}", writable=False)
    yield from _bind(Path("/dev/null"), f"{box}/dev/null", writable=True)
    for outside, inside, writable in sandbox.binds():
        yield from _bind(outside, f"{box}{inside}", writable=writable)


def _bind(outside: Path, inside: str, *, writable: bool) -> Iterator[str]:
    place = shlex.quote(inside)
    if outside.is_dir():
        yield f"mkdir -p {place}"
    else:
        yield f"mkdir -p {shlex.quote(str(Path(inside).parent))}; [ -e {place} ] || : >{place}"
    yield f"mount --rbind {shlex.quote(str(outside))} {place}"
    if writable:
        return
    for mount in (outside, *_below(outside)):
        # The flags of a mount that belongs to a user namespace above cannot be cleared, so they are said again.
        flags = os.statvfs(mount).f_flag
        words = ["remount", "bind", "ro", *(word for flag, word in _FLAGS if flags & flag)]
        yield f"mount -o {','.join(words)} {shlex.quote(inside + str(mount)[len(str(outside)):])}"


def _below(top: Path) -> list[Path]:
    """Return the mounts below a directory."""
    found = []
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        name = re.sub(r"\\([0-7]{3})", lambda found: chr(int(found[1], 8)), line.split()[4])
        if name.startswith(f"{top}/"):
            found.append(Path(name))
    return found


_WAYS: tuple[_Way, ...] = (_bubblewrap, _unshare, functools.partial(_unshare, user=False))
