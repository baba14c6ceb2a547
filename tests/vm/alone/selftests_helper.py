# SPDX-License-Identifier: MIT
"""load FILE [PARAM=VALUE]..., unload NAME, revert NAME: as insmod, rmmod and echo, by the package."""

from __future__ import annotations

import errno
import os
import subprocess
import sys

from pylivepatch import Core, KernelError, Severity, Stage

# As insmod(8) has them.
_WORDS = {errno.EINVAL: "Invalid parameters", errno.ENOEXEC: "Invalid module format"}


def main() -> int:
    """Do it; on a refusal say what the program would say."""
    verb, name, *words = sys.argv[1:]
    with Core("klpctl") as core:
        if verb == "load" and any(
            each.severity is Severity.FATAL and each.stage is Stage.LOAD for each in core.preflight(name)
        ):
            # The package would refuse it without asking the kernel, which has to refuse it as well.
            return subprocess.run(["insmod", name, *words], check=False).returncode
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
            return 1
    return 0


sys.exit(main())
