# SPDX-License-Identifier: MIT
"""What pylivepatch can do on this kernel, and what would make it do more."""

from __future__ import annotations

import dataclasses
from types import MappingProxyType
from typing import TYPE_CHECKING

from pylivepatch.errors import BadDataError, UnsupportedError

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["Features", "Missing"]


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


_DETAILS = {
    "registered": "patches that are loaded without being enabled, and enabled again",
    "events": "transitions of all patches are seen as they happen",
    "fast": "transitions are retried early, and end in milliseconds",
    "foreign": "objects of ordinary live patch modules are known to klpctl",
    "idle": "idle tasks are counted and listed",
    "reasons": "why a task has not switched is known",
    "stacks": "where a task sleeps is told",
    "reloc_clear": "a module that a patch has relocations for can go and come again",
    "progress": "tasks done of total are known",
    "replace": "whether a patch replaces all others is known",
}


@dataclasses.dataclass(frozen=True)
class Features:
    """What is there, each a bool; what is not is in `missing` with its reason.

    Attributes:
        registered: Patches that are loaded without being enabled, and that can
            be enabled again without being loaded again.
        events: Transitions of all patches are seen as they happen.
        fast: Transitions are retried early, and end in milliseconds.
        foreign: Objects of ordinary live patch modules are known to klpctl,
            which can revert them.
        idle: Idle tasks are counted and listed.
        reasons: Why a task has not switched is known, as the livepatch core found it.
        stacks: Where a task sleeps is told with that.
        reloc_clear: A module that an enabled patch has relocations for can go and
            come again.
        progress: Tasks done of total are known.
        replace: Whether a patch replaces all others is known.
        kicks: Early retries since klpctl was loaded.
        reversals: Reversals of transitions since klpctl was loaded.
        missing: Name of each absent feature, with reason and remedy.
    """

    registered: bool = False
    events: bool = False
    fast: bool = False
    foreign: bool = False
    idle: bool = False
    reasons: bool = False
    stacks: bool = False
    reloc_clear: bool = False
    progress: bool = False
    replace: bool = False
    kicks: int = 0
    reversals: int = 0
    missing: Mapping[str, Missing] = dataclasses.field(default_factory=lambda: MappingProxyType({}))

    def require(self, feature: str) -> None:
        """Insist on a feature.

        Args:
            feature: Name of one of the attributes.

        Raises:
            UnsupportedError: It is absent. Nothing has changed.
            BadDataError: There is no feature of that name.
        """
        if feature not in _DETAILS:
            known = ", ".join(_DETAILS)
            raise BadDataError(f"no feature {feature!r}", remedy=f"take one of {known}")
        if getattr(self, feature):
            return
        why = self.missing.get(feature, Missing("it is not there"))
        raise UnsupportedError(
            f"{feature} ({_DETAILS[feature]}) is not supported here: {why.reason}",
            feature=feature,
            since=why.since,
            remedy=why.remedy,
        )


def names() -> tuple[str, ...]:
    """Name all features."""
    return tuple(_DETAILS)
