# SPDX-License-Identifier: MIT
"""What differs between two texts, and what old code goes on running."""

from __future__ import annotations

import pytest
from texts import assembly

from pylivepatch.build.verify.assembly import Assembly
from pylivepatch.build.verify.closure import Closure, bare, base

SOURCE = """
extern int puts(const char *), printk(const char *, ...);
struct ops { int (*run)(int); };
static int state = 4;
void set(int n) { state = n; }
static inline __attribute__((always_inline)) int shared(int n) { static int hits; return ++hits * n + 3; }
static __attribute__((noinline)) int helper(int n, int kind) { return kind == 2 ? puts("helper") + n : n * state; }
int one(int n) { static int calls; return helper(n, 2) + ++calls; }
int two(int n) { static int calls; return helper(n + 5, 2) + (calls += 2); }
static int hidden(int n) { return shared(n) + puts("hidden"); }
static int other(int n) { return puts("other") + n; }
const struct ops unused = { other };
const struct ops table = { hidden };
int three(int n) { return shared(n) - 1; }
__attribute__((section(".init.text"))) int begin(void) { return puts("begin") + shared(2); }
"""


def closure(old: str, new: str) -> Closure:
    """Compare two sources."""
    return Closure(Assembly(assembly(old)), Assembly(assembly(new)))


def differing(old: str, new: str) -> set[str]:
    """Return the functions that differ."""
    return {atom.name for atom in closure(old, new).differing()}


def test_nothing_differs_from_itself() -> None:
    """All functions and variables are the same, with all numbers."""
    found = closure(SOURCE, SOURCE)
    assert not list(found.differing())
    assert not found.ambiguous


@pytest.mark.parametrize(("old", "new"), [
    ('puts("begin")', 'puts("other") + puts("begin")'),  # a string that comes first in the text
    ("static int state = 4;", "static int state = 4; int fresh(int n) { static int calls; return ++calls; }"),
])
def test_numbers_that_shift_change_nothing(old: str, new: str) -> None:
    """The compiler's numbers for strings, labels and static variables are its own."""
    assert differing(SOURCE, SOURCE.replace(old, new)) <= {"begin"}


def test_who_has_the_old_code_inlined_differs() -> None:
    """An inline function is wherever it was inlined, the address of which may be in a table."""
    assert differing(SOURCE, SOURCE.replace("* n + 3", "* n + 4")) == {"hidden", "three", "begin"}


def test_a_clone_is_compared_by_what_is_in_it() -> None:
    """What is a specialised copy of a function differs when the function does."""
    found = differing(SOURCE, SOURCE.replace('puts("helper") + n', 'puts("helper") - n'))
    assert {bare(name) for name in found} == {"helper"}


def test_old_code_is_reached_through_those_that_stay() -> None:
    """A function that changes goes on running when a caller, a table or another source leads to it."""
    new = SOURCE.replace('puts("helper") + n', 'puts("helper") - n').replace("* n + 3", "* n + 4")
    found = closure(SOURCE, new)
    atoms = {bare(atom.name): atom.number for atom in found.differing()}
    assert {name for name, number in atoms.items() if number in found.reached([])} == {"helper", "hidden", "three"}
    reached = found.reached([atoms["hidden"], atoms["three"]])
    assert reached[atoms["helper"]] in ("one", "two")
    names = found.sides[0].names
    reached = found.reached([names["one"].number, names["two"].number])
    assert atoms["helper"] not in reached


def test_a_static_variable_that_another_function_has_is_another_one() -> None:
    """A variable of a function that is gone is not taken over by a new one's of the same name."""
    old = "extern int puts(const char *); int f(int n) { static int flag; return flag |= n; }"
    new = ("extern int puts(const char *); int f(int n) { return n; }"
           "int g(int n) { static int flag; return flag += n; }")
    found = closure(old, new)
    [flag] = [atom for atom in found.sides[1].atoms if atom.name.startswith("flag.")]
    assert found.original(flag) is None
    assert flag.number in found.ambiguous


def test_swapped_static_variables_are_noticed() -> None:
    """Two variables of one name that change places are not the same, whatever their numbers are."""
    old = "int f(int n) { { static int v; v += n; } { static int v = 5; return v -= n; } }"
    new = "int f(int n) { { static int v = 5; v += n; } { static int v; return v -= n; } }"
    found = closure(old, new)
    values = [atom for atom in found.sides[0].atoms if atom.name.startswith("v.")]
    assert not all(atom.number in found.same for atom in values)


def test_data_differ() -> None:
    """A variable's first value, and a table's content."""
    found = closure(SOURCE, SOURCE.replace("state = 4", "state = 5").replace("= { hidden }", "= { other }"))
    names = found.sides[0].names
    assert names["state"].number not in found.same
    assert names["table"].number not in found.same


def test_lines_of_warnings_do_not_count() -> None:
    """A warning that is somewhere else in the file is the same warning."""
    text = ('int f(int n) {{ asm volatile("1: ud2\\n.pushsection __bug_table,\\"aw\\"\\n.long 1b - .\\n'
            '\\t.word {}\\t# bug_entry::line\\n\\t.word 9\\n.popsection"); return n; }}')
    assert not differing(text.format(10), text.format(11))
    assert differing(text.format(10), text.format(10).replace(".word 9", ".word 8")) == {"f"}


def test_names_without_numbers() -> None:
    """Numbers are the compiler's, or __COUNTER__'s."""
    assert base("flag.12") == "flag"
    assert base("f.constprop.0.cold") == "f.constprop.cold"
    assert base("__UNIQUE_ID_license412") == "__UNIQUE_ID_license"
    assert base("__UNIQUE_ID_ddebug412.5") == "__UNIQUE_ID_ddebug"
    assert base("__initcall__kmod_proc__310_27_start5") == "__initcall__kmod_proc___start5"
    assert bare("f.isra.0") == "f"
