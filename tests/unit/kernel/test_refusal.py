# SPDX-License-Identifier: MIT
"""The table from error numbers to exceptions."""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING

import pytest

from pylivepatch import (
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
from pylivepatch.kernel import refusal as module
from pylivepatch.kernel.refusal import explain, ftrace_enabled, refusal

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize(
    ("verb", "number", "kind"),
    [
        ("enable", errno.EPERM, AccessError),
        ("revert", errno.EACCES, AccessError),
        ("enable", errno.ENOENT, PatchNotFoundError),
        ("enable", errno.EALREADY, AlreadyError),
        ("revert", errno.EALREADY, AlreadyError),
        ("force", errno.EINVAL, PatchStateError),
        ("enable", errno.EBUSY, TransitionBusyError),
        ("enable", errno.ECANCELED, PatchRejectedError),
        ("load", errno.EBUSY, PatchRejectedError),
        ("enable", errno.EOPNOTSUPP, UnsupportedError),
        ("enable", errno.EINVAL, PatchRejectedError),
        ("enable", errno.ENOMEDIUM, PatchRejectedError),
        ("load", errno.EPERM, AccessError),
        ("load", errno.ENOENT, PatchRejectedError),
        ("load", errno.ENOEXEC, PatchRejectedError),
        ("load", errno.EKEYREJECTED, PatchRejectedError),
        ("load", errno.ELIBACC, UnsupportedError),
        ("unload", errno.EAGAIN, PatchRejectedError),
        ("unload", errno.ENOENT, PatchNotFoundError),
        ("read", errno.EIO, KernelError),
    ],
)
def test_table(verb: str, number: int, kind: type[LivepatchError]) -> None:
    """Each error number has its exception, which names the verb, the patch and the state."""
    error = refusal(number, verb, "fix", extack="words of the kernel")
    assert type(error) is kind
    assert str(error).startswith(f"cannot {verb} fix: ")
    assert "words of the kernel" in str(error)
    assert error.after
    if isinstance(error, KernelError):
        assert error.errno == number


def test_busy_names_the_patch_in_transition() -> None:
    """EBUSY says whose transition is in the way."""
    error = refusal(errno.EBUSY, "enable", "fix", busy="other")
    assert isinstance(error, TransitionBusyError)
    assert error.patch == "other"
    assert "patch other is in transition" in str(error)


@pytest.mark.parametrize(
    ("line", "func", "why"),
    [
        ("livepatch: symbol 'f' not found in symbol table", "f", "does not exist"),
        ("livepatch: unresolvable ambiguity for symbol 'g' in object '(null)'", "g", "ambiguous"),
        (
            "livepatch: symbol position 9 for symbol 'h' in object 'vmlinux' not found",
            "h",
            "does not exist at that sympos",
        ),
    ],
)
def test_the_log_names_the_function(line: str, func: str, why: str) -> None:
    """A line of the kernel log about a symbol becomes a SymbolError."""
    error = refusal(errno.EINVAL, "enable", "fix")
    assert isinstance(error, PatchRejectedError)
    better = explain(error, ["livepatch: something else", line])
    assert isinstance(better, SymbolError)
    assert better.func == func
    assert why in str(better)
    assert better.errno == errno.EINVAL


def test_other_lines_are_kept() -> None:
    """Lines that name no function go with the refusal as they are."""
    error = refusal(errno.ENOMEDIUM, "enable", "fix")
    assert isinstance(error, PatchRejectedError)
    line = "livepatch: pre-patch callback failed for object 'vmlinux'"
    assert explain(error, [line]) is error
    assert error.log == (line,)
    assert line in str(error)


def test_ftrace_is_not_another_transition(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """EBUSY without a patch in transition, while ftrace is switched off, is told as that; by klpctl it is ENXIO."""
    switch = tmp_path / "sys/kernel/ftrace_enabled"
    switch.parent.mkdir(parents=True)
    assert ftrace_enabled(tmp_path), "unknown is not off"
    switch.write_text("0\n")
    assert not ftrace_enabled(tmp_path)
    monkeypatch.setattr(module, "ftrace_enabled", lambda: ftrace_enabled(tmp_path))
    for verb, number in (("load", errno.EBUSY), ("enable", errno.EBUSY), ("enable", errno.ENXIO)):
        error = refusal(number, verb, "fix")
        assert type(error) is PatchRejectedError
        assert "ftrace is switched off" in str(error)
    assert isinstance(refusal(errno.EBUSY, "load", "fix", busy="other"), TransitionBusyError)
    switch.write_text("1\n")
    assert isinstance(refusal(errno.EBUSY, "enable", "fix"), TransitionBusyError)


def test_a_function_that_is_taken_is_not_another_transition() -> None:
    """EBUSY of a load, while no patch is in transition, is told as what ftrace or a callback says."""
    error = refusal(errno.EBUSY, "load", "fix")
    assert type(error) is PatchRejectedError
    assert "redirects one of its functions" in str(error)
