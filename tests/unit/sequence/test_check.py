# SPDX-License-Identifier: MIT
"""Health checks: what they run, and how they fail."""

from __future__ import annotations

import pytest

from pylivepatch import CheckError
from pylivepatch.sequence.check import run_check


def test_checks() -> None:
    """A check that succeeds says nothing; one that fails says why, and what it said."""
    run_check('test "$PYLIVEPATCH_PATCH" = fix', None, "fix")
    run_check(("true",), 30.0, "fix")
    for command, words in (
        ("echo broken >&2; exit 7", "exit status 7: .*its output: broken"),
        ("kill -9 $$", "killed by signal 9"),
        (("/nonexistent", "x"), "could not be started: No such file"),
    ):
        with pytest.raises(CheckError, match=words):
            run_check(command, 30.0, "fix")


def test_a_check_that_takes_too_long() -> None:
    """It is killed with its children, and nothing waits for them."""
    with pytest.raises(CheckError, match=r"longer than 0\.01 s"):
        run_check("sleep 1000 & sleep 1000", 0.01, "fix")
