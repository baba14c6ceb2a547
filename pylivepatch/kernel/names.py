# SPDX-License-Identifier: MIT
"""Names of patches and parameters, checked before the kernel is asked anything."""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING

from pylivepatch.errors import BadDataError

if TYPE_CHECKING:
    from collections.abc import Mapping

LONGEST = 55
"""KLPCTL_NAME_LEN. Written here, too, so that module files are read where the shim is not compiled; a test compares."""
LONGEST_WINDOW = 4_000_000.0
_NAME = re.compile(r"[A-Za-z0-9_.]+\Z")
_PARAMETER = re.compile(r"[A-Za-z0-9_.-]+\Z")


def patch_name(name: str) -> str:
    """Check the name of a patch and spell it as the kernel does.

    Args:
        name: A module's name; "-" is the same as "_".

    Returns:
        The name with "_" for "-".

    Raises:
        BadDataError: It cannot be a module's name. Nothing was asked of the kernel.
    """
    if not isinstance(name, str):
        raise BadDataError(
            f"{name!r} is not the name of a patch: it is not a str",
            after="nothing was asked of the kernel",
            remedy="give the name of its module",
        )
    spelled = name.replace("-", "_")
    if not name:
        why = "it is empty"
    elif len(name) > LONGEST:
        why = f"it has {len(name)} characters, and {LONGEST} are allowed"
    elif not _NAME.match(spelled) or spelled in (".", ".."):
        why = "it may hold letters, digits, '_', '-' and '.' only"
    else:
        return spelled
    shown = name if len(name) <= LONGEST else name[:LONGEST] + "…"
    raise BadDataError(
        f"{shown!r} is not the name of a patch: {why}",
        after="nothing was asked of the kernel",
        remedy="give the name of its module",
    )


def module_options(params: Mapping[str, str | int | bool]) -> str:
    """Spell module parameters as the kernel reads them.

    Args:
        params: Values by name.

    Returns:
        ``a=1 b="two words"``.

    Raises:
        BadDataError: A name or a value that cannot be given to a module.
    """
    words = []
    for key, value in params.items():
        if not _PARAMETER.match(key):
            raise BadDataError(f"{key!r} is not the name of a module parameter")
        text = ("Y" if value else "N") if isinstance(value, bool) else str(value)
        if any(character in text for character in '"\0\n'):
            raise BadDataError(f"parameter {key}: quotes, newlines and NUL cannot be passed")
        # The kernel ends a word at whatever is a space in Latin-1, and so within some letters of UTF-8.
        bare = text.isascii() and not any(character.isspace() for character in text)
        words.append(f"{key}={text}" if bare else f'{key}="{text}"')
    return " ".join(words)


def confirm_seconds(window: float | None, *, owned: bool) -> float | None:
    """Check a time to confirm in: seconds, infinite when the patch has an owner, or None.

    Raises:
        BadDataError: It is neither.
    """
    if window is None or (owned and window == math.inf) or (_is_number(window) and 0 < window < LONGEST_WINDOW):
        return window
    raise BadDataError(
        f"invalid confirm_within: {window}",
        after="nothing has changed",
        remedy=f"give seconds above 0 and below {LONGEST_WINDOW:.0f}, or infinity with owned",
    )


def timeout_seconds(timeout: float | None) -> float | None:
    """Check a deadline: seconds above 0, or None (and infinity) for no deadline.

    Raises:
        BadDataError: It is neither.
    """
    if timeout is None or timeout == math.inf:
        return None
    if not _is_number(timeout) or not timeout > 0:
        raise BadDataError(f"timeout {timeout} is not above 0", remedy="give seconds, or None to wait for ever")
    return float(timeout)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float)
