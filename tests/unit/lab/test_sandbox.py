# SPDX-License-Identifier: MIT
"""The sandbox: what a program sees in it, what it may change, and where it is stopped; by each way that makes one."""

from __future__ import annotations

import functools
import os
import pickle
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pylivepatch import UnsupportedError
from pylivepatch.lab import sandbox
from pylivepatch.lab.sandbox import Done, LimitError, Limits, Sandbox

NOBODY = 65534


def in_child(user: bool, run: Callable[[], object]) -> object:
    """Return what *run* returns or raises, in a process of its own, which is an ordinary user's when *user*."""
    ours, theirs = os.pipe()
    child = os.fork()
    if not child:
        try:
            if user:
                os.setgroups([])
                os.setresgid(NOBODY, NOBODY, NOBODY)
                os.setresuid(NOBODY, NOBODY, NOBODY)
            found: object = run()
        except BaseException as error:
            found = error
        os.write(theirs, pickle.dumps(found))
        os._exit(0)
    os.close(theirs)
    with open(ours, "rb") as end:
        found = pickle.load(end)
    os.waitpid(child, 0)
    if isinstance(found, BaseException):
        raise found
    return found


@pytest.fixture(params=["bubblewrap", "unshare"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """One way to make the namespace at a time; both have to be there."""
    monkeypatch.setattr(sandbox, "_WAYS", sandbox._WAYS[:1] if request.param == "bubblewrap" else sandbox._WAYS[1:])
    sandbox._way.cache_clear()
    return str(request.param)


@pytest.fixture(params=["caller", "user"])
def user(request: pytest.FixtureRequest) -> bool:
    """Who runs it: the caller, and an ordinary user when the caller is root."""
    if request.param == "user" and os.geteuid():
        pytest.skip("the caller is an ordinary user")
    return request.param == "user"


bounds = pytest.mark.parametrize(("way", "user"), [("bubblewrap", "caller"), ("unshare", "user")], indirect=True)
"""Bounds do not depend on both, so that two of the four do."""


@pytest.fixture
def folder(user: bool) -> Iterator[Path]:
    """A directory of the one who runs it, with a secret beside what is seen."""
    with tempfile.TemporaryDirectory(prefix="plp-sandbox-") as name:
        top = Path(name)
        for each in ("seen", "work", "hidden"):
            (top / each).mkdir()
        (top / "seen/file").write_text("seen\n")
        (top / "hidden/secret").write_text("SECRET\n")
        if user:
            for path in (top, *top.rglob("*")):
                os.chown(path, NOBODY, NOBODY)
        yield top


@pytest.fixture
def run(way: str, user: bool, folder: Path) -> Callable[..., Done]:
    """Run a shell command in a sandbox that sees `seen` and may change `work`."""

    def call(command: str, **bounds: float) -> Done:
        box = Sandbox((folder / "seen",), (folder / "work",), limits=Limits(**{"seconds": 60, **bounds}))  # type: ignore[arg-type]
        found = in_child(user, lambda: box.run(["sh", "-c", command], cwd=folder / "work", what="a test"))
        assert isinstance(found, Done)
        return found

    return call


def test_what_is_named_is_seen(run: Callable[..., Done], folder: Path) -> None:
    """The toolchain works, what is named is read and written, and standard output and error come back."""
    done = run(f"cat {folder}/seen/file; echo made >{folder}/work/made; pwd; "
               "echo 'int main(void) { return 3; }' >a.c; gcc a.c -o a; ./a; echo $? >&2; exit 4")  # fmt: skip
    assert (done.status, done.stdout.decode(), done.stderr) == (4, f"seen\n{folder}/work\n", b"3\n")
    assert (folder / "work/made").read_text() == "made\n"


HIDDEN = ("/etc/passwd", "/etc/shadow", "/proc/self/environ", "/proc/version", "/sys/kernel", "/dev/zero", "/dev/kmsg",
          "/root", "/home", "/var", "/run", "/usr/local", "/usr/src", "/opt", "/boot", "{top}/hidden/secret", "/.old",
          "/dev/tty", "/proc/1", "/proc/self/root", "/proc/mounts")  # fmt: skip


def test_what_is_not_named_is_not_there(run: Callable[..., Done], folder: Path) -> None:
    """Neither by its path, nor through a link."""
    paths = [path.format(top=folder) for path in HIDDEN]
    for number, path in enumerate(paths):
        (folder / f"work/link{number}").symlink_to(path)
    done = run(f"for each in {' '.join(paths)} link*; do [ -e $each ] && echo $each; done; cat link* {' '.join(paths)}")
    assert not done.stdout
    assert done.stderr.count(b"No such file") == 2 * len(paths), done.stderr.decode()


def test_of_proc_there_is_one_file_made_up(run: Callable[..., Done]) -> None:
    """objtool ends with an error without it; nothing of this machine is in it."""
    done = run("find /proc -type f; cat /proc/self/maps; echo x >/proc/self/maps")
    assert done.stdout.decode() == "/proc/self/maps\n7ffffffde000-7ffffffff000 rw-p 00000000 00:00 0 [stack]\n"
    assert done.stderr


def test_what_is_not_given_for_writing_is_not_changed(run: Callable[..., Done], folder: Path) -> None:
    """Not even by root, and mounting it anew is not allowed."""
    places = " ".join([f"{folder}/seen/file", f"{folder}/seen/new", "/new", "/usr/bin/new", "/etc/new", "/dev/new"])
    write = f"for each in {places}; do echo x >$each && echo $each; done"
    done = run(f"{write}; mount -o remount,rw,bind {folder}/seen; mount -t tmpfs -o remount,rw x /; {write}")
    assert not done.stdout
    assert (folder / "seen/file").read_text() == "seen\n"
    assert not (folder / "seen/new").exists()
    assert not Path("/usr/bin/new").exists()


@pytest.mark.parametrize("user", ["caller"], indirect=True)
def test_a_mount_below_what_is_read_is_not_writable_either(way: str, user: bool, folder: Path) -> None:
    """What is mounted there comes along, and is read only as well."""
    if os.geteuid():
        pytest.skip("mounting needs root")
    (folder / "seen/below").mkdir()
    os.system(f"mount -t tmpfs -o nosuid,nodev,noexec below {folder}/seen/below")
    try:
        (folder / "seen/below/file").write_text("seen\n")
        box = Sandbox((folder / "seen",))
        done = box.run(["sh", "-c", "cat below/file; echo x >below/file"], cwd=folder / "seen", what="a test")
        assert done.stdout == b"seen\n"
        assert b"Read-only file system" in done.stderr
    finally:
        os.system(f"umount {folder}/seen/below")


def test_it_is_alone_and_may_do_nothing(run: Callable[..., Done]) -> None:
    """No signal reaches what is outside, no interface is there but loopback, and capabilities are dropped."""
    program = ("import ctypes, os, socket; print(socket.if_nameindex())\n"
               "print([n for n in range(41) if ctypes.CDLL(None).prctl(23, n) == 1])\n"
               f"try: os.kill({os.getpid()}, 0)\n"
               "except ProcessLookupError: print('alone')")  # fmt: skip
    done = run(f"python3 -c \"{program}\"; chroot . true || echo not root")
    assert done.stdout == b"[(1, 'lo')]\n[]\nalone\nnot root\n", done.stderr


@bounds
def test_time_is_bounded(run: Callable[..., Done]) -> None:
    """It is stopped, with what it started."""
    start = time.monotonic()
    with pytest.raises(LimitError, match="did not end within 1 s"):
        run("mkfifo fifo; sleep 60 & cat fifo", seconds=1)
    assert time.monotonic() - start < 20


@bounds
def test_what_it_wrote_it_may_close_and_go_on(run: Callable[..., Done]) -> None:
    """Time is bounded for what closes its output, too."""
    with pytest.raises(LimitError, match="did not end within 1 s"):
        run("exec >&- 2>&-; sleep 60", seconds=1)


@bounds
def test_output_is_bounded(run: Callable[..., Done]) -> None:
    """What floods its caller is stopped."""
    with pytest.raises(LimitError, match="wrote more than 1 MiB"):
        run("yes", output=1 << 20)


@bounds
def test_memory_file_size_and_cpu_are_bounded(run: Callable[..., Done], folder: Path) -> None:
    """Each process ends at its own bound."""
    assert run("awk 'BEGIN { for (s = \"x\"; length(s) < 2 ^ 30; ) s = s s; print length(s) }'", memory=64 << 20).status
    assert run("yes >big", file=1 << 20).status
    assert (folder / "work/big").stat().st_size == 1 << 20
    assert run("while :; do :; done", cpu=1).status in (-9, 128 + 9, -24, 128 + 24)


@bounds
def test_ordinary_users_may_not_fork_without_end(run: Callable[..., Done], user: bool) -> None:
    """The number of processes is bounded, but for root, for whom the kernel does not count."""
    if not user and not os.geteuid():
        return  # for root the kernel does not count
    done = run("for i in 1 2 3 4 5 6 7 8 9 10 11 12; do sleep 5 & done; kill %1", processes=8)
    assert b"fork" in done.stderr.lower()


def test_without_a_namespace_it_refuses(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The error has the reason of each way, and what to do; nothing ran."""

    def fails(*_: object) -> object:
        return functools.partial(sandbox._bubblewrap)(*_)  # type: ignore[arg-type]

    monkeypatch.setattr(sandbox, "_WAYS", (fails,))
    monkeypatch.setattr(sandbox.tools, "find", lambda name: shutil.which("false"))
    sandbox._way.cache_clear()
    with pytest.raises(UnsupportedError, match=r"bubblewrap.*--unconfined") as caught:
        Sandbox().run(["touch", tmp_path / "made"], cwd=tmp_path, what="a test")
    assert caught.value.feature == "sandbox"
    assert not (tmp_path / "made").exists()
    sandbox._way.cache_clear()


def test_unconfined_it_runs_with_all_rights_and_the_same_bounds(tmp_path: Path) -> None:
    """That is what the caller asked for."""
    box = Sandbox(confined=False, limits=Limits(seconds=1))
    assert box.run(["cat", "/etc/passwd"], cwd=tmp_path, what="a test").stdout
    with pytest.raises(LimitError):
        box.run(["sleep", "60"], cwd=tmp_path, what="a test")
