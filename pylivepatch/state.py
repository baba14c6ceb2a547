# SPDX-License-Identifier: MIT
"""What the kernel says about a patch, as plain values."""

from __future__ import annotations

import dataclasses
import enum

__all__ = ["Func", "Object", "PatchState", "PatchStatus", "Progress", "Target", "Task"]


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


@dataclasses.dataclass(frozen=True, slots=True)
class Func:
    """A function that a patch replaces.

    Attributes:
        name: The function's name.
        sympos: Its position among functions of the same name in its object, from
            1; 0 when the name is unique. Without klpctl 1 stands for both: sysfs
            does not tell them apart.
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
class PatchStatus:
    """A patch at one moment.

    Attributes:
        name: Name of the patch, which is its module's name.
        state: Where it stands.
        registered: Registered with klpctl, so that loading it changed nothing;
            otherwise an ordinary live patch module, which is enabled by loading.
        replace: Whether it replaces all patches before it; None when that cannot
            be told (without klpctl before 6.11).
        forced: Whether a transition of it was forced; its module can never be
            unloaded then. False when that cannot be told (without klpctl).
        objects: What it changes.
        progress: How far its transition has come; None when it is in none.
        started: CLOCK_MONOTONIC time in seconds at which that transition
            started; None when that is not known.
    """

    name: str
    state: PatchState
    registered: bool
    replace: bool | None
    forced: bool
    objects: tuple[Object, ...]
    progress: Progress | None
    started: float | None = None
