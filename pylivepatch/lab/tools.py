# SPDX-License-Identifier: MIT
"""The programs of the host that the lab needs, and the packages that have them."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from pylivepatch.lab.errors import LabError

PACKAGES: Mapping[str, str] = {
    "apt-get": "apt",
    "bwrap": "bubblewrap",
    "depmod": "kmod",
    "dpkg-deb": "dpkg",
    "make": "make",
    "mke2fs": "e2fsprogs",
    "modinfo": "kmod",
    "prlimit": "util-linux",
    "qemu-system-x86_64": "qemu-system-x86",
    "setpriv": "util-linux",
    "unshare": "util-linux",
    "virtiofsd": "virtiofsd (Debian 13 and later) or qemu-system-common (Debian 12)",
    "zstd": "zstd",
}
"""Program to Debian package."""

EXTRA_PATH = ("/usr/sbin", "/sbin", "/usr/libexec", "/usr/lib/qemu")
"""Where programs live that an ordinary user's PATH does not show."""


def find(name: str) -> str:
    """Return the path of the program *name*.

    Raises:
        LabError: It is not installed; the message names the package that has it.
    """
    path = os.pathsep.join([os.environ.get("PATH", os.defpath), *EXTRA_PATH])
    found = shutil.which(name, path=path)
    if found is None:
        package = PACKAGES.get(name, name)
        raise LabError(f"{name} is not installed: apt-get install {package}")
    return found


def call(
    argv: Sequence[str | Path],
    *,
    what: str,
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
    data: bytes | None = None,
    timeout: float = 900.0,
) -> bytes:
    """Run a program of the host to its end and return its standard output.

    Args:
        argv: Program (a key of `PACKAGES`, or a path) and arguments.
        what: What this is for, for the message of an error.
        cwd: Working directory.
        env: Whole environment; the caller's with LC_ALL=C by default.
        data: Standard input; nothing by default.
        timeout: Seconds.

    Raises:
        LabError: The program is missing, failed (with the end of what it said), or took too long.
    """
    program = str(argv[0])
    if "/" not in program:
        program = find(program)
    try:
        done = subprocess.run(
            [program, *map(str, argv[1:])],
            cwd=cwd,
            env=dict(env) if env is not None else {**os.environ, "LC_ALL": "C"},
            input=data if data is not None else b"",
            capture_output=True,
            timeout=timeout,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise LabError(f"{what}: {argv[0]} did not end within {timeout:.0f} s") from error
    if done.returncode != 0:
        said = (done.stdout + b"\n" + done.stderr).decode(errors="replace").strip()
        tail = "\n".join(said.splitlines()[-25:])
        raise LabError(f"{what}: {argv[0]} failed with status {done.returncode}:\n{tail}")
    return done.stdout
