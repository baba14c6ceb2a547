# SPDX-License-Identifier: MIT
"""The shadow of a source: what is a link, what is not, and lines that keep their numbers."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import cast

import pytest

from pylivepatch.build.diff import FileDiff
from pylivepatch.build.shadow import _keep_lines, make_shadow
from pylivepatch.build.target import Target
from pylivepatch.build.tree import Tree
from pylivepatch.build.units import Unit


def test_a_shadow(tmp_path: Path) -> None:
    """The directories on the way to what changes are real, all else is a link, and nothing is written through one."""
    for name in ("fs/x.c", "fs/y.c", "mm/z.c", "include/linux/a.h", "arch/x86/b.c"):
        (tmp_path / "tree" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "tree" / name).write_text(name)
    tree = Tree(tmp_path / "tree", cast(Target, None))
    files = (FileDiff("fs/x.c", b"fs/x.c", b"new"), FileDiff("fs/new/n.c", None, b"n"))
    made = make_shadow(tree, tmp_path / "shadow", files, [Unit("fs/x.c", "vmlinux", "fs/x.o")])
    assert (made / "fs/x.c").read_text() == "new"
    assert (made / "fs/new/n.c").read_text() == "n"
    assert (made / "fs/y.c").resolve() == tree.path / "fs/y.c"
    assert (made / "mm/z.c").read_text() == "mm/z.c"
    assert (tree.path / "fs/x.c").read_text() == "fs/x.c"
    assert not (tree.path / "fs/new").exists()


def kept(tmp_path: Path, before: str, after: str) -> str:
    """Return the changed text with its #line marks."""
    (tmp_path / "old.c").write_text(before)
    (tmp_path / "new.c").write_text(after)
    _keep_lines(tmp_path / "old.c", tmp_path / "new.c")
    return (tmp_path / "new.c").read_text()


FUNCTIONS = "int a(void)\n{\n\treturn 1;\n}\n\nint b(void)\n{\n\treturn __LINE__;\n}\n"


def test_lines_after_a_change_keep_their_numbers(tmp_path: Path) -> None:
    """The mark stands behind what changed, and tells the number of the line behind it."""
    made = kept(tmp_path, FUNCTIONS, FUNCTIONS.replace("return 1;", "int x = 1;\n\n\treturn x;"))
    assert made.endswith("return x;\n#line 4\n}\n" + FUNCTIONS.partition("}\n")[2])


def test_no_mark_where_nothing_shifts(tmp_path: Path) -> None:
    """A change of one line by one line needs none."""
    assert "#line" not in kept(tmp_path, FUNCTIONS, FUNCTIONS.replace("return 1;", "return 2;"))


def test_no_mark_inside_a_macro(tmp_path: Path) -> None:
    """A definition that goes on over several lines is not torn."""
    before = "#define M(x) \\\n\tdo { \\\n\t\tx; \\\n\t} while (0)\n\nint a;\n"
    made = kept(tmp_path, before, before.replace("\t\tx; \\\n", "\t\tx; \\\n\t\tx; \\\n"))
    assert made.endswith("while (0)\n#line 5\n\nint a;\n")


BODY = """#include "a.h"
#ifdef OFF
int off;
#else
int on;
#endif
/* what is
   said */
static int warn(const char *text,
                int n);
\f
int last(void)
{
	return other("(", '"',
		1)
		+ __LINE__;
}
int end = __LINE__;
"""


@pytest.mark.parametrize(("before", "added"), [
    ("#include", "#include \"b.h\"\n"), ("#ifdef", "\n/* more */\n"), ("int off;", "int of2;\n"),
    ("#else", "/* ( */\n"),
    ("   said", "   being\n"), ("                int n", "                int m,\n"), ("\f", "\f\n/* \x0b\f */\n"),
    ("\t\t1", "\t\t0,\n"), ("int end", "int x;\n#if 0\n#endif\n"),
])
def test_no_line_moves(before: str, added: str, tmp_path: Path) -> None:
    """Wherever lines come, and wherever they go, what is behind them keeps its number."""
    for name in ("a.h", "b.h"):
        (tmp_path / name).write_text("")
    more = BODY.replace(before, added + before, 1)
    for one, other in ((BODY, more), (more, BODY)):
        kept(tmp_path, one, other)
        said = [subprocess.run(["cpp", tmp_path / name], check=True, capture_output=True, text=True).stdout
                for name in ("old.c", "new.c")]
        ends = [re.findall(r"[+=] (\d+)", text) for text in said]
        assert ends[0] == ends[1]


def test_changes_that_make_up_for_each_other(tmp_path: Path) -> None:
    """Two lines come, and two others go further below: what is between and behind them keeps its number."""
    text = "".join(f"int x{number} = __LINE__;\n" for number in range(9))
    kept(tmp_path, text, text.replace("int x2", "\n\nint x2").replace("int x5 = __LINE__;\nint x6 = __LINE__;\n", ""))
    said = subprocess.run(["cpp", tmp_path / "new.c"], check=True, capture_output=True, text=True).stdout
    assert re.findall(r"int x(\d) = (\d)", said) == [(str(n), str(n + 1)) for n in (0, 1, 2, 3, 4, 7, 8)]
