# SPDX-License-Identifier: MIT
"""Directories of the host in the guest, by virtiofs: the one way that all flavours have."""

from __future__ import annotations

import os
import socket
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from pylivepatch.errors import BadDataError
from pylivepatch.lab import tools
from pylivepatch.lab.jail import ENVIRONMENT, FILES, Jail, no_setid

OWN = ("/bin", "/boot", "/dev", "/etc", "/lib", "/lib64", "/proc", "/run", "/sbin", "/sys", "/usr", "/var")
"""Places where the guest has its own files."""

MOST = 20
"""PCI slots limit the number of shares."""


@dataclass(frozen=True, slots=True)
class Share:
    """One directory of the host.

    Attributes:
        source: The directory.
        target: Where the guest mounts it.
        readonly: Whether the guest sees it only.
    """

    source: Path
    target: str
    readonly: bool = True


def plan(readonly: Sequence[Path], writable: Sequence[Path] = ()) -> list[Share]:
    """Return the shares of directories, outer ones first, each at its own path.

    Args:
        readonly: What the guest sees; the host's side enforces that it changes nothing there.
        writable: What it may change.

    Raises:
        BadDataError: Not a directory, or one whose path the guest needs for itself.
    """
    found: dict[Path, Share] = {}
    for given in (*readonly, *writable):
        path = Path(os.path.normpath(given.absolute()))
        if not path.is_dir():
            raise BadDataError(f"cannot share {given}: not a directory")
        if str(path) == "/" or str(path) in OWN or str(path).startswith(("/proc/", "/sys/", "/dev/", "/run/lab")):
            raise BadDataError(f"cannot share {path}: the guest has its own; name a directory below it")
        if set(str(path)) & set(",\n"):
            raise BadDataError(f"cannot share {str(path)!r}: a comma or a line break in the path")
        found[path] = Share(path, str(path), given not in writable)
    if len(found) > MOST:
        raise BadDataError(f"cannot share {len(found)} directories: {MOST} at most; share one above them")
    return sorted(found.values(), key=lambda share: len(share.target))


@cache
def _options(program: str) -> tuple[str, ...]:
    """Return how virtiofsd of this machine is told what to serve: by the options that it knows.

    That of QEMU (until 8.0) has them behind -o, the one that followed it options of their own.
    """
    said = subprocess.run([program, "--help"], capture_output=True, text=True, check=False)
    if "--shared-dir" in said.stdout + said.stderr:
        return ("--shared-dir={}", "--sandbox=chroot", "--cache=auto", "--log-level=warn",
                "--modcaps=-mknod:-setfcap:-fsetid")
    return ("-osource={}", "-osandbox=chroot", "-ocache=auto", "-olog_level=warn", "-omodcaps=-mknod:-setfcap:-fsetid")


@dataclass(slots=True)
class Server:
    """One running virtiofsd.

    Attributes:
        share: What it serves.
        socket: Name of its socket in the run's directory.
    """

    share: Share
    socket: str
    folder: Path
    _process: subprocess.Popen[bytes] = field(init=False)

    def __post_init__(self) -> None:
        # The socket is bound here and handed over, since virtiofsd of QEMU 7 locks a file in /var/run by
        # the socket's name otherwise. By the directory's descriptor, since socket paths must be short.
        directory = os.open(self.folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            listener.bind(f"/proc/self/fd/{directory}/{self.socket}")
            listener.listen(1)
        finally:
            os.close(directory)
        program = tools.find("virtiofsd")
        source = self.share.source
        command = [program, f"--fd={listener.fileno()}", *(option.format(source) for option in _options(program))]
        jail = Jail(read=[source] if self.share.readonly else [], write=[] if self.share.readonly else [source],
                    capabilities=FILES, proc=True)  # fmt: skip
        bits = no_setid()
        with listener, open(self.folder / f"{self.socket}.log", "wb") as log:
            self._process = subprocess.Popen(
                jail.argv(command, Path("/"), seccomp=bits), pass_fds=[listener.fileno(), bits], env=ENVIRONMENT,
                start_new_session=True, stdin=subprocess.DEVNULL, stdout=log, stderr=log)  # fmt: skip
        os.close(bits)

    def trouble(self) -> str:
        """Return what the server said if it has ended by itself, or ""."""
        if self._process.poll() is None:
            return ""
        said = (self.folder / f"{self.socket}.log").read_text(errors="replace").strip()
        return f"{self.share.source} is no longer shared, since virtiofsd ended: {said[-500:] or 'it said nothing'}"

    def close(self) -> None:
        """End the server."""
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait()
