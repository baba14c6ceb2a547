# SPDX-License-Identifier: MIT
# ruff: noqa: E501 (texts of diffs)
"""Diffs: the files that they mean, what they may touch, and what these become."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest

from pylivepatch import BadDataError, BuildError
from pylivepatch.build.diff import Applied, Diff, _Bench
from pylivepatch.build.source import Source
from pylivepatch.build.target import Target
from pylivepatch.build.tree import Tree

FILE = "".join(f"line {n}\n" for n in range(1, 21))
EDITED = FILE.replace("line 10\n", "line ten\n")
SOURCE = ("fs/proc/x.c", "mm/a.c", "kernel/b.c", "include/linux/a.h", "lib/string_x.c", "tools/lib/string_x.c",
          "Documentation/x.rst", "arch/x86/lib/insn_x.c", "mm/Makefile", "Makefile", "scripts/x.sh")  # fmt: skip


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    """A small source."""
    for name in SOURCE:
        path = tmp_path / "tree" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(FILE)
    return Tree(tmp_path / "tree", cast(Target, SimpleNamespace(release="6.1.0-test")))


@pytest.fixture
def against(tree: Tree, tmp_path: Path) -> Callable[..., Applied]:
    """Apply diffs, given as texts, to the small source."""

    def call(*texts: str, strip: int | None = None, fuzz: int = 0) -> Applied:
        names = []
        for number, text in enumerate(texts):
            names.append(tmp_path / f"{number}.diff")
            names[-1].write_text(text, errors="surrogateescape")
        before = snapshot(tree.path)
        try:
            return Diff.read(names, strip).against(tree, fuzz)
        finally:
            assert snapshot(tree.path) == before

    return call


def snapshot(top: Path) -> dict[str, bytes]:
    """Return all files of a directory."""
    return {str(path): path.read_bytes() for path in top.rglob("*") if path.is_file()}


HUNK = "@@ -9,3 +9,3 @@\n line 9\n-line 10\n+line ten\n line 11\n"


def text(old: str, new: str = "", hunk: str = HUNK) -> str:
    """Return a diff of one file."""
    return f"--- {old}\n+++ {new or old}\n{hunk}"


def made_by(tmp_path: Path, *argv: str) -> str:
    """Return the diff that a program makes of an old and a new source beside each other."""
    for name, content in (("linux-6.1.orig", FILE), ("linux-6.1", EDITED)):
        (tmp_path / name / "fs/proc").mkdir(parents=True)
        (tmp_path / name / "fs/proc/x.c").write_text(content)
        (tmp_path / name / "include/linux").mkdir(parents=True)
    (tmp_path / "linux-6.1/include/linux/new.h").write_text("int a;\n")
    return subprocess.run(argv, cwd=tmp_path, capture_output=True, text=True, check=False).stdout


def test_diff_of_two_directories(against: Callable[..., Applied], tmp_path: Path) -> None:
    """`diff -urN` has the names of both directories, and dates that tell what is new."""
    given = made_by(tmp_path, "diff", "-urNp", "linux-6.1.orig/", "linux-6.1/")
    assert "1970-01-01" in given
    found = {file.path: file for file in against(given).files}
    assert found["fs/proc/x.c"].texts == (FILE, EDITED)
    assert found["include/linux/new.h"].is_new
    assert set(found) == {"fs/proc/x.c", "include/linux/new.h"}


@pytest.mark.parametrize("options", [
    (), ("-c", "diff.mnemonicPrefix=true"), ("-c", "diff.noprefix=true"), ("-c", "core.quotePath=true"), ("show",),
    ("format-patch",),
])  # fmt: skip
def test_diffs_of_git(options: tuple[str, ...], against: Callable[..., Applied], tmp_path: Path) -> None:
    """With its prefixes, with others, and with none; a commit and a mail, too."""
    top = tmp_path / "repository"
    (top / "fs/proc").mkdir(parents=True)
    environment = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), "GIT_CONFIG_NOSYSTEM": "1"}

    def git(*words: str) -> str:
        config = ("-c", "user.name=n", "-c", "user.email=e@example.org")
        return subprocess.run(["git", *config, *words], cwd=top, env=environment, capture_output=True, text=True,
                              check=True).stdout  # fmt: skip

    git("init", "-q")
    (top / "fs/proc/x.c").write_text(FILE)
    git("add", ".")
    git("commit", "-qm", "first")
    (top / "fs/proc/x.c").write_text(EDITED)
    if options in (("show",), ("format-patch",)):
        git("commit", "-qam", "fs: an edit\n\nrename from this\n@ -1 +1 @")
        given = git("show") if options == ("show",) else git("format-patch", "-1", "--stdout")
    else:
        given = git(*options, "diff")
    [file] = against(given).files
    assert (file.path, file.texts[1]) == ("fs/proc/x.c", EDITED)


@pytest.mark.parametrize("given", [
    text("a/fs/proc/x.c", "b/fs/proc/x.c"), text("fs/proc/x.c"), text("./fs/proc/x.c"), text("src.orig/fs/proc/x.c", "src/fs/proc/x.c"),
    text("i/fs/proc/x.c", "w/fs/proc/x.c"), text("fs/proc/x.c", "fs/proc/x.c.new"), text("fs/proc/x.c.orig", "fs/proc/x.c"),
    text("debian/fs/proc/x.c", "fs/proc/x.c"), text("/usr/src/linux.orig/fs/proc/x.c", "/usr/src/linux/fs/proc/x.c"),
    text('"a/fs/proc/x.c"', '"b/fs/proc/x\\056c"'), text("a//fs/proc/x.c", "b/fs//proc/x.c"),
    "Index: linux/fs/proc/x.c\n" + "=" * 67 + "\n" + text("linux.orig/fs/proc/x.c", "linux/fs/proc/x.c"),
    text("1/2/3/fs/proc/x.c"),
])  # fmt: skip
def test_where_names_begin(given: str, against: Callable[..., Applied]) -> None:
    """What the source has decides how many leading parts are left out."""
    [file] = against(given).files
    assert (file.path, file.texts) == ("fs/proc/x.c", (FILE, EDITED))


def test_names_that_fit_in_two_ways(against: Callable[..., Applied]) -> None:
    """What is usual is taken; where nothing is, it is asked for; what was asked for is done."""
    assert against(text("tools/lib/string_x.c") + text("mm/a.c")).ignored == ("tools/lib/string_x.c",)
    assert against(text("a/tools/lib/string_x.c", "b/tools/lib/string_x.c"), strip=2).files[0].path == "lib/string_x.c"
    with pytest.raises(BadDataError, match=r"several ways: tools/lib/string_x\.c \(-p 0\), lib/string_x\.c \(-p 1\)"):
        against(text("tools/lib/string_x.c", "tools/lib/string_x.c.new"))
    assert against(text("tools/lib/string_x.c", "tools/lib/string_x.c.new"), strip=1).files[0].path == "lib/string_x.c"


@pytest.mark.parametrize(("given", "file"), [
    (text("a/fs/proc/y.c", "b/fs/proc/y.c"), "fs/proc/y.c"),
    (text("a/fs/proc/x.c", "b/fs/proc/x.c") + text("a/kernel/none.c", "b/kernel/none.c"), "kernel/none.c"),
    (text("a/include/linux/none.h", "b/include/linux/none.h"), "include/linux/none.h"),
    (text("a/linux/fs/y.c", "b/linux/fs/y.c"), "linux/fs/y.c"),
    (text("a/fs/proc", "b/fs/proc"), "fs/proc"),
    (text("none.c"), "none.c"),
])
def test_a_file_that_the_source_has_not(given: str, file: str, against: Callable[..., Applied]) -> None:
    """It is said to be missing in the source, and never that the kernel is not concerned."""
    with pytest.raises(BuildError, match=f"the source of 6.1.0-test has no file {file}; .*-p N") as caught:
        against(given)
    assert (caught.value.kind, caught.value.file) == ("not-in-source", file)


def test_a_level_that_does_not_fit(against: Callable[..., Applied]) -> None:
    """It is named with the file that results."""
    with pytest.raises(BuildError, match=r"has no file proc/x\.c \(-p 2\)"):
        against(text("a/fs/proc/x.c", "b/fs/proc/x.c"), strip=2)


@pytest.mark.parametrize("given", [
    text("../x.c"), text("a/../../x.c", "b/../../x.c"), text("/etc/passwd"), text("/etc/passwd", "fs/proc/../../x"),
    text("fs/proc/x.c", "../y.c"), text("mm/a.c", "kernel/b.c"),
])
def test_names_outside_of_the_source(given: str, against: Callable[..., Applied]) -> None:
    """They are refused, and so is a change that names two files."""
    with pytest.raises(BadDataError, match=r"outside of the kernel's source|two files that both exist"):
        against(given)


def test_links_are_not_followed(against: Callable[..., Applied], tree: Tree, tmp_path: Path) -> None:
    """Neither a file that is one, nor one in a directory that is one, nor one that leads outside."""
    (tmp_path / "outside.c").write_text(FILE)
    (tree.path / "fs/link.c").symlink_to(tmp_path / "outside.c")
    (tree.path / "fs/inner").symlink_to("proc")
    for name in ("fs/link.c", "fs/inner/x.c"):
        with pytest.raises(BuildError, match="is a link") as caught:
            against(text(f"a/{name}", f"b/{name}"))
        assert caught.value.kind == "not-in-source"
    assert (tmp_path / "outside.c").read_text() == FILE


def test_what_is_no_code_of_the_kernel_is_left_out(against: Callable[..., Applied]) -> None:
    """It is named; a diff of nothing else changes no code."""
    found = against(text("a/mm/a.c", "b/mm/a.c") + text("a/Documentation/x.rst", "b/Documentation/x.rst") + text("a/arch/arm64/mm/a.c", "b/arch/arm64/mm/a.c"))
    assert [file.path for file in found.files] == ["mm/a.c"]
    assert found.ignored == ("Documentation/x.rst", "arch/arm64/mm/a.c")
    with pytest.raises(BuildError, match=r"changes no code of the kernel: Documentation/x\.rst") as caught:
        against(text("a/Documentation/x.rst", "b/Documentation/x.rst"))
    assert caught.value.kind == "nothing"
    mode = "diff --git a/mm/a.c b/mm/a.c\nold mode 100644\nnew mode 100755\n"
    with pytest.raises(BuildError, match=r"changes no code .*: it changes the mode of a file"):
        against(mode)
    assert against(mode + text("a/mm/a.c", "b/mm/a.c")).notes


SERIES = {
    "a header": ("include/linux/new.h", "--- /dev/null\n+++ b/include/linux/new.h\n@@ -0,0 +1 @@\n+int a;\n",
                 text("a/include/linux/new.h", "b/include/linux/new.h", "@@ -1 +1,2 @@\n int a;\n+int b;\n"), "int a;\nint b;\n"),
    "a changed file": ("mm/a.c", text("a/mm/a.c", "b/mm/a.c"), text("a/mm/a.c", "b/mm/a.c", HUNK.replace("line ten", "line X").replace("line 10", "line ten")),
                       FILE.replace("line 10\n", "line X\n")),
}  # fmt: skip


@pytest.mark.parametrize("together", [True, False])
@pytest.mark.parametrize(("path", "first", "second", "after"), SERIES.values(), ids=SERIES)
def test_a_series(path: str, first: str, second: str, after: str, together: bool, against: Callable[..., Applied]) -> None:
    """A later diff builds upon an earlier one, in one file or in two: a file may be added by 1 and changed by 2."""
    [file] = against(first + second).files if together else against(first, second).files
    assert (file.path, file.texts[1]) == (path, after)
    assert file.is_new == (path == "include/linux/new.h")


def test_what_is_made_and_taken_back(against: Callable[..., Applied]) -> None:
    """It comes to nothing."""
    back = text("a/mm/a.c", "b/mm/a.c", HUNK.replace("-line 10", "+line 10").replace("+line ten", "-line ten"))
    with pytest.raises(BuildError, match="changes no code"):
        against(text("a/mm/a.c", "b/mm/a.c"), back)
    new = "--- /dev/null\n+++ b/include/linux/new.h\n@@ -0,0 +1 @@\n+int a;\n"
    gone = "--- a/include/linux/new.h\n+++ /dev/null\n@@ -1 +0,0 @@\n-int a;\n"
    assert [file.path for file in against(new, text("a/mm/a.c", "b/mm/a.c"), gone).files] == ["mm/a.c"]


@pytest.mark.parametrize(("path", "kind"), [
    ("mm/Kconfig", "build-system"), ("mm/Makefile", "build-system"), ("arch/x86/lib/memcpy_64.S", "assembly"),
    ("arch/x86/entry/vdso/vma.c", "vdso"), ("lib/vdso/gettimeofday.c", "vdso"), ("kernel/livepatch/core.c", "patching-itself"),
    ("kernel/trace/ftrace.c", "patching-itself"), ("arch/x86/kernel/alternative.c", "patching-itself"),
    ("lib/string.c", "patching-itself"), ("arch/x86/kernel/asm-offsets_64.c", "assembly"), ("kernel/bounds.c", "assembly"),
])  # fmt: skip
def test_what_no_patch_can_change(path: str, kind: str, against: Callable[..., Applied], tree: Tree) -> None:
    """It is refused by its path, with a way out."""
    (tree.path / path).parent.mkdir(parents=True, exist_ok=True)
    (tree.path / path).write_text(FILE)
    with pytest.raises(BuildError) as caught:
        against(text(f"a/{path}", f"b/{path}"))
    assert (caught.value.kind, caught.value.file) == (kind, path)
    assert caught.value.remedy


def test_files_that_go_and_come(against: Callable[..., Applied]) -> None:
    """Code that runs is not removed; a source that no Makefile knows comes along only where it is included."""
    gone = f"--- a/mm/a.c\n+++ /dev/null\n@@ -1,20 +0,0 @@\n{''.join(f'-{line}' for line in FILE.splitlines(True))}"
    with pytest.raises(BuildError, match=r"removes mm/a\.c") as caught:
        against(gone)
    assert caught.value.kind == "build-system"
    new = "--- /dev/null\n+++ b/mm/new.c\n@@ -0,0 +1 @@\n+int a;\n"
    with pytest.raises(BuildError, match="no Makefile") as caught:
        against(new)
    assert caught.value.kind == "build-system"
    including = text("a/mm/a.c", "b/mm/a.c", '@@ -1,2 +1,3 @@\n+#include "new.c"\n line 1\n line 2\n')
    assert {file.path for file in against(including + new).files} == {"mm/a.c", "mm/new.c"}
    with pytest.raises(BuildError, match="has already") as caught:
        against("--- /dev/null\n+++ b/mm/a.c\n@@ -0,0 +1 @@\n+int a;\n")
    assert caught.value.kind == "apply"


def test_context_that_differs(against: Callable[..., Applied]) -> None:
    """By default it is refused, and said what would do; with fuzz it is applied, and said."""
    hunk = "@@ -8,5 +8,5 @@\n line eight\n line 9\n-line 10\n+line ten\n line 11\n line 12\n"
    given = text("a/mm/a.c", "b/mm/a.c", hunk)
    with pytest.raises(BuildError, match=r"does not apply .*: hunk 1 of mm/a\.c, at line 8; .*--fuzz 2") as caught:
        against(given)
    assert (caught.value.kind, caught.value.file) == ("apply", "mm/a.c")
    found = against(given, fuzz=1)
    assert found.files[0].texts[1] == EDITED
    assert found.notes == ("hunk 1 of mm/a.c was applied at line 8 with fuzz 1",)
    with pytest.raises(BuildError) as caught:
        against(text("a/mm/a.c", "b/mm/a.c", HUNK.replace("line 10", "line none")))
    assert "--fuzz" not in str(caught.value)


def test_a_hunk_that_is_found_elsewhere(against: Callable[..., Applied]) -> None:
    """A note tells."""
    assert against(text("a/mm/a.c", "b/mm/a.c", HUNK.replace("-9,3 +9,3", "-5,3 +5,3"))).notes == (
        "hunk 1 of mm/a.c was applied at line 9 (offset 4 lines)",)


def test_what_is_there_already(against: Callable[..., Applied], tree: Tree) -> None:
    """It is told from what does not fit."""
    (tree.path / "mm/a.c").write_text(EDITED)
    with pytest.raises(BuildError, match=r"is in the source of this kernel already \(mm/a\.c\)") as caught:
        against(text("a/mm/a.c", "b/mm/a.c"))
    assert caught.value.kind == "apply"


def test_bytes_of_any_kind(against: Callable[..., Applied], tree: Tree) -> None:
    """Latin-1, form feeds and lone carriage returns come through as they are."""
    raw = b"a\xe4\n\x0c\nb\rc\nd\r\nlast"
    (tree.path / "mm/a.c").write_bytes(raw)
    hunk = b"@@ -1,5 +1,5 @@\n-a\xe4\n+a\xf6\x0c\n \x0c\n b\rc\n d\r\n-last\n\\ No newline at end of file\n+last\n"
    [file] = against(text("a/mm/a.c", "b/mm/a.c", hunk.decode(errors="surrogateescape"))).files
    assert file.after == b"a\xf6\x0c\n\x0c\nb\rc\nd\r\nlast\n"


def test_nothing_but_the_files_named_may_be_there_afterwards(tree: Tree, tmp_path: Path) -> None:
    """Whatever patch makes beside them, a link above all, ends the build."""
    for number, odd in enumerate((lambda top: (top / "mm/b").symlink_to("/etc/passwd"), lambda top: (top / "x").touch(),
                                  lambda top: os.mkfifo(top / "x"), lambda top: shutil.rmtree(top / "mm"))):
        (tmp_path / str(number) / "mm").mkdir(parents=True)
        (tmp_path / str(number) / "mm/a.c").write_text(EDITED)
        source = Source(tree)
        source.changed["mm/a.c"] = True
        bench = _Bench(source, tmp_path / str(number), 0, [])
        assert [file.path for file in bench.files()] == ["mm/a.c"]
        odd(tmp_path / str(number))
        with pytest.raises(BuildError, match="patch made"):
            bench.files()
