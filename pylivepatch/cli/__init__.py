# SPDX-License-Identifier: MIT
"""The command line: ``pylivepatch``, of the extra ``cli``."""

from __future__ import annotations

import sys

__all__ = ["main"]

_UNSUPPORTED = 9


def main() -> None:
    """Run the command line; exits with one of the documented codes."""
    try:
        from pylivepatch.cli._main import group
    except ImportError as error:
        if error.name not in ("click", "rich"):
            raise
        sys.stderr.write(
            f"pylivepatch: the command line needs {error.name}; "
            "install it with the extra: pip install 'pylivepatch[cli]'\n"
        )
        sys.exit(_UNSUPPORTED)
    group(prog_name="pylivepatch")
