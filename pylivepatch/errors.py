# SPDX-License-Identifier: MIT
"""What can go wrong, in one tree under `LivepatchError`.

Each exception names the thing, the reason, the state things are in afterwards
(`after`) and the way out (`remedy`). What the kernel refused keeps its `errno`
and the kernel's own words (`extack`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pylivepatch.state import Blocker, PatchState, Progress

__all__ = [
    "AccessError",
    "AlreadyError",
    "BadDataError",
    "BuildError",
    "CheckError",
    "ClosedError",
    "ConfirmationExpiredError",
    "KernelError",
    "LivepatchError",
    "MismatchError",
    "ModuleFileError",
    "PatchNotFoundError",
    "PatchRejectedError",
    "PatchStateError",
    "SymbolError",
    "TransitionBusyError",
    "TransitionReversedError",
    "TransitionTimeoutError",
    "UnsupportedError",
]


class LivepatchError(Exception):
    """Base of everything that pylivepatch raises; never raised itself.

    Attributes:
        message: What failed, and why.
        after: The state things are in now.
        remedy: What to do about it.
    """

    def __init__(self, message: str, *, after: str = "", remedy: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.after = after
        self.remedy = remedy

    def __reduce__(self) -> tuple[object, ...]:
        # Exceptions travel between processes; those here have keyword arguments.
        args = self.args
        if isinstance(self, OSError) and self.filename is not None:
            args = (*args, self.filename)
        return _restore, (type(self), args), self.__dict__

    def __str__(self) -> str:
        return "; ".join(part for part in (self.message, self.after, self.remedy) if part)


def _restore(kind: type[LivepatchError], args: tuple[object, ...]) -> LivepatchError:
    error = kind.__new__(kind, *args)
    if isinstance(error, OSError):
        OSError.__init__(error, *args)
    else:
        Exception.__init__(error, *args)
    return error


class KernelError(LivepatchError, OSError):
    """The kernel refused an operation. Report what no subclass explains.

    Attributes:
        errno: The kernel's error number.
        filename: The file concerned, if there is one.
        extack: The kernel's own words, of netlink's extended acknowledgement, or "".
        log: What the livepatch core wrote to the kernel log meanwhile; empty for
            those who may not read it.
    """

    log: tuple[str, ...] = ()

    def __init__(
        self,
        message: str,
        *,
        errno: int,
        filename: str | None = None,
        extack: str = "",
        after: str = "",
        remedy: str = "",
    ) -> None:
        if filename is None:
            OSError.__init__(self, errno, message)
        else:
            OSError.__init__(self, errno, message, filename)
        self.message = message
        self.after = after
        self.remedy = remedy
        self.extack = extack

    def __str__(self) -> str:
        text = LivepatchError.__str__(self)
        words = "; ".join(self.log) or self.extack
        return f"{text} (the kernel says: {words})" if words else text


class AccessError(KernelError, PermissionError):
    """The caller may not do that: run as root. Nothing has changed."""


class TransitionBusyError(KernelError):
    """Another patch is in transition, and there is one at a time: retry later.

    Nothing has changed.

    Attributes:
        patch: Name of the patch in transition; None when it ended meanwhile.
    """

    patch: str | None = None


class PatchRejectedError(KernelError):
    """The kernel refused the patch: fix the patch. The kernel is as before."""


class PatchStateError(PatchRejectedError):
    """The patch is not in a state for that: enabled already, not enabled, in use.

    Nothing has changed. Callers that only want the result may ignore it.
    """


class AlreadyError(PatchStateError):
    """The patch is so already: enabled, not enabled, confirmed, loaded. Nothing has changed.

    Programs that converge pass *if_needed*, which makes this a success.
    """


class SymbolError(PatchRejectedError):
    """A function that the patch replaces does not exist, or its name is ambiguous.

    Fix the patch: name a function of this kernel, or give its sympos. The kernel
    is as before.

    Attributes:
        func: Name of the function.
    """

    func: str = ""


class PatchNotFoundError(LivepatchError, KeyError):
    """There is no such patch, or no such module file. Nothing has changed."""


class ClosedError(LivepatchError, ValueError):
    """The `Core` is closed, or was opened by the process that forked this one: open another.

    Nothing was asked of the kernel.
    """


class BadDataError(LivepatchError, ValueError):
    """A name, a parameter or a number that cannot be right: fix your code.

    Nothing was asked of the kernel.
    """


class ModuleFileError(BadDataError):
    """The file is not a live patch module for this kernel. Nothing was loaded.

    Attributes:
        filename: The file.
    """

    def __init__(
        self, message: str, *, filename: str, after: str = "nothing has changed", remedy: str = ""
    ) -> None:
        super().__init__(f"{filename}: {message}", after=after, remedy=remedy)
        self.filename = filename


class TransitionTimeoutError(LivepatchError, TimeoutError):
    """The transition did not end before its deadline.

    With the policy "reverse" it was reversed, with "report" it goes on.

    Attributes:
        patch: Name of the patch.
        progress: The last progress before the deadline.
        reversed: Whether the transition was reversed.
        state: Where the patch stands now; in transition when "report" was asked
            for, or when the reversal did not end either.
        blockers: The tasks that held it up, or that hold the reversal up; empty
            for those who may not know.
    """

    def __init__(
        self,
        message: str,
        *,
        patch: str,
        progress: Progress,
        reversed: bool,  # noqa: A002
        state: PatchState,
        blockers: tuple[Blocker, ...] = (),
        after: str = "",
        remedy: str = "",
    ) -> None:
        LivepatchError.__init__(self, message, after=after, remedy=remedy)
        self.patch = patch
        self.progress = progress
        self.blockers = blockers
        self.reversed = reversed
        self.state = state


class BuildError(LivepatchError):
    """The diff cannot become a patch. Nothing was written.

    Attributes:
        kind: Why, in one word of a fixed set: the name of the rule that refused, for programs.
        symbol: The function, data or type it is about, or "".
        file: The source file it is about, or "".
    """

    def __init__(self, message: str, *, kind: str, symbol: str = "", file: str = "", remedy: str = "") -> None:
        super().__init__(message, after="nothing was written", remedy=remedy)
        self.kind = kind
        self.symbol = symbol
        self.file = file


class MismatchError(BuildError):
    """The code that was compiled is not the code that runs: other source, config, compiler or image."""


class CheckError(LivepatchError):
    """A health check failed after a patch was enabled; the patch was reverted."""


class TransitionReversedError(LivepatchError):
    """Somebody else reversed the transition; the reversal has ended.

    The patch is where it was before the transition: find out who did that.

    Attributes:
        patch: Name of the patch.
        state: Where the patch stands now.
    """

    def __init__(self, message: str, *, patch: str, state: PatchState, after: str = "", remedy: str = "") -> None:
        super().__init__(message, after=after, remedy=remedy)
        self.patch = patch
        self.state = state


class ConfirmationExpiredError(TransitionReversedError):
    """Nobody confirmed the patch in time, or its owner ended: the kernel reverts it.

    Enable it again, with more time.
    """


class UnsupportedError(LivepatchError):
    """This kernel, or this machine as it is, cannot do that. Nothing has changed.

    Attributes:
        feature: What is missing.
        since: First release of Linux or of klpctl that has it, or "".
    """

    def __init__(self, message: str, *, feature: str, since: str = "", remedy: str = "") -> None:
        super().__init__(message, after="nothing has changed", remedy=remedy)
        self.feature = feature
        self.since = since
