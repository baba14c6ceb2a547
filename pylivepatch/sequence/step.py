# SPDX-License-Identifier: MIT
"""The steps of a sequence, and what becomes of them."""

from __future__ import annotations

import dataclasses
import enum
import os
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pylivepatch.errors import BadDataError
from pylivepatch.kernel.names import confirm_seconds, module_options, patch_name, timeout_seconds

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from pylivepatch.errors import LivepatchError, TransitionTimeoutError
    from pylivepatch.preflight import Finding
    from pylivepatch.state import PatchState
    from pylivepatch.transition import OnTimeout

NOTHING = "nothing has changed"
_ACTIONS = ("enable", "revert")
_POLICIES = ("reverse", "report")


@dataclasses.dataclass(frozen=True)
class Step:
    """One step of a sequence; nonsense is refused when it is made.

    Attributes:
        file: The module file of the patch, as a `pathlib.Path`; loaded unless it is loaded already.
        name: The name of a loaded patch, in place of a file.
        action: "enable" or "revert".
        params: Module parameters, for a file.
        timeout: Seconds for the transition; None, or infinite, waits for ever.
        on_timeout: "reverse" reverses the transition, and the step has failed;
            "report" says so once, and goes on waiting.
        check: A health check after the action, a shell's command line or a program
            with its arguments; the step has failed when it fails.
        check_timeout: Seconds for the check; None waits for ever.
        confirm_within: Seconds from the start of the enable within which the whole
            sequence has to end; otherwise the kernel reverts the patch. Needs klpctl.
    """

    file: str | os.PathLike[str] | None = None
    name: str | None = None
    action: Literal["enable", "revert"] = "enable"
    params: Mapping[str, str | int | bool] = dataclasses.field(default_factory=dict)
    timeout: float | None = 30.0
    on_timeout: OnTimeout = "reverse"
    check: str | tuple[str, ...] | None = None
    check_timeout: float | None = 30.0
    confirm_within: float | None = None

    def __post_init__(self) -> None:
        if self.file is not None:
            object.__setattr__(self, "file", Path(self.file))
        _check(self)


class Outcome(enum.StrEnum):
    """What has become of a step."""

    PENDING = "pending"
    """It was not reached; nothing has changed by it."""
    DONE = "done"
    """The patch is as the step wants it."""
    UNCHANGED = "unchanged"
    """The patch was so already; undoing does not touch it."""
    FAILED = "failed"
    """It failed; what it changed was undone, unless ``undo_error`` says otherwise."""
    INTERRUPTED = "interrupted"
    """It was interrupted, as by Ctrl-C, and undone likewise."""
    UNDONE = "undone"
    """It was done, and undone."""
    NOT_UNDONE = "not undone"
    """It was done, and could not be undone: see ``undo_error``."""


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
        undo_error: Why it could not be undone.
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


def _check(step: Step) -> None:
    """Insist on a step that makes sense.

    Raises:
        BadDataError: It does not; the key is named.
    """
    if (step.file is None) == (step.name is None):
        raise bad("file, name", "exactly one of them is needed")
    if step.name is not None:
        _checked("name", lambda: patch_name(step.name or ""))
        if step.params:
            raise bad("params", "they are for a file that is loaded")
    if step.action not in _ACTIONS:
        raise bad("action", f"{step.action!r} is not {' or '.join(_ACTIONS)}")
    if step.on_timeout not in _POLICIES:
        raise bad("on_timeout", f"{step.on_timeout!r} is not {' or '.join(_POLICIES)}")
    _checked("params", lambda: module_options(step.params))
    _checked("timeout", lambda: timeout_seconds(step.timeout))
    _checked("check_timeout", lambda: timeout_seconds(step.check_timeout))
    if step.confirm_within is not None:
        if step.action != "enable":
            raise bad("confirm_within", "only what is enabled can be confirmed")
        _checked("confirm_within", lambda: confirm_seconds(step.confirm_within, owned=True))
    if step.check is not None and not step.check:
        raise bad("check", "it is empty")
    if any("\0" in word for word in step.check or ()):
        raise bad("check", "a NUL cannot be passed")


def bad(key: str, reason: str) -> BadDataError:
    """Make the exception for a key of a step."""
    return BadDataError(f"{key}: {reason}", after=NOTHING, remedy="correct it")


def _checked(key: str, look: Callable[[], object]) -> None:
    try:
        look()
    except BadDataError as error:
        raise bad(key, error.message) from None
