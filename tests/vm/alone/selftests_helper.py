# SPDX-License-Identifier: MIT
"""Serve requests, a line each, from the FIFO of the first argument; the answers go to that of the second.

A request is load FILE [PARAM=VALUE]..., unload NAME or revert NAME: as insmod, rmmod and echo, by the package, each
in a process of its own. An answer is a line with the exit status, and what was said. It is one program for all, since
to start Python and to import the package takes seconds in an emulated guest, and a hundred times minutes.
"""

from __future__ import annotations

import errno
import os
import shlex
import subprocess
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "guest"))
from support import forked

from pylivepatch import Core, KernelError, Severity, Stage

# As insmod(8) has them.
_WORDS = {errno.EINVAL: "Invalid parameters", errno.ENOEXEC: "Invalid module format"}


def do(verb: str, name: str, *words: str) -> None:
    """Do it; on a refusal say what the program would say."""
    with Core("klpctl") as core:
        if verb == "load" and any(
            each.severity is Severity.FATAL and each.stage is Stage.LOAD for each in core.preflight(name)
        ):
            # The package would refuse it without asking the kernel, which has to refuse it as well.
            sys.exit(subprocess.run(["insmod", name, *words], check=False).returncode)
        try:
            if verb == "load":
                core.load(name, params=dict(word.split("=", 1) for word in words), timeout=None, wait=False)
            elif verb == "unload":
                core[name].unload()
            else:
                core[name].revert(timeout=None)
        except KernelError as error:
            number = error.errno or 0
            what = "insmod: ERROR: could not insert" if verb == "load" else f"{verb}: ERROR:"
            print(f"{what} module {name}: {_WORDS.get(number, os.strerror(number))}", file=sys.stderr)
            sys.exit(1)


def main(requests: Path, answers: Path) -> None:
    """Serve until killed."""
    while True:
        words = shlex.split(requests.read_text())
        done = forked(lambda words=words: do(*words))  # type: ignore[misc]
        answers.write_text(f"{done.returncode}\n{done.stdout}{done.stderr}")


main(*map(Path, sys.argv[1:]))
