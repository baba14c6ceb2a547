# SPDX-License-Identifier: MIT
"""QEMU's command line, the ends of streams, and how a guest's end is read."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from pylivepatch.lab import guest
from pylivepatch.lab.errors import GuestLostError

MARK = b"aabaac"


@pytest.mark.parametrize("step", [1, 2, 3, 5, 100])
def test_a_stream_ends_at_its_mark(step: int) -> None:
    """The mark is found however the data is cut, and is not passed on."""
    got = bytearray()
    stream = guest.Stream(got.extend, MARK)
    data = b"aab\r\naa\0baabaab" + MARK + b"junk"
    for at in range(0, len(data), step):
        stream.feed(data[at : at + step])
    assert bytes(got) == b"aab\r\naa\0baabaab"
    assert stream.ended


def test_nothing_is_held_back_that_cannot_be_the_mark() -> None:
    """Output is passed on at once, so that it can be followed live."""
    got = bytearray()
    stream = guest.Stream(got.extend, MARK)
    stream.feed(b"hello\n")
    assert bytes(got) == b"hello\n"


def test_a_lost_streams_rest_is_passed_on() -> None:
    """What looked like the start of the mark is output after all when the guest is gone."""
    got = bytearray()
    stream = guest.Stream(got.extend, MARK)
    stream.feed(b"xaab")
    assert bytes(got) == b"x"
    stream.flush()
    assert bytes(got) == b"xaab"


def test_command_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every share has a device with its tag, a comma in the disk's path is doubled, an oops is fatal."""
    program = tmp_path / "qemu-system-x86_64"
    program.touch(mode=0o755)
    monkeypatch.setenv("PATH", str(tmp_path) + os.pathsep + os.defpath)
    machine = guest.Machine(Path("/k/vmlinux"), Path("/r/initramfs"), Path("/c,d/root.img"), 3, 1 << 30, "kvm", "x=y")
    argv = guest.command_line(machine, [("lab.kernel", "k.sock"), ("share0", "s.sock")], [7, 8, 9, 10])
    assert argv[0] == str(program)
    assert argv[argv.index("-smp") + 1] == "3"
    assert argv[argv.index("-accel") + 1] == "kvm"
    assert "file=/c,,d/root.img,format=raw,if=none,id=root,snapshot=on" in argv
    assert "vhost-user-fs-pci,chardev=fs1,tag=share0,queue-size=512" in argv
    assert "socket,id=control,fd=7" in argv
    assert argv[argv.index("-serial") + 1] == "chardev:console"
    assert "socket,id=console,fd=10" in argv
    assert argv[argv.index("-sandbox") + 1].startswith("on,")
    append = argv[argv.index("-append") + 1]
    assert "oops=panic" in append
    assert append.endswith("x=y")


def lost(reason: str) -> GuestLostError:
    """Return the error that a guest's end is told by."""
    return GuestLostError(reason)


@pytest.mark.parametrize("step", [1, 3, 100])
def test_the_status_of_the_command(step: int) -> None:
    """It is read however the data is cut."""
    control = guest.Control(lost)
    data = b"ready\nexit 137\n"
    for at in range(0, len(data), step):
        control.feed(data[at : at + step])
    assert (control.ready, control.status) == (True, 137)


@pytest.mark.parametrize(
    "said", [b"exit \n", b"exit x\n", b"exit 1e3\n", b"exit 256\n", b"exit -1\n", b"exit 99999999999999999999\n",
             b"\n", b"exit 0 \n", b"\xff\xfe\n", b"exit\n", b"\x1b]0;pwned\x07\n"])  # fmt: skip
def test_a_guest_that_says_something_else_is_lost(said: bytes) -> None:
    """Neither a traceback nor a status that the guest made up."""
    control = guest.Control(lost)
    with pytest.raises(GuestLostError, match="where its status belongs") as caught:
        control.feed(b"ready\n" + said)
    assert "\x1b" not in str(caught.value)
    assert control.status is None


def test_a_guest_that_says_much_is_lost() -> None:
    """What never becomes a line is not kept."""
    control = guest.Control(lost)
    control.feed(b"x" * guest.LINE)
    with pytest.raises(GuestLostError, match="said much"):
        control.feed(b"x")


def test_the_console_is_kept_in_part_and_says_nothing_to_a_terminal(tmp_path: Path) -> None:
    """Its end, with what a terminal would obey made visible."""
    (tmp_path / "qemu.log").write_bytes(b"qemu: \x1b]0;pwned\x07\n")
    machine = guest.Machine(Path("/k"), Path("/r"), Path("/d"), 1, 1 << 30, "kvm")
    one = guest.Guest(machine, [], tmp_path)
    one.console += b"\x1b[2J\x1b[1mhello\x1b[0m\r\n\x1b]52;c;QUJD\x07\x9b2J\xc2\x9bworld\n\n"
    words = one.words()
    assert words.splitlines()[0] == "qemu: \ufffd]0;pwned\ufffd"
    assert words.splitlines()[1] == "hello"
    assert not set("\x1b\x07\x9b\r") & set(words)


def test_what_the_console_said_before_the_end_is_kept(tmp_path: Path) -> None:
    """The command's status may be read before its last words on the console: they are there all the same."""
    one = guest.Guest(guest.Machine(Path("/k"), Path("/r"), Path("/d"), 1, 1 << 30, "kvm"), [], tmp_path)
    said = {"control": b"ready\nexit 3\n", "stdout": b"out|", "stderr": b"|", guest.CONSOLE: 100_000 * b"x" + b"end"}
    pairs = {name: socket.socketpair() for name in said}
    one._sockets.update({name: ours for name, (ours, _) in pairs.items()})
    for name, words in said.items():
        pairs[name][1].sendall(words)
    out: list[bytes] = []
    assert one.follow(out.append, out.append, "|", 60) == 3
    assert (out, bytes(one.console)) == ([b"out"], said[guest.CONSOLE])
    for pair in pairs.values():
        for end in pair:
            end.close()
