# SPDX-License-Identifier: MIT
"""What stands in the way of a patch, or is worth knowing, before anything is loaded.

Here: what is found. `checks` finds it, with `functions` and `symbols`, in a `candidate`.
"""

from __future__ import annotations

import dataclasses
import enum

from pylivepatch.state import printable

__all__ = ["Finding", "Severity", "Stage"]


class Severity(enum.StrEnum):
    """How much a finding matters."""

    FATAL = "fatal"
    """It cannot work: the kernel would refuse it."""
    WARNING = "warning"
    """It works, but perhaps not as expected."""
    INFO = "info"
    """Worth knowing; also what could not be checked, and why."""


class Stage(enum.StrEnum):
    """What a fatal finding stands in the way of.

    A standalone patch is enabled by being loaded, so everything
    stands in the way of that.
    """

    LOAD = "load"
    """The module cannot be loaded."""
    ENABLE = "enable"
    """It can be loaded, but its patch cannot be enabled as things are."""


@dataclasses.dataclass(frozen=True, slots=True)
class Finding:
    """One thing that the preflight found.

    Attributes:
        code: What kind of thing, for programs: "owner", "crc", "not-checked"…
        severity: How much it matters.
        subject: What it is about: a function, a module, a file of the kernel.
        message: What was found.
        remedy: What to do about it; "" when nothing has to be done.
        stage: What it stands in the way of, if it is fatal.
    """

    code: str
    severity: Severity
    subject: str
    message: str
    remedy: str = ""
    stage: Stage = Stage.LOAD

    def __str__(self) -> str:
        text = f"{self.severity}: {self.subject}: {self.message}"
        return printable(f"{text}; {self.remedy}" if self.remedy else text)
