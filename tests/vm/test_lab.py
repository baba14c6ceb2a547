# SPDX-License-Identifier: MIT
"""The lab itself: what it promises to its users."""

from __future__ import annotations

import io
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from pylivepatch import lab

ALL_BYTES = bytes(range(256))
PROMISES = """
set -e
uname -r
echo PYLIVEPATCH_LAB=$PYLIVEPATCH_LAB
pgrep -f systemd-udevd >/dev/null && echo udevd runs
test ! -e /sys/module/klpctl && echo klpctl is not loaded
modprobe klpctl && test -c /dev/klpctl && echo klpctl loads
python3 -c 'import pylivepatch; print("package", pylivepatch.Core().backend)'
modinfo -F vermagic klpctl | grep -q "^$(uname -r) " && echo klpctl is for this kernel
pylivepatch status --json | grep -q klpctl && echo command
nproc
id -u
"""

Lab = Callable[..., tuple[int, bytes, bytes]]


@pytest.fixture
def guest(pytestconfig: pytest.Config) -> Lab:
    """Run a command in a guest: its status, its output, its error output."""

    def run(*command: str, **options: object) -> tuple[int, bytes, bytes]:
        out, err = io.BytesIO(), io.BytesIO()
        status = lab.run(
            command,
            kernel=pytestconfig.getoption("kernel"),
            flavour=pytestconfig.getoption("flavour"),
            stdout=out,
            stderr=err,
            **options,  # type: ignore[arg-type]
        )
        return status, out.getvalue(), err.getvalue()

    return run


def test_a_guest_has_what_is_promised(guest: Lab, pytestconfig: pytest.Config) -> None:
    """Stock kernel, udevd, package, command and klpctl are there; klpctl is not loaded unasked."""
    status, out, err = guest("sh", "-c", PROMISES, cpus=1)
    assert (status, err) == (0, b"")
    release, *lines = out.decode().splitlines()
    assert re.match(re.escape(pytestconfig.getoption("kernel")) + r"(\.|\Z)", release)
    assert lines == [
        "PYLIVEPATCH_LAB=1",
        "udevd runs",
        "klpctl is not loaded",
        "klpctl loads",
        "package klpctl",
        "klpctl is for this kernel",
        "command",
        "1",
        "0",
    ]


@pytest.mark.once
@pytest.mark.parametrize("code", [0, 3, 255])
def test_the_exit_status_is_the_command_s(guest: Lab, code: int) -> None:
    """A command that fails is a command that failed: its status comes back, and no guest was lost."""
    assert guest("sh", "-c", f"echo said; echo complained >&2; exit {code}") == (code, b"said\n", b"complained\n")


@pytest.mark.once
def test_signals_and_missing_commands_have_the_shell_s_statuses(guest: Lab, tmp_path: Path) -> None:
    """128 + N for a command that a signal killed; 127 for one that is not there."""
    assert guest("sh", "-c", "kill -KILL $$")[0] == 137
    assert guest("/no/such/command")[0] == 127


@pytest.mark.once
def test_output_is_not_mangled(guest: Lab, tmp_path: Path) -> None:
    """All bytes come as they were written, also much of them, on both outputs, without an end of line."""
    (tmp_path / "all").write_bytes(ALL_BYTES)
    script = f"cat {tmp_path}/all; head -c 3000000 /dev/zero; cat {tmp_path}/all >&2; printf 'end\\r' >&2"
    status, out, err = guest("sh", "-c", script, shares=[tmp_path])
    assert status == 0
    assert out == ALL_BYTES + bytes(3_000_000)
    assert err == ALL_BYTES + b"end\r"


@pytest.mark.once
def test_directories_are_shared_both_ways(guest: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A shared directory is mounted read-write at its own path, and the command starts where the caller is."""
    inner = tmp_path / "a directory" / "inner"
    inner.mkdir(parents=True)
    (inner / "given").write_text("from the host\n")
    monkeypatch.chdir(inner)
    script = 'pwd; cat given; echo from the guest > made; ln -s made "link"; mkdir -p deep/er; chmod 640 made'
    status, out, err = guest("sh", "-c", script, writable=[tmp_path / "a directory"])
    assert (status, out.decode(), err) == (0, f"{inner}\nfrom the host\n", b"")
    assert (inner / "made").read_text() == "from the guest\n"
    assert (inner / "made").stat().st_mode & 0o777 == 0o640
    assert (inner / "link").readlink() == Path("made")
    assert (inner / "deep/er").is_dir()


@pytest.mark.once
def test_arguments_arrive_as_they_are(guest: Lab) -> None:
    """Spaces, quotes, line breaks, empty and odd arguments reach the command unchanged."""
    words = ["two words", "it's", '"', "a\nb", "", "$HOME", "*", "é", "--", "\\"]
    script = "import sys; sys.stdout.write('\\0'.join(sys.argv[1:]))"
    _, out, _ = guest("python3", "-c", script, *words)
    assert out.decode().split("\0") == words


@pytest.mark.once
def test_a_guest_that_dies_is_lost(guest: Lab) -> None:
    """A kernel crash is no failed command: the error says that the guest died, with the end of its console."""
    with pytest.raises(lab.GuestLostError) as info:
        guest("sh", "-c", "echo before; echo c > /proc/sysrq-trigger; sleep 60")
    assert "panicked" in info.value.reason
    assert "sysrq triggered crash" in info.value.console
    assert "sysrq triggered crash" in str(info.value)


@pytest.mark.once
def test_a_guest_that_goes_is_lost(guest: Lab) -> None:
    """A guest that powers off before the command's status has come is lost, too."""
    with pytest.raises(lab.GuestLostError, match="powered off"):
        guest("/run/lab/busybox", "poweroff", "-f")


@pytest.mark.once
def test_a_guest_that_hangs_is_stopped(guest: Lab, tmp_path: Path) -> None:
    """A command that does not end in time ends with its guest; what it has said until then is passed on."""
    console = tmp_path / "console"
    with pytest.raises(lab.GuestLostError, match="did not end within 8 s"):
        guest("sh", "-c", "echo hanging > /dev/console; sleep 1000", timeout=8, console=console)
    assert b"hanging" in console.read_bytes()


@pytest.mark.once
def test_the_command_line_tells_lost_guests_from_failed_commands(pytestconfig: pytest.Config) -> None:
    """`pylivepatch lab run` exits with the command's status, and with 125 when the guest was lost."""
    command = [sys.executable, "-m", "pylivepatch", "lab", "run", "--kernel", pytestconfig.getoption("kernel")]
    command += ["--flavour", pytestconfig.getoption("flavour"), "--"]
    done = subprocess.run([*command, "sh", "-c", "echo out; exit 7"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (7, "out\n")
    done = subprocess.run([*command, "sh", "-c", "echo c > /proc/sysrq-trigger"], capture_output=True, text=True,
                          check=False)  # fmt: skip
    assert done.returncode == 125
    assert "the guest was lost" in done.stderr
    assert "sysrq triggered crash" in done.stderr


@pytest.mark.once
@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"memory": "12"}, "memory size"),
        ({"memory": "much"}, "memory size"),
        ({"cpus": 0}, "CPUs"),
        ({"timeout": 0.0}, "timeout"),
        ({"shares": ["/usr"]}, "the guest has its own"),
        ({"shares": ["/no/such/directory"]}, "not a directory"),
        ({"modules": ["/etc/hostname"]}, "not a directory"),
    ],
)
def test_arguments_that_cannot_be_right(guest: Lab, options: dict[str, object], words: str) -> None:
    """What cannot be right is refused before anything starts."""
    with pytest.raises(ValueError, match=words):
        guest("true", **options)
