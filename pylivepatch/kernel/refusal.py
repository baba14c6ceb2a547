# SPDX-License-Identifier: MIT
"""The one table that turns the kernel's error numbers into exceptions."""

from __future__ import annotations

import errno
import os
import re
from pathlib import Path
from typing import NamedTuple

from pylivepatch.errors import (
    AccessError,
    AlreadyError,
    KernelError,
    LivepatchError,
    PatchNotFoundError,
    PatchRejectedError,
    PatchStateError,
    SymbolError,
    TransitionBusyError,
    UnsupportedError,
)

_SYSFS = Path("/sys")
_PROC = Path("/proc")
_UNCHANGED = "nothing has changed"
_AS_BEFORE = "the kernel is as it was before"
_RELOAD = "unload its module and load it again"
_FTRACE_ON = "switch it on: sysctl kernel.ftrace_enabled=1"
_TAKEN = "a callback refused it, or something else, such as a kprobe, redirects one of its functions"
_BUILD = "build the patch for this kernel"


class _Row(NamedTuple):
    kind: type[LivepatchError]
    reason: str
    remedy: str = ""


_TABLE: dict[tuple[str, int], _Row] = {
    ("", errno.EPERM): _Row(AccessError, "root (CAP_SYS_MODULE) is needed", "run it as root"),
    ("", errno.EACCES): _Row(AccessError, "root (CAP_SYS_MODULE) is needed", "run it as root"),
    ("", errno.ENOENT): _Row(PatchNotFoundError, "there is no such patch", "load it first"),
    ("", errno.EBUSY): _Row(TransitionBusyError, "a transition is running", "try again when it has ended"),
    ("", errno.EOPNOTSUPP): _Row(UnsupportedError, "this kernel cannot do that for this patch", _RELOAD),
    ("enable", errno.EALREADY): _Row(AlreadyError, "it is already enabled, or being enabled", "nothing has to be done"),
    ("enable", errno.EINVAL): _Row(
        PatchRejectedError,
        "the livepatch core refused it: a function does not exist or its name is ambiguous",
        "see the kernel log",
    ),
    ("enable", errno.ENXIO): _Row(
        PatchRejectedError, "ftrace is switched off, and functions cannot be patched", _FTRACE_ON
    ),
    ("enable", errno.ECANCELED): _Row(PatchRejectedError, _TAKEN, "see the kernel log"),
    ("enable", errno.EOPNOTSUPP): _Row(UnsupportedError, "it cannot be enabled again as it is", _RELOAD),
    ("confirm", errno.EINVAL): _Row(
        PatchStateError, "no confirmation is awaited, or its time is over", "enable it with a time to confirm in"
    ),
    ("revert", errno.EALREADY): _Row(
        AlreadyError, "it is not enabled, or already being disabled", "nothing has to be done"
    ),
    ("force", errno.EINVAL): _Row(
        PatchStateError, "it is not in transition", "only a running transition can be forced"
    ),
    ("force", errno.EALREADY): _Row(
        PatchStateError, "it is not in transition", "only a running transition can be forced"
    ),
    ("load", errno.EPERM): _Row(AccessError, "root (CAP_SYS_MODULE) is needed, and no lockdown", "run it as root"),
    ("load", errno.EEXIST): _Row(
        PatchRejectedError, "its init function says that it exists already", "see the kernel log"
    ),
    ("load", errno.ENOENT): _Row(PatchRejectedError, "it needs a symbol or a module that is not there", _BUILD),
    ("load", errno.ELIBACC): _Row(
        UnsupportedError, "a module that it depends on is not installed", "install that module"
    ),
    ("load", errno.ENOEXEC): _Row(PatchRejectedError, "it is not a module for this kernel", _BUILD),
    ("load", errno.EINVAL): _Row(
        PatchRejectedError,
        "a parameter is wrong, or a function does not exist or its name is ambiguous",
        "see the kernel log",
    ),
    ("load", errno.EKEYREJECTED): _Row(PatchRejectedError, "its signature is damaged or not trusted", "sign it again"),
    ("load", errno.EBADMSG): _Row(PatchRejectedError, "its signature is damaged", "sign it again"),
    ("load", errno.ENOKEY): _Row(
        PatchRejectedError,
        "it is signed with a key that this kernel does not know",
        "enrol the key",
    ),
    ("unload", errno.ENOENT): _Row(PatchNotFoundError, "no such module is loaded"),
    ("unload", errno.EBUSY): _Row(PatchRejectedError, "its module is in use"),
    ("unload", errno.EWOULDBLOCK): _Row(PatchRejectedError, "its module is in use"),
}

_WHO = {
    "enable": "the livepatch core or a pre-patch callback refused it: ",
    "load": "its init function or the kernel refused it: ",
}


def refusal(
    number: int,
    verb: str,
    name: str,
    *,
    extack: str = "",
    busy: str | None = None,
    filename: str | None = None,
) -> LivepatchError:
    """Make the exception for an error number.

    Args:
        number: The error number, positive.
        verb: What was tried: "enable", "revert", "force", "load", "unload", "read".
        name: The patch, or what else the operation was about.
        extack: The kernel's own words.
        busy: Name of the patch in transition, for EBUSY.
        filename: The file concerned.

    Returns:
        The exception, to be raised.
    """
    row = _TABLE.get((verb, number)) or _TABLE.get(("", number))
    if number == errno.EBUSY and busy is None:
        # What ftrace says to the core without words (7162431dcf72, 5.6); klpctl tells it from the rest.
        if verb in ("enable", "load") and not ftrace_enabled():
            row = _TABLE["enable", errno.ENXIO]
        elif verb == "load":
            row = _TABLE["enable", errno.ECANCELED]
    if row is None:
        kind: type[LivepatchError] = KernelError if verb == "read" else PatchRejectedError
        who = _WHO.get(verb, "")
        row = _Row(kind, f"{who}{os.strerror(number)} (errno {number})", "see the kernel log")
    why = row.reason
    if row.kind is TransitionBusyError:
        why = f"patch {busy} is in transition" if busy else "the kernel still holds its module"
    message = f"cannot {verb} {name}: {why}"
    if issubclass(row.kind, KernelError):
        after = _AS_BEFORE if row.kind is PatchRejectedError else _UNCHANGED
        error = row.kind(message, errno=number, filename=filename, extack=extack, after=after, remedy=row.remedy)
        if isinstance(error, TransitionBusyError):
            error.patch = busy
        return error
    if extack:
        message = f"{message} (the kernel says: {extack})"
    if row.kind is UnsupportedError:
        return UnsupportedError(message, feature=verb, remedy=row.remedy)
    return row.kind(message, after=_UNCHANGED, remedy=row.remedy)


def ftrace_enabled(proc: Path = _PROC) -> bool:
    """Tell whether ftrace lets functions be patched; True when that cannot be read.

    Args:
        proc: The mount point of procfs.

    Source: /proc/sys/kernel/ftrace_enabled (2.6.27).
    """
    try:
        return (proc / "sys/kernel/ftrace_enabled").read_text().strip() != "0"
    except OSError:
        return True


def no_klpctl(what: str, feature: str, sysfs: Path = _SYSFS) -> UnsupportedError:
    """Make the exception for a family that the kernel does not know.

    Args:
        what: What does not work for that.
        feature: The feature that is missing.
        sysfs: The mount point of sysfs, which all network namespaces see alike.

    Returns:
        The exception, to be raised.
    """
    # The family is in the initial network namespace only.
    if (sysfs / "module/klpctl").is_dir():
        return UnsupportedError(
            f"{what}: the module klpctl is loaded, but cannot be reached from this network namespace",
            feature=feature,
            remedy="run it in the initial network namespace (nsenter -t 1 -n), or use the backend sysfs",
        )
    return UnsupportedError(
        f"{what}: the module klpctl is not loaded, and cannot be loaded from here",
        feature=feature,
        remedy="install klpctl and load it as root, or use the backend sysfs",
    )


# As klp_find_object_symbol() of kernel/livepatch/core.c says it (6.1 to 6.12).
_SYMBOL = (
    (re.compile(r"symbol '([^']+)' not found"), "does not exist in this kernel"),
    (re.compile(r"symbol position \d+ for symbol '([^']+)'"), "does not exist at that sympos"),
    (re.compile(r"unresolvable ambiguity for symbol '([^']+)'"), "has an ambiguous name"),
)


# As the patch itself says it, before it replaces anything.
_ANOTHER_BUILD = re.compile(r": made for another build of (?:the module (\S+)|this kernel): ")


def explain(error: PatchRejectedError, log: list[str]) -> PatchRejectedError:
    """Add the kernel's log to a refusal; name the function, or the module, if the log names one.

    Args:
        error: The refusal.
        log: Lines of the kernel log.

    Returns:
        The same exception, or a `SymbolError` in its place.
    """
    error.log = tuple(log)
    for line in log:
        if found := _ANOTHER_BUILD.search(line):
            what = f"the module {found[1]}" if found[1] else "the kernel"
            why = f"{what} that is here is not the build that the patch was proved against"
            better = PatchRejectedError(
                f"{error.message.partition(':')[0]}: {why}",
                errno=error.errno or errno.ENOEXEC,
                filename=error.filename if isinstance(error.filename, str) else None,
                extack=error.extack,
                after=error.after,
                remedy=f"build the patch against {'that module' if found[1] else 'that kernel'}",
            )
            better.log = (line,)
            return better
        for pattern, why in _SYMBOL:
            if found := pattern.search(line):
                better = SymbolError(
                    f"{error.message.partition(':')[0]}: function {found[1]} {why}",
                    errno=error.errno or errno.EINVAL,
                    filename=error.filename if isinstance(error.filename, str) else None,
                    extack=error.extack,
                    after=error.after,
                    remedy="name the function, and its sympos, as /proc/kallsyms does",
                )
                better.func = found[1]
                better.log = (line,)
                return better
    return error
