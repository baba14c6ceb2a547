# SPDX-License-Identifier: MIT
"""What can go wrong in the lab, apart from the command itself."""

from __future__ import annotations

from pylivepatch.errors import LivepatchError


class LabError(LivepatchError):
    """The lab could not do its part; the command did not run, or nobody knows how it ended.

    The message names the thing, the reason and the way out. Nothing outside the lab's cache has changed.
    """


class GuestLostError(LabError):
    """The guest died, or was stopped because it hung, before the command's exit status arrived.

    Attributes:
        reason: What happened to the guest, in one sentence.
        console: The end of the guest's console, as text.

    This is never raised for a command that merely failed. Files in shared directories are as
    the guest left them.
    """

    def __init__(self, reason: str, console: str = "") -> None:
        self.reason = reason
        self.console = console
        tail = f"\n--- end of the guest's console ---\n{console}" if console else ""
        super().__init__(f"the guest was lost: {reason}{tail}")
