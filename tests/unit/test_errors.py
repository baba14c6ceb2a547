# SPDX-License-Identifier: MIT
"""Exceptions name the thing, the reason, the state and the way out."""

from __future__ import annotations

import errno
import pickle

import pytest

import pylivepatch
from pylivepatch import (
    AccessError,
    KernelError,
    LivepatchError,
    ModuleFileError,
    PatchState,
    Progress,
    Target,
    TransitionTimeoutError,
    UnsupportedError,
)


def test_message() -> None:
    """The text of an exception has what, in which state, and what to do."""
    error = LivepatchError("cannot do x: y", after="nothing has changed", remedy="do z")
    assert str(error) == "cannot do x: y; nothing has changed; do z"


def test_kernel_error_keeps_everything() -> None:
    """errno, filename and extack survive, for those who catch OSError too."""
    error = KernelError("cannot x", errno=errno.EBUSY, filename="/sys/x", extack="busy, sorry")
    assert isinstance(error, OSError)
    assert (error.errno, error.filename, error.extack) == (errno.EBUSY, "/sys/x", "busy, sorry")
    assert str(error) == "cannot x (the kernel says: busy, sorry)"


def test_the_log_is_more_exact_than_extack() -> None:
    """Of two sources of words the message has those of the log."""
    error = KernelError("cannot x", errno=errno.EINVAL, extack="see the log")
    error.log = ("livepatch: a", "livepatch: b")
    assert str(error) == "cannot x (the kernel says: livepatch: a; livepatch: b)"


@pytest.mark.parametrize(
    "error",
    [
        KernelError("cannot x", errno=errno.EBUSY, filename="/sys/x", extack="busy", after="so"),
        AccessError("cannot x", errno=errno.EPERM, remedy="be root"),
        ModuleFileError("it is empty", filename="x.ko"),
        UnsupportedError("no x", feature="x", since="6.3"),
        TransitionTimeoutError(
            "too slow",
            patch="x",
            progress=Progress(Target.PATCHED, 3, 4, 1.5),
            reversed=True,
            state=PatchState.DISABLED,
        ),
    ],
)
def test_pickle(error: LivepatchError) -> None:
    """Exceptions reach another process as they were."""
    copy = pickle.loads(pickle.dumps(error))
    assert type(copy) is type(error)
    assert str(copy) == str(error)
    assert vars(copy) == vars(error)
    if isinstance(error, KernelError) and isinstance(copy, KernelError):
        assert (copy.errno, copy.filename) == (error.errno, error.filename)


def test_builtin_bases() -> None:
    """Each is also the built-in exception that one would expect."""
    assert issubclass(AccessError, PermissionError)
    assert issubclass(pylivepatch.PatchNotFoundError, LookupError)
    assert issubclass(pylivepatch.BadDataError, ValueError)
    assert issubclass(TransitionTimeoutError, TimeoutError)


def test_timeout_error() -> None:
    """A timeout carries the last progress and whether it was reversed."""
    progress = Progress(Target.PATCHED, 3, 4, 1.5)
    error = TransitionTimeoutError("too slow", patch="x", progress=progress, reversed=True, state=PatchState.DISABLED)
    assert error.progress.pending == 1
    assert error.reversed
    assert str(error) == "too slow"


def test_module_file_error() -> None:
    """The file is named first, and it is said that nothing has changed."""
    error = ModuleFileError("it is empty", filename="x.ko", remedy="build it")
    assert str(error) == "x.ko: it is empty; nothing has changed; build it"


def test_unsupported_error() -> None:
    """What is missing, and since when it would be there, can be asked."""
    error = UnsupportedError("no x", feature="x", since="6.3")
    assert (error.feature, error.since) == ("x", "6.3")
