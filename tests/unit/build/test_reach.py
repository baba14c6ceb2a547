# SPDX-License-Identifier: MIT
"""Which sources a changed header concerns."""

from __future__ import annotations

from pathlib import Path
from typing import cast

import pytest

from pylivepatch.build.declarations import UnclearError, names
from pylivepatch.build.reach import beyond, concerned, users
from pylivepatch.build.target import Target
from pylivepatch.build.tree import Tree
from pylivepatch.build.units import Units

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
])
def test_names(old: str, new: str, found: set[str]) -> None:
    """What a change declares, and nothing beside it."""
    assert HEADER.count(old) == 1
    assert names(HEADER, HEADER.replace(old, new)) == found


@pytest.mark.parametrize("new", [
    "#include <linux/b.h>", "#pragma pack(1)", "typedef int number;", "DECLARE_THING(x);", "#undef add",
    "struct { int a; } x;",
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


@pytest.mark.parametrize(("old", "new", "sources"), [
    ("((a) + (b))", "((b) + (a))", ["fs/through.c", "fs/uses.c"]),
    ("KIND_C }", "KIND_C, kind_x }", ["fs/pastes.c"]),
    ("KIND_B = 4,", "", ["fs/condition.c"]),
    ("#define SIZE 12", "#define SIZE 13", EVERY),
    ("int first;", "long first;", EVERY),
    ("/* struct hidden; */", "", []),
    ("outer(struct thing *thing)", "outer(struct thing *thing, int a)", ["fs/whole.c"]),
])
def test_concerned(tree: Tree, old: str, new: str, sources: list[str]) -> None:
    """Those that mention what changes, through other headers, too; all when it decides about data."""
    known = Units(tree, {name: [("vmlinux", name[:-1] + "o")] for name in FILES
                         if name.endswith(".c") and name != "fs/part.c"})
    after = HEADER.replace(old, new)
    path = "include/linux/a.h"
    found = concerned(tree, known, path, (HEADER, after), {path: after})
    assert found is not None
    assert [unit.source for unit in found[0]] == sources


def test_what_is_no_c_of_the_kernel(tree: Tree) -> None:
    """A name that assembly has, and a function that it calls, are found."""
    assert beyond(tree, (HEADER, HEADER.replace("SIZE 12", "SIZE 13"))) == ("SIZE", "arch/x86/lib/get.S")
    assert beyond(tree, (HEADER, HEADER.replace("(a) + (b)", "(b) + (a)"))) is None
    assert users(tree, "SIZE") == ["arch/x86/lib/get.S"]


def test_a_source_of_several_objects(tree: Tree) -> None:
    """It is compiled for each of them."""
    known = Units(tree, {"fs/uses.c": [("one", "fs/uses.o"), ("two", "fs/uses.o")]})
    assert [unit.object for unit in known.including("fs/uses.c")] == ["one", "two"]
