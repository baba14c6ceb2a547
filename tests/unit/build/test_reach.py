# SPDX-License-Identifier: MIT
"""Which sources a changed header concerns."""

from __future__ import annotations

from pathlib import Path
from typing import cast

import pytest

from pylivepatch.build.declarations import UnclearError, names
from pylivepatch.build.diff import FileDiff
from pylivepatch.build.reach import Reach, reach, users
from pylivepatch.build.target import Target
from pylivepatch.build.tree import Tree
from pylivepatch.build.units import Units
from pylivepatch.errors import BuildError

HEADER = """
#ifndef A_H
#define A_H
/* struct hidden; */
struct thing {
	int first;	// one
	unsigned second:3, third:5;
#ifdef CONFIG_MORE
	void (*call)(struct thing *, int);
#endif
	char text[SIZE] __aligned(8);
};
enum kind { KIND_A, KIND_B = 4, KIND_C };
#define SIZE 12
#define add(a, b) \\
	((a) + (b))
extern int count, limit;
int __must_check outer(struct thing *thing);
static __always_inline struct thing *inner(int a)
{
	if (a) { return 0; }
	return (struct thing *)1;
}
__printf(1, 2) void tell(const char *format, ...);
static const struct thing table[] = { { .first = 1 } };
#endif
"""


@pytest.mark.parametrize(("old", "new", "found"), [
    ("/* struct hidden; */", "/* another\n * comment */", set()),
    ("	int first;", "	int	first ;", set()),
    ("return (struct thing *)1;", "return (struct thing *)2;", {"inner"}),
    ("((a) + (b))", "((b) + (a))", {"add"}),
    ("#define SIZE 12", "#define SIZE 13", {"SIZE"}),
    ("#define SIZE 12", "#define SIZE 12\nint added(void);\n", {"added"}),
    ("outer(struct thing *thing)", "outer(struct thing *thing, int a)", {"outer"}),
    ("const char *format, ...", "const char *format", {"tell"}),
    ("int first;", "long first;", {"first"}),
    ("third:5", "third:5, fourth:1", {"second", "third", "fourth"}),
    ("(struct thing *, int)", "(struct thing *, long)", {"call"}),
    ("text[SIZE]", "text[12]", {"text"}),
    ("KIND_B = 4,", "", {"KIND_B", "KIND_C"}),
    ("KIND_C }", "KIND_C, KIND_D }", {"KIND_D"}),
    (".first = 1", ".first = 2", {"table"}),
    ("extern int count, limit", "extern long count, limit", {"count", "limit"}),
    ("#define SIZE 12", "#ifdef X\n#define SIZE 12\n#endif", {"SIZE"}),
    ("#define SIZE 12", "#define SIZE 12\nstruct other;", set()),
    ("#define SIZE 12", "#define SIZE 12\nstruct other { int a; };", {"other"}),
    ("#define SIZE 12", "#define SIZE 12\n#undef add", {"add"}),
    ("#define SIZE 12", "#define SIZE 12\ntypedef int number;", {"number"}),
    ("#define SIZE 12", "#define SIZE 12\nstruct { int a; } x;", {"x"}),
])
def test_names(old: str, new: str, found: set[str]) -> None:
    """What a change declares, and nothing beside it."""
    assert HEADER.count(old) == 1
    assert names(HEADER, HEADER.replace(old, new)) == found


@pytest.mark.parametrize("new", [
    "#include <linux/b.h>", "#pragma pack(1)", "DECLARE_THING(x);", "DECLARE_THING(x) int y;", "int (*(*x)(int))[3];",
])
def test_what_cannot_be_told(new: str) -> None:
    """What may mean anything is not guessed at."""
    with pytest.raises(UnclearError):
        names(HEADER, HEADER.replace("#define SIZE 12", f"#define SIZE 12\n{new}\n"))


FILES = {
    "include/linux/a.h": HEADER,
    "include/linux/b.h": "#include <linux/a.h>\nstatic inline int twice(int a)\n{\n	return 2 * add(a, a);\n}\n"
                         "#define make(x) kind_##x\n",
    "include/linux/c.h": "#include <linux/a.h>\n#if KIND_C > 5\nextern int other;\n#endif\n",
    "fs/condition.c": "#include <linux/c.h>\nint j(void) { return other; }\n",
    "fs/uses.c": "#include <linux/a.h>\nint f(void) { return add(1, 2); }\n",
    "fs/through.c": "#include <linux/b.h>\nint g(void) { return twice(1); }\n",
    "fs/pastes.c": "#include <linux/b.h>\nint h(void) { return make(x); }\n",
    "fs/none.c": "#include <linux/b.h>\nint i(void) { return 0; }\n",
    "fs/else.c": "int add(int a);\n",
    "fs/part.c": "#include <linux/a.h>\nint k(void) { return outer(0) != 0; }\n",
    "fs/whole.c": '#include "part.c"\n',
    "arch/x86/lib/get.S": "mov SIZE, %rax\n",
}


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Tree:
    """A small source."""
    monkeypatch.setenv("PYLIVEPATCH_CACHE", str(tmp_path / "cache"))
    for name, text in FILES.items():
        path = tmp_path / "tree" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return Tree(tmp_path / "tree", cast(Target, None))


EVERY = ["fs/condition.c", "fs/none.c", "fs/pastes.c", "fs/through.c", "fs/uses.c", "fs/whole.c"]


PATH = "include/linux/a.h"


def reached(tree: Tree, after: str, files: dict[str, str] | None = None, path: str = PATH) -> Reach:
    """What the change of a header concerns, in a source that has more files."""
    for name, text in (files or {}).items():
        (tree.path / name).parent.mkdir(parents=True, exist_ok=True)
        (tree.path / name).write_text(text)
    names_ = {*FILES, *(files or {})}
    known = Units(tree, {name: [("vmlinux", name[:-1] + "o")] for name in names_
                         if name.endswith(".c") and name != "fs/part.c"})
    before = (tree.path / path).read_bytes()
    return reach(tree, known, [FileDiff(path, before, after.encode())], lambda _: None)


@pytest.fixture(autouse=True)
def all_headers_are_used_by_many(monkeypatch: pytest.MonkeyPatch) -> None:
    """Small sources are looked at as large ones are."""
    monkeypatch.setattr("pylivepatch.build.reach.FEW", 0)


@pytest.mark.parametrize(("old", "new", "sources"), [
    ("((a) + (b))", "((b) + (a))", ["fs/through.c", "fs/uses.c"]),
    ("KIND_C }", "KIND_C, kind_x }", ["fs/pastes.c"]),
    ("KIND_B = 4,", "", ["fs/condition.c"]),
    ("outer(struct thing *thing)", "outer(struct thing *thing, int a)", ["fs/whole.c"]),
    ("int first;", "long first;", ["fs/whole.c"]),
    ("#define SIZE 12", "#define SIZE 12\nDECLARE_THING(x);", EVERY),
])
def test_concerned(tree: Tree, old: str, new: str, sources: list[str]) -> None:
    """Those that mention what changes, through other headers, too; all when that cannot be told."""
    (tree.path / "arch/x86/lib/get.S").unlink()
    assert [unit.source for unit in reached(tree, HEADER.replace(old, new)).units] == sources


def test_concerns_nothing(tree: Tree) -> None:
    """A comment."""
    with pytest.raises(BuildError, match="nothing that this kernel compiles") as caught:
        reached(tree, HEADER.replace("/* struct hidden; */", ""))
    assert caught.value.kind == "nothing"


def test_many_users(tree: Tree) -> None:
    """There is no bound, and what does not mention the change is left out."""
    more = {f"fs/many{n}.c": "#include <linux/a.h>\nint f(void) { return add(1, 2); }\n" for n in range(300)}
    more |= {f"fs/rest{n}.c": "#include <linux/a.h>\n" for n in range(300)}
    found = reached(tree, HEADER.replace("((a) + (b))", "((b) + (a))"), more)
    assert len(found.units) == 302
    assert found.notes == ["606 sources include include/linux/a.h, and its change concerns 302: add, twice"]


BIGGER = HEADER.replace("SIZE 12", "SIZE 13")
GET = "arch/x86/lib/get.S"


@pytest.mark.parametrize("text", [
    "#include <linux/a.h>\nmov $SIZE, %rax\n",
    "#include <linux/b.h>\nmov $SIZE, %rax\n",
    '#include <linux/b.h>\n#define LARGE (SIZE + 1)\nmov $LARGE, %rax\n',
])
def test_what_assembly_has(tree: Tree, text: str) -> None:
    """A name that assembly has which includes the header, directly or not."""
    with pytest.raises(BuildError, match=rf"changes SIZE, which {GET} has, too") as caught:
        reached(tree, BIGGER, {GET: text})
    assert (caught.value.kind, caught.value.symbol) == ("assembly", "SIZE")


@pytest.mark.parametrize("text", [
    "mov $SIZE, %rax\n",
    "#include <linux/a.h>\n/* of SIZE bytes,\n * the SIZE */\n# SIZE\nmov %rax, %rbx # SIZE\nret // SIZE\n",
])
def test_what_assembly_does_not_have(tree: Tree, text: str) -> None:
    """A word of a comment, and the same name where the header is not included."""
    uses = {"fs/size.c": "#include <linux/a.h>\nint size(void) { return SIZE; }\n"}
    assert "fs/size.c" in [unit.source for unit in reached(tree, BIGGER, {GET: text, **uses}).units]


@pytest.mark.parametrize("outside", [GET, "arch/x86/entry/vdso/time.c", "arch/x86/boot/main.c",
                                     "arch/x86/kernel/asm-offsets.c"])
def test_what_cannot_be_told_and_is_used_outside(tree: Tree, outside: str) -> None:
    """An unclear change of what assembly, the vdso or the boot code include is refused, and not passed over."""
    after = HEADER.replace("#define SIZE 12", "#define SIZE 12\nDECLARE_THING(x);")
    with pytest.raises(BuildError, match=r"whose? reach cannot be told") as caught:
        reached(tree, after, {outside: "#include <linux/b.h>\n"})
    assert outside in caught.value.message


def test_users(tree: Tree) -> None:
    """All sources that have a word."""
    assert users(tree, "SIZE") == [GET]


@pytest.mark.parametrize("user", [
    "struct big { char bytes[SIZE_A]; };\n",
    "static inline int get(char (*all)[SIZE_A]) { return 0; }\n#define big get\n",
    "typedef int big[SIZE_A];\n",
    "#if SIZE_A > 1\n#define big 1\n#endif\n",
])
def test_carried_by_other_headers(tree: Tree, user: str) -> None:
    """Members, heads of functions, types and conditions of another header that have the name."""
    files = {"include/linux/d.h": "#include <linux/a.h>\n" + user,
             "fs/big.c": "#include <linux/d.h>\nint f(void) { return sizeof(big); }\n",
             "include/linux/a.h": "#define SIZE_A 4\n#define OTHER 1\n",
             "fs/not.c": "#include <linux/d.h>\nint g(void) { return OTHER; }\n"}
    found = [unit.source for unit in reached(tree, "#define SIZE_A 8\n#define OTHER 1\n", files).units]
    assert "fs/big.c" in found
    assert "fs/not.c" not in found


def test_a_source_of_several_objects(tree: Tree) -> None:
    """It is compiled for each of them."""
    known = Units(tree, {"fs/uses.c": [("one", "fs/uses.o"), ("two", "fs/uses.o")]})
    assert [unit.object for unit in known.including("fs/uses.c")] == ["one", "two"]
