# SPDX-License-Identifier: MIT
"""What objtool and modpost say while a module is made."""

from __future__ import annotations

from pathlib import Path

import pytest

from pylivepatch import BuildError
from pylivepatch.build.evidence import _where
from pylivepatch.build.link import _heed


def test_names_that_are_resolved_later_are_expected() -> None:
    """modpost may not know what is resolved after it, in the words of each release."""
    _heed(
        'WARNING: modpost: "__klp_0" [/somewhere/fix.ko] undefined!\n'
        "WARNING: modpost: fix.ko: symbol '__klp_0' undefined!\n"
        "WARNING: modpost: fix.ko: missing MODULE_DESCRIPTION()\n"
        "WARNING: modpost: suppressed 3 unresolved symbol warnings because there were too many)\n",
        ["__klp_0"],
    )


@pytest.mark.parametrize(
    "line",
    [
        'WARNING: modpost: "other" [/somewhere/fix.ko] undefined!',
        "WARNING: modpost: fix.ko: symbol 'other' undefined!",
        "fix.o: warning: objtool: func(): unannotated intra-function call",
    ],
)
def test_other_complaints_are_errors(line: str) -> None:
    """objtool and modpost may complain and succeed all the same: the module would lack what they make."""
    with pytest.raises(BuildError, match="unfit for a patch"):
        _heed(line, ["__klp_0"])


@pytest.mark.parametrize(
    ("command", "where"),
    [
        ("gcc -Iinclude -c -o /made/fix.o /made/fix.c", "/headers"),
        ("gcc -Iinclude -c -o fix.o fix.c  ; /headers/tools/objtool/objtool --link fix.o", "/made"),
        ("ld -r -o fix.o @fix.mod", "/headers"),
    ],
)
def test_where_kbuild_works(command: str, where: str) -> None:
    """Commands that name a module's sources without a directory were run in the module's."""
    others = ["gcc -c -o .module-common.o /headers/scripts/module-common.c", ""]
    assert _where([*others, command], Path("/made"), Path("/headers")) == Path(where)
