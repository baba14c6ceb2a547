# SPDX-License-Identifier: MIT
"""What kpatch's commands print, and how they end."""

from __future__ import annotations

import sys

from pylivepatch.state import printable


class FailedError(Exception):
    """Ends the program: its words follow ``kpatch:``, and its exit code is 1."""


class Usage(Exception):  # noqa: N818 (nothing is wrong when it is asked for)
    """Ends the program with the usage, and the exit code 1."""


def out(line: str) -> None:
    """Print a line of the result, at once."""
    print(printable(line, keep="\t"), flush=True)


def warn(words: str) -> None:
    """Print what went wrong, in its place among the lines of the result."""
    sys.stdout.flush()
    print("kpatch:", printable(words, keep="\n\t"), file=sys.stderr, flush=True)
