# SPDX-License-Identifier: MIT
"""Where the programs run that serve a guest: QEMU, and virtiofsd for each shared directory.

Whoever is root in the guest talks to them, so each sees the system's programs, what it is to give to the guest, and
nothing else. What is read-only is so by the host's kernel.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from pylivepatch.lab import tools
from pylivepatch.lab.sandbox import Sandbox

ENVIRONMENT = {"PATH": "/usr/bin:/usr/sbin:/bin:/sbin", "LC_ALL": "C"}
"""All that such a program gets to know of the caller's."""

FILES = ("CHOWN", "DAC_OVERRIDE", "FOWNER", "SETGID", "SETPCAP", "SETUID", "SYS_CHROOT")
"""Capabilities to serve files of all users, and to give up more. Not MKNOD, nor SETFCAP: no device, no privileges."""


@dataclass(frozen=True, slots=True)
class Jail:
    """A namespace for a program that runs as long as the guest.

    Attributes:
        read: What is seen, each at its own path.
        write: Directories that may be changed.
        devices: Devices that may be used, as far as there are.
        capabilities: What it may do of what the caller may do; an ordinary caller's are those of its own files.
        proc: Whether it needs /proc, with its own processes alone.
    """

    read: Sequence[Path] = ()
    write: Sequence[Path] = ()
    devices: Sequence[Path] = ()
    capabilities: Sequence[str] = ()
    proc: bool = False

    def argv(self, command: Sequence[str], cwd: Path, *, seccomp: int | None = None) -> list[str]:
        """Return the command line that runs *command* there, and ends with its parent.

        Args:
            command: Program and arguments.
            cwd: Working directory; it must be seen.
            seccomp: Descriptor with a filter of system calls.
        """
        made = [tools.find("bwrap"), "--die-with-parent", "--new-session", "--unshare-ipc", "--unshare-pid",
                "--unshare-net", "--unshare-uts", "--cap-drop", "ALL"]  # fmt: skip
        if os.geteuid() != 0 or not self.capabilities:
            made += ["--unshare-user", "--uid", "0", "--gid", "0"]
        for capability in self.capabilities:
            made += ["--cap-add", f"CAP_{capability}"]
        for outside, inside in Sandbox().system():
            made += (["--symlink", str(outside.readlink()), str(inside)] if outside.is_symlink() else
                     ["--ro-bind", str(outside), str(inside)])  # fmt: skip
        made += ["--dev", "/dev", "--tmpfs", "/tmp", "--tmpfs", "/run", "--symlink", "../run", "/var/run"]
        made += ["--proc", "/proc"] if self.proc else []
        for device in self.devices:
            made += ["--dev-bind-try", str(device), str(device)]
        for path in self.read:
            made += ["--ro-bind", str(path), str(path)]
        for path in self.write:
            made += ["--bind", str(path), str(path)]
        made += ["--seccomp", str(seccomp)] if seccomp is not None else []
        return [*made, "--chdir", str(cwd), "--", *command]


_ARCH_X86_64 = 0xC000003E
_LOAD, _JUMP_EQUAL, _JUMP_SET, _RETURN = 0x20, 0x15, 0x45, 0x06
_ALLOW, _REFUSE = 0x7FFF0000, 0x00050000 | 1  # EPERM
_SETID = 0o6000
_MODES = {90: 1, 91: 1, 268: 2, 452: 2, 2: 2, 257: 3, 85: 1, 133: 1, 259: 2}
"""System call of x86-64 to its argument that is a mode: chmod, fchmod, fchmodat, fchmodat2, open, openat, creat, mknod,
mknodat."""


def no_setid() -> int:
    """Return a descriptor with a filter for `Jail.argv`: no file gets the set-user-ID or set-group-ID bit."""
    program = b"".join(struct.pack("<HBBI", *line) for line in _filter())
    descriptor = os.memfd_create("filter", 0)
    os.write(descriptor, program)
    os.lseek(descriptor, 0, os.SEEK_SET)
    return descriptor


def _filter() -> Iterator[tuple[int, int, int, int]]:
    """Yield the lines of the filter: code, jumps when true and when false, operand (linux/filter.h)."""
    yield _LOAD, 0, 0, 4  # the architecture
    yield _JUMP_EQUAL, 1, 0, _ARCH_X86_64
    yield _RETURN, 0, 0, _REFUSE
    for number, argument in _MODES.items():
        yield _LOAD, 0, 0, 0  # the system call
        yield _JUMP_EQUAL, 0, 4, number
        yield _LOAD, 0, 0, 16 + 8 * argument
        yield _JUMP_SET, 0, 1, _SETID
        yield _RETURN, 0, 0, _REFUSE
        yield _RETURN, 0, 0, _ALLOW
    yield _RETURN, 0, 0, _ALLOW
