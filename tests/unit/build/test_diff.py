# SPDX-License-Identifier: MIT
"""Diffs: what is one, what it may touch, and lines that keep their numbers."""

from __future__ import annotations

from pathlib import Path

import pytest

from pylivepatch import BadDataError, BuildError
from pylivepatch.build.diff import Diff, _keep_lines

HUNK = "@@ -1 +1 @@\n-a\n+b\n"


def text(path: str, old: str = "", new: str = "") -> str:
    """Return a diff of one file."""
    return f"--- {old or f'a/{path}'}\n+++ {new or f'b/{path}'}\n{HUNK}"


def test_files() -> None:
    """The files are named from the top of the tree, with what is not this kernel's left out."""
    found = Diff.parse(text("mm/a.c") + text("Documentation/x.rst") + text("arch/arm64/mm/a.c") + text("include/a.h"))
    assert [file.path for file in found.files] == ["mm/a.c", "include/a.h"]
    assert found.ignored == ("Documentation/x.rst", "arch/arm64/mm/a.c")


def test_a_new_header_may_come() -> None:
    """A header needs no Makefile."""
    [file] = Diff.parse(text("mm/new.h", old="/dev/null")).files
    assert file.is_new


@pytest.mark.parametrize(("given", "words"), [
    ("", "no unified diff"),
    ("hello\n", "no unified diff"),
    (text("../x.c"), "outside"),
    (text("x.c", "/etc/passwd", "/etc/passwd"), "outside"),
    ("Binary files a/x and b/x differ\n" + text("mm/a.c"), "binary"),
    ("rename from a.c\nrename to b.c\n" + text("mm/a.c"), "renames"),
])
def test_what_is_no_diff_of_the_source(given: str, words: str) -> None:
    """It is said what is wrong with it."""
    with pytest.raises(BadDataError, match=words):
        Diff.parse(given)


@pytest.mark.parametrize(("path", "kind"), [
    ("mm/Kconfig", "build-system"),
    ("mm/Makefile", "build-system"),
    ("arch/x86/lib/memcpy_64.S", "assembly"),
    ("arch/x86/entry/vdso/vma.c", "vdso"),
    ("lib/vdso/gettimeofday.c", "vdso"),
    ("kernel/livepatch/core.c", "patching-itself"),
    ("kernel/trace/ftrace.c", "patching-itself"),
    ("arch/x86/kernel/alternative.c", "patching-itself"),
    ("lib/string.c", "patching-itself"),
])
def test_what_no_patch_can_change(path: str, kind: str) -> None:
    """It is refused by its path, with a way out."""
    with pytest.raises(BuildError) as caught:
        Diff.parse(text(path))
    assert (caught.value.kind, caught.value.file) == (kind, path)
    assert caught.value.remedy


def test_a_diff_of_documents_only() -> None:
    """It changes nothing that runs."""
    with pytest.raises(BuildError, match="changes no code") as caught:
        Diff.joined([Diff.parse(text("Documentation/a.rst"))])
    assert caught.value.kind == "nothing"


def kept(tmp_path: Path, before: str, after: str) -> str:
    """Return the changed text with its #line marks."""
    (tmp_path / "old.c").write_text(before)
    (tmp_path / "new.c").write_text(after)
    _keep_lines(tmp_path / "old.c", tmp_path / "new.c")
    return (tmp_path / "new.c").read_text()


FUNCTIONS = "int a(void)\n{\n\treturn 1;\n}\n\nint b(void)\n{\n\treturn __LINE__;\n}\n"


def test_lines_after_a_change_keep_their_numbers(tmp_path: Path) -> None:
    """The mark stands after the function that changed, and tells the number of the line behind it."""
    made = kept(tmp_path, FUNCTIONS, FUNCTIONS.replace("return 1;", "int x = 1;\n\n\treturn x;"))
    assert made.index("#line 5\n") > made.index("return x;")
    assert made.index("#line 5\n") < made.index("int b(void)")


def test_no_mark_where_nothing_shifts(tmp_path: Path) -> None:
    """A change of one line by one line needs none."""
    assert "#line" not in kept(tmp_path, FUNCTIONS, FUNCTIONS.replace("return 1;", "return 2;"))


def test_no_mark_inside_a_macro(tmp_path: Path) -> None:
    """A definition that goes on over several lines is not torn."""
    before = "#define M(x) \\\n\tdo { \\\n\t\tx; \\\n\t} while (0)\n\nint a;\n"
    made = kept(tmp_path, before, before.replace("\t\tx; \\\n", "\t\tx; \\\n\t\tx; \\\n"))
    assert made.index("#line 6\n") > made.index("while (0)")
    assert made.endswith("#line 6\nint a;\n")
