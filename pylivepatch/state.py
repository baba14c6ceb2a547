# SPDX-License-Identifier: MIT
"""What the kernel reports, as plain values: patches, transitions, tasks, and its own abilities."""

from __future__ import annotations

import dataclasses
import enum
from typing import TYPE_CHECKING, Self

from pylivepatch.errors import BadDataError, UnsupportedError

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = [
    "Blocker",
    "Features",
    "Func",
    "Missing",
    "Object",
    "PatchState",
    "PatchStatus",
    "Progress",
    "Reason",
    "Target",
    "Task",
]


def printable(text: str, *, keep: str = "") -> str:
    r"""Spell what a terminal would obey, as \x1b, so that names of tasks and texts of modules are shown and no more."""
    return "".join(
        char if char.isprintable() or char in keep else char.encode("unicode_escape", "surrogatepass").decode()
        for char in text
    )


class PatchState(enum.StrEnum):
    """Where a patch stands."""

    REGISTERED = "registered"
    """Never enabled since it was registered."""
    ENABLING = "enabling"
    """In transition to patched."""
    ENABLED = "enabled"
    """All tasks run the new code."""
    DISABLING = "disabling"
    """In transition to unpatched."""
    DISABLED = "disabled"
    """Was enabled once; all tasks run the old code."""
    REPLACED = "replaced"
    """Another patch took its place by atomic replace."""

    @property
    def in_transition(self) -> bool:
        """Whether tasks are being switched."""
        return self in (PatchState.ENABLING, PatchState.DISABLING)


class Target(enum.StrEnum):
    """Where a transition leads."""

    UNPATCHED = "unpatched"
    """To the old code."""
    PATCHED = "patched"
    """To the new code."""


class Reason(enum.StrEnum):
    """Why a task has not switched, at its last try."""

    UNKNOWN = "unknown"
    """Not tried yet, or nobody could see why."""
    RUNNING = "running"
    """It was running on a CPU; the idle task of an idle CPU counts as running."""
    UNRELIABLE = "unreliable"
    """Its stack could not be walked reliably."""
    SLEEPING = "sleeping"
    """It sleeps in a function that changes, or in one that such a function called."""


@dataclasses.dataclass(frozen=True, slots=True)
class Func:
    """A function that a patch replaces.

    Attributes:
        name: The function's name.
        sympos: Its position among functions of the same name in its object, from
            1; 0 when the name is unique. For a standalone patch, and without
            klpctl, 1 stands for both: sysfs does not tell them apart.
    """

    name: str
    sympos: int = 0


@dataclasses.dataclass(frozen=True, slots=True)
class Object:
    """A part of the kernel that a patch changes.

    Attributes:
        name: "vmlinux", or the name of a module.
        funcs: The functions that are replaced in it.
    """

    name: str
    funcs: tuple[Func, ...] = ()


@dataclasses.dataclass(frozen=True, slots=True)
class Progress:
    """How far a transition has come.

    Attributes:
        target: Where it leads now; the opposite of where it started to when it
            was reversed.
        done: Tasks that have switched to the target.
        total: All tasks; 0 when only root may know (without klpctl).
        elapsed: Seconds since the transition started.
    """

    target: Target
    done: int
    total: int
    elapsed: float

    @property
    def pending(self) -> int:
        """Tasks that have not switched yet."""
        return self.total - self.done


@dataclasses.dataclass(frozen=True, slots=True)
class Task:
    """A task, as a transition sees it.

    Attributes:
        pid: Process (thread group).
        tid: Thread.
        comm: Its command name.
        pending: Whether it has still to switch.
        cpu: For an idle task its CPU, otherwise None.
    """

    pid: int
    tid: int
    comm: str
    pending: bool
    cpu: int | None = None


@dataclasses.dataclass(frozen=True, slots=True)
class Blocker:
    """A task that a transition waits for.

    Attributes:
        patch: The patch in transition.
        pid: Process (thread group); 0 for an idle task.
        tid: Thread; 0 for an idle task.
        comm: Its command name.
        reason: Why it has not switched.
        func: The function that it sleeps in, by its name in the object; None with
            another reason.
        stack: Where it sleeps, innermost first, without addresses; empty when it
            runs, or when that cannot be told.
        cpu: For an idle task its CPU, otherwise None.
    """

    patch: str
    pid: int
    tid: int
    comm: str
    reason: Reason
    func: str | None = None
    stack: tuple[str, ...] = ()
    cpu: int | None = None

    def __str__(self) -> str:
        who = f"{printable(self.comm)} (pid {self.pid}, tid {self.tid})"
        if self.cpu is not None:
            who = f"idle task of CPU {self.cpu}"
        where = f" in {printable(self.func)} of {self.patch}" if self.func else ""
        return f"{who}: {self.reason}{where}"


@dataclasses.dataclass(frozen=True, slots=True)
class PatchStatus:
    """A patch at one moment.

    Attributes:
        name: Name of the patch, which is its module's name.
        state: Where it stands.
        registered: Registered with klpctl, so that loading it changed nothing;
            otherwise a standalone patch, which is enabled by loading.
        replace: Whether it replaces all patches before it; None when that cannot
            be told (without klpctl before 6.11).
        forced: Whether tasks were forced to leave its code; its module can never be
            unloaded then. False when that cannot be told (without klpctl).
        objects: What it changes.
        progress: How far its transition has come; None when it is in none.
        started: CLOCK_MONOTONIC time in seconds at which that transition
            started; None when that is not known.
        confirm_until: CLOCK_MONOTONIC time in seconds at which the kernel reverts
            the patch unless it is confirmed; infinite when only its owner's end
            does that; None when no confirmation is awaited.
    """

    name: str
    state: PatchState
    registered: bool
    replace: bool | None
    forced: bool
    objects: tuple[Object, ...]
    progress: Progress | None
    started: float | None = None
    confirm_until: float | None = None

    @classmethod
    def absent(cls, name: str) -> Self:
        """The status of a patch that does not exist any more: disabled."""
        return cls(name, PatchState.DISABLED, False, None, False, (), None)


@dataclasses.dataclass(frozen=True, slots=True)
class Missing:
    """Why a feature is not there.

    Attributes:
        reason: What is missing.
        remedy: What would bring it.
        since: First release of Linux that has it, or "".
    """

    reason: str
    remedy: str = ""
    since: str = ""


def _feature(detail: str) -> bool:
    ability: bool = dataclasses.field(default=False, metadata={"detail": detail})
    return ability


@dataclasses.dataclass(frozen=True)
class Features:
    """What this kernel and this backend can do beyond the basics, each a bool; the rest is in `missing`.

    Attributes:
        kicks: Early retries since klpctl was loaded.
        reversals: Reversals of transitions since klpctl was loaded.
        missing: Name of each absent feature, with reason and remedy.
    """

    registered: bool = _feature("patches that are loaded without being enabled, and enabled again")
    events: bool = _feature("transitions of all patches are seen as they happen")
    fast: bool = _feature("transitions are retried early, and end in milliseconds")
    standalone: bool = _feature("objects of standalone patches are known to klpctl, which can revert them")
    idle: bool = _feature("idle tasks are counted and listed")
    reasons: bool = _feature("why a task has not switched is known, as the livepatch core found it")
    stacks: bool = _feature("where a task sleeps is known")
    reloc_clear: bool = _feature("a module that an enabled patch has relocations for can be removed and loaded again")
    progress: bool = _feature("the tasks done of all tasks are known")
    replace: bool = _feature("whether a patch replaces all others is known")
    kicks: int = 0
    reversals: int = 0
    missing: Mapping[str, Missing] = dataclasses.field(default_factory=dict, hash=False)

    def __post_init__(self) -> None:
        # A plain copy, so that the value can be pickled, copied and made a dict.
        object.__setattr__(self, "missing", dict(self.missing))

    def require(self, feature: str) -> None:
        """Insist on a feature.

        Args:
            feature: Name of one of the attributes.

        Raises:
            UnsupportedError: It is absent. Nothing has changed.
            BadDataError: There is no feature of that name.
        """
        if feature not in _DETAILS:
            raise BadDataError(f"unknown feature {feature!r}", remedy=f"give one of {', '.join(_DETAILS)}")
        if getattr(self, feature):
            return
        why = self.missing.get(feature, Missing("it is not there"))
        raise UnsupportedError(
            f"{feature} ({_DETAILS[feature]}) is not supported here: {why.reason}",
            feature=feature,
            since=why.since,
            remedy=why.remedy,
        )


_DETAILS: dict[str, str] = {
    field.name: field.metadata["detail"] for field in dataclasses.fields(Features) if "detail" in field.metadata
}
_BEFORE, _KICKS, _AFTER = (Features.__doc__ or "").partition("kicks:")
_INDENTATION = _BEFORE.rpartition("\n")[2]  # Python 3.13 takes what all lines have
Features.__doc__ = (
    _BEFORE + "".join(f"{name}: {text}.\n{_INDENTATION}" for name, text in _DETAILS.items()) + _KICKS + _AFTER)


def feature_names() -> tuple[str, ...]:
    """Name all features."""
    return tuple(_DETAILS)
