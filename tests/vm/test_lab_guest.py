# SPDX-License-Identifier: MIT
"""Root of a guest changes nothing of the host but what it was given to change, and cannot stop or fool it."""

from __future__ import annotations

import io
import os
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from pylivepatch import lab
from pylivepatch.lab import cache

pytestmark = pytest.mark.once

EVIL = """
import os, stat, subprocess, sys
folder = sys.argv[1]
def attempt(what, *args, **kwargs):
    try:
        what(*args, **kwargs)
    except OSError:
        return
    print("done:", what.__name__, args)
os.chdir(folder)
open("plain", "w").close()
for bits in (stat.S_ISUID, stat.S_ISGID, stat.S_ISUID | stat.S_ISGID):
    attempt(os.chmod, "plain", 0o755 | bits)
    attempt(os.fchmod, os.open("plain", os.O_RDONLY), 0o755 | bits)
    attempt(os.open, f"made{bits:o}", os.O_CREAT | os.O_WRONLY, 0o755 | bits)
    attempt(os.mknod, f"node{bits:o}", stat.S_IFREG | 0o755 | bits)
attempt(os.mknod, "disk", stat.S_IFBLK | 0o666, os.makedev(254, 0))
attempt(os.mknod, "memory", stat.S_IFCHR | 0o666, os.makedev(1, 1))
attempt(os.setxattr, "plain", "security.capability", bytes.fromhex("0100000280000000000000000000000000000000"))
"""


def run(pytestconfig: pytest.Config, *command: str, **options: object) -> tuple[int, str, str]:
    """Run a command in a guest, with the kernel that the lane is about."""
    out, err = io.BytesIO(), io.BytesIO()
    status = lab.run(command, kernel=pytestconfig.getoption("kernel"), stdout=out, stderr=err, cpus=1, klpctl=False,
                     **options)  # type: ignore[arg-type]  # fmt: skip
    return status, out.getvalue().decode(), err.getvalue().decode()


def snapshot(top: Path) -> dict[str, tuple[int, int, int]]:
    """Return what tells whether something below *top* was changed; the host itself notes the use of a cache entry."""
    return {str(path): (info.st_size, info.st_mtime_ns, info.st_mode)
            for path in top.rglob("*") if path.name != cache.MARKER and (info := path.lstat())}  # fmt: skip


def test_root_of_a_guest_cannot_change_what_is_read_only(pytestconfig: pytest.Config, tmp_path: Path) -> None:
    """Neither the kernel's share, which the host builds and boots from, nor a shared directory; mounted anew or not."""
    (tmp_path / "given").write_text("from the host\n")
    kernel = lab.resolve(pytestconfig.getoption("kernel")).path
    before = snapshot(kernel) | snapshot(tmp_path)
    script = f"""
        for place in /run/lab/kernel {tmp_path}; do
            mount -o remount,rw $place
            grep -q " $place virtiofs rw" /proc/mounts || echo "$place was not mounted anew"
            for file in $place/config $place/vmlinux $place/given; do
                [ -e $file ] || continue
                echo changed >>$file; chmod 777 $file; touch $file; rm -f $file; mv $file $file.old
            done
            echo new >$place/new; mkdir $place/folder; ln -s /etc $place/link; ln $place/* $place/hard
        done
        cat {tmp_path}/given"""
    status, out, _ = run(pytestconfig, "sh", "-c", script, shares=[tmp_path])
    assert (status, out) == (0, "from the host\n")
    assert snapshot(kernel) | snapshot(tmp_path) == before


def test_a_guest_leaves_no_privileges_behind(pytestconfig: pytest.Config, tmp_path: Path) -> None:
    """What it may change gets no set-user-ID program, no device of the host, and no capability."""
    status, out, err = run(pytestconfig, "python3", "-c", EVIL, str(tmp_path), writable=[tmp_path])
    assert (status, out, err) == (0, "", "")
    assert (tmp_path / "plain").is_file()
    for path in tmp_path.rglob("*"):
        mode = path.lstat().st_mode
        assert stat.S_ISREG(mode) or stat.S_ISDIR(mode), path
        assert not mode & (stat.S_ISUID | stat.S_ISGID), path
        assert "security.capability" not in os.listxattr(path)


def test_a_link_that_a_guest_leaves_leads_nowhere_else_for_the_host_s_server(
    pytestconfig: pytest.Config, tmp_path: Path
) -> None:
    """What a link in a shared directory names is looked up in the guest."""
    (tmp_path / "link").symlink_to("/etc/shadow")
    (tmp_path / "up").symlink_to("../" * 20 + "etc/shadow")
    status, out, _ = run(pytestconfig, "sh", "-c", f"cat {tmp_path}/link {tmp_path}/up", writable=[tmp_path])
    assert (status, out) == (0, "root:*:19000::::::\nuser:*:19000::::::\n" * 2)


SAY = """
import ctypes, os, sys, time
control = ctypes.CDLL(None).syscall(438, os.pidfd_open(1), 9, 0)  # pidfd_getfd: what the guest's first process has open
said = sys.argv[1].encode("latin-1").decode("unicode_escape").encode("latin-1")
for _ in range(int(sys.argv[2])):
    os.write(control, said)
time.sleep(60)
"""


@pytest.mark.parametrize(
    ("said", "times", "words"),
    [
        ("exit \\n", 1, "where its status belongs"),
        ("exit x\\n", 1, "where its status belongs"),
        ("\\x1b]0;pwned\\x07\\n", 1, "where its status belongs"),
        ("x" * 1000, 1000, "said much"),
    ],
)
def test_a_guest_that_says_nonsense_is_lost(pytestconfig: pytest.Config, said: str, times: int, words: str) -> None:
    """It does not end the host's command by a traceback, nor fill its memory."""
    with pytest.raises(lab.GuestLostError, match=words) as caught:
        run(pytestconfig, "python3", "-c", SAY, said, str(times))
    assert "\033" not in str(caught.value)


def test_of_a_console_that_floods_the_end_is_kept(pytestconfig: pytest.Config, tmp_path: Path) -> None:
    """A guest that writes without end fills neither memory nor disk."""
    console = tmp_path / "console"
    # A guest's end does not wait for its console: stty does, and what is in QEMU then has a second to get here.
    flood = "head -c 3000000 /dev/zero | tr '\\0' x >/dev/console; echo the end >/dev/console"
    flood += "; stty -F /dev/console -echo; sleep 1"
    status, _, _ = run(pytestconfig, "sh", "-c", flood, console=console)
    assert status == 0
    assert console.stat().st_size == 1 << 20
    assert b"the end" in console.read_bytes()[-1000:]


@pytest.fixture
def in_the_way(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Have a directory for temporary files in which somebody has put a FIFO where a run would look for a lock."""
    for name in ("pylivepatch-lab-x", "pylivepatch-try-x"):
        (tmp_path / name).mkdir()
        os.mkfifo(tmp_path / name / "lock")
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    yield tmp_path


def test_what_others_put_into_the_temporary_directory_is_not_opened(
    pytestconfig: pytest.Config, in_the_way: Path
) -> None:
    """A run's directory is in the cache, where nobody else may write."""
    before = snapshot(in_the_way)
    done = subprocess.run([sys.executable, "-m", "pylivepatch", "lab", "run", "--kernel",
                           pytestconfig.getoption("kernel"), "--no-klpctl", "--", "echo", "here"],
                          capture_output=True, text=True, timeout=500, check=False)  # fmt: skip
    assert (done.returncode, done.stdout) == (0, "here\n")
    assert snapshot(in_the_way) == before
    assert (cache.root() / "runs").stat().st_mode & 0o022 == 0


def test_qemu_has_no_rights_of_the_caller(pytestconfig: pytest.Config) -> None:
    """It is in a namespace of its own with no capability, and its system calls are filtered."""
    with subprocess.Popen([sys.executable, "-m", "pylivepatch", "lab", "run", "--kernel",
                           pytestconfig.getoption("kernel"), "--no-klpctl", "--", "sh", "-c", "echo started; sleep 20"],
                          stdout=subprocess.PIPE, text=True) as lab_run:  # fmt: skip
        assert lab_run.stdout is not None
        assert lab_run.stdout.readline() == "started\n"
        found = 0
        for status in Path("/proc").glob("[0-9]*/status"):
            if not _descends(int(status.parent.name), lab_run.pid):
                continue
            facts = dict(line.split(":\t", 1) for line in status.read_text().splitlines() if ":\t" in line)
            if facts["Name"] in ("qemu-system-x86", "virtiofsd"):
                found += 1
                assert facts["Seccomp"] == "2", facts
                assert facts["NoNewPrivs"] == "1", facts
                assert (status.parent / "ns/mnt").readlink() != Path("/proc/self/ns/mnt").readlink()
                if facts["Name"] != "virtiofsd":
                    assert int(facts["CapEff"], 16) == int(facts["CapBnd"], 16) == 0, facts
                    assert (status.parent / "ns/user").readlink() != Path("/proc/self/ns/user").readlink()
        lab_run.terminate()
    assert found >= 2


def _descends(pid: int, ancestor: int) -> bool:
    while pid > 1:
        if pid == ancestor:
            return True
        try:
            pid = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
        except OSError:
            return False
    return False
