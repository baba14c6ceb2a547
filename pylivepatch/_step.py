# SPDX-License-Identifier: MIT
"""The steps of a sequence, and what becomes of them."""

from __future__ import annotations

import dataclasses
import enum
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pylivepatch import _sequence_file

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pylivepatch.errors import LivepatchError, TransitionTimeoutError
    from pylivepatch.preflight import Finding
    from pylivepatch.state import PatchState
    from pylivepatch.transition import OnTimeout


@dataclasses.dataclass(frozen=True)
class Step:
    """One step of a sequence; nonsense is refused when it is made.

    Attributes:
        file: The module file of the patch; loaded unless it is loaded already.
        name: The name of a loaded patch, in place of a file.
        action: "enable" or "revert".
        params: Module parameters, for a file.
        timeout: Seconds for the transition; None, or infinite, waits for ever.
        on_timeout: "reverse" turns the transition round, and the step has failed;
            "report" says so once, and goes on waiting.
        check: A health check after the action, a shell's command line or a program
            with its arguments; the step has failed when it fails.
        check_timeout: Seconds for the check; None waits for ever.
        confirm_within: Seconds from the start of the enable within which the whole
            sequence has to end; otherwise the kernel takes the patch back. Needs klpctl.
    """

    file: Path | None = None
    name: str | None = None
    action: Literal["enable", "revert"] = "enable"
    params: Mapping[str, str | int | bool] = dataclasses.field(default_factory=dict)
    timeout: float | None = 30.0
    on_timeout: OnTimeout = "reverse"
    check: str | tuple[str, ...] | None = None
    check_timeout: float | None = 30.0
    confirm_within: float | None = None

    def __post_init__(self) -> None:
        _sequence_file.check(self)


class Outcome(enum.StrEnum):
    """What has become of a step."""

    PENDING = "pending"
    """It was not reached; nothing has changed by it."""
    DONE = "done"
    """The patch is as the step wants it."""
    UNCHANGED = "unchanged"
    """The patch was so already; undoing does not touch it."""
    FAILED = "failed"
    """It failed; what it changed was taken back, unless ``undo_error`` says otherwise."""
    INTERRUPTED = "interrupted"
    """It was interrupted, as by Ctrl-C, and taken back likewise."""
    UNDONE = "undone"
    """It was done, and taken back."""
    NOT_UNDONE = "not undone"
    """It was done, and could not be taken back: see ``undo_error``."""


@dataclasses.dataclass
class StepReport:
    """What has become of a step, so far.

    Attributes:
        number: The step's number, from 1.
        step: The step.
        name: Name of its patch; "" until its file could be read.
        outcome: What has become of it.
        state: Where the patch stands, as of the last look; None: not loaded.
        duration: Seconds that the step took, checks included; None until it is done.
        error: Why it failed.
        undo_error: Why it could not be taken back.
        late: Whether its deadline has passed, and it goes on all the same.
    """

    number: int
    step: Step
    name: str = ""
    outcome: Outcome = Outcome.PENDING
    state: PatchState | None = None
    duration: float | None = None
    error: BaseException | None = None
    undo_error: LivepatchError | None = None
    late: TransitionTimeoutError | None = None


@dataclasses.dataclass(frozen=True, slots=True)
class PlannedStep:
    """What a step would do.

    Attributes:
        number: The step's number, from 1.
        step: The step.
        name: Name of its patch; "" when its file cannot be read.
        actions: What would be done, in order: "load", "enable", "revert", "check"; none
            when the patch is so already.
        error: What would stop it, as far as that can be told beforehand.
        findings: What the preflight found about a file that would be loaded.
    """

    number: int
    step: Step
    name: str
    actions: tuple[str, ...]
    error: LivepatchError | None = None
    findings: tuple[Finding, ...] = ()
