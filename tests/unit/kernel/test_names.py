# SPDX-License-Identifier: MIT
"""Names and numbers are checked before the kernel is asked anything."""

from __future__ import annotations

import math
from typing import Any

import pytest

from pylivepatch import BadDataError
from pylivepatch._shim import lib
from pylivepatch.kernel.names import LONGEST, confirm_seconds, module_options, patch_name, timeout_seconds


def test_dashes_are_underscores() -> None:
    """A name is spelled as the kernel spells it."""
    assert patch_name("livepatch-fix_1") == "livepatch_fix_1"


def test_longest_name() -> None:
    """A name may be as long as the kernel allows."""
    assert patch_name("x" * LONGEST) == "x" * LONGEST


@pytest.mark.parametrize(
    "name",
    ["", " ", "two words", "../x", "..", ".", "a/b", "nul\0", "new\n", "ü", "x" * 56, "x" * 300, None, 1, b"fix"],
)
def test_bad_names(name: Any) -> None:
    """What cannot be a module's name is refused, with the reason, and never echoed at length."""
    with pytest.raises(BadDataError, match="is not the name of a patch") as error:
        patch_name(name)
    assert len(str(error.value)) < 250
    assert "nothing was asked of the kernel" in str(error.value)


def test_options() -> None:
    """Parameters are spelled as the kernel reads them."""
    assert module_options({}) == ""
    assert module_options({"a": 1, "b": True, "c": "two words"}) == 'a=1 b=Y c="two words"'
    assert module_options({"a": "x\ry=1", "b": "à"}) == 'a="x\ry=1" b="à"'


@pytest.mark.parametrize("params", [{"a b": 1}, {"a": "x\ny"}, {"a": 'x"'}, {"": 1}, {"a=b": 1}])
def test_bad_options(params: dict[str, str | int | bool]) -> None:
    """Parameters that would be read as something else are refused."""
    with pytest.raises(BadDataError):
        module_options(params)


def test_timeouts() -> None:
    """None and infinity are no deadline; what is not above 0 is refused."""
    assert timeout_seconds(None) is None
    assert timeout_seconds(math.inf) is None
    assert timeout_seconds(2) == 2.0
    bad: Any
    for bad in (0, -1, math.nan, "5", [1]):
        with pytest.raises(BadDataError):
            timeout_seconds(bad)
        with pytest.raises(BadDataError):
            confirm_seconds(bad, owned=True)


def test_the_longest_name_is_the_kernels() -> None:
    """The number that stands in Python, too, is that of the header."""
    assert lib.KLPCTL_NAME_LEN == LONGEST
