# SPDX-License-Identifier: MIT
"""QEMU's command line, the ends of streams, and how a guest's end is read."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from pylivepatch.lab import guest

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
    argv = guest.command_line(machine, [("lab.kernel", "k.sock"), ("share0", "s.sock")], [7, 8, 9])
    assert argv[0] == str(program)
    assert argv[argv.index("-smp") + 1] == "3"
    assert argv[argv.index("-accel") + 1] == "kvm"
    assert "file=/c,,d/root.img,format=raw,if=none,id=root,snapshot=on" in argv
    assert "vhost-user-fs-pci,chardev=fs1,tag=share0,queue-size=512" in argv
    assert "socket,id=control,fd=7" in argv
    append = argv[argv.index("-append") + 1]
    assert "oops=panic" in append
    assert append.endswith("x=y")
