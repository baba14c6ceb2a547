# SPDX-License-Identifier: MIT
"""What a module declares, read by relocations: the compiler lays the structures out, of any size."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING

import pytest

from pylivepatch import Func, Object
from pylivepatch.elf.file import Image
from pylivepatch.module.declared import UnreadableError, code, declared

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

STRUCTS = """
struct klp_func {{ const char *old_name; void *new_func; unsigned long old_sympos; char rest[{func}]; }};
struct klp_object {{
	const char *name; struct klp_func *funcs; void *callbacks[4]; char rest[{object}];
}};
struct klp_patch {{ void *mod; struct klp_object *objs; void *states; char replace; char rest[{patch}]; }};
__attribute__((section(".gnu.linkonce.this_module"))) char __this_module[64];
static int f(void) {{ return 0; }}
"""
TWO = """
static struct klp_func a[] = { { "cmdline_proc_show", f }, { "type_show", f, 2 }, { "meminfo.isra.0", f, 1 }, { 0 } };
static struct klp_func b[] = { { "ext4_x", f }, { 0 } };
static struct klp_func none[] = { { 0 } };
static struct klp_object objs[] = { { 0, a }, { "ext4", b, { f, 0, 0, f } }, { "nf-tables", none, { 0, f } }, { 0 } };
"""
PATCH = "__attribute__((used)) static struct klp_patch patch = { __this_module, objs, 0, %s };"
# What else a module has: a structure that begins with its module, as file_operations does.
OTHER = "__attribute__((used)) static void *operations[] = { __this_module, f, f };"


def structs(func: int = 72, object: int = 100, patch: int = 120) -> str:  # noqa: A002
    """The structures with that much of the kernel's own at their ends."""
    return STRUCTS.format(func=func, object=object, patch=patch)


def read(build_module: Callable[..., Path], source: str) -> object:
    """What a module of that source declares."""
    return declared(Image.read(build_module(extra=source)))


@pytest.mark.parametrize(("func", "object", "patch"), [(72, 100, 120), (128, 64, 7), (1, 1, 1), (80, 200, 400)])
@pytest.mark.parametrize("replace", [0, 1])
def test_any_size(
    build_module: Callable[..., Path], func: int, object: int, patch: int, replace: int  # noqa: A002
) -> None:
    """Objects, functions and sympos are read whatever else the kernel keeps in its structures."""
    found = read(build_module, structs(func, object, patch) + TWO + OTHER + PATCH % replace)
    assert found == (
        (
            Object("vmlinux", (Func("cmdline_proc_show"), Func("type_show", 2), Func("meminfo.isra.0", 1))),
            Object("ext4", (Func("ext4_x"),)),
            Object("nf-tables", ()),
        ),
        bool(replace),
    )


@pytest.mark.parametrize(
    ("source", "words"),
    [
        (TWO, "no struct klp_patch"),
        (OTHER, "no struct klp_patch"),
        (TWO + PATCH % 0 + PATCH.replace("patch =", "other =") % 0, "more than one"),
        ("static struct klp_object objs[] = { { 0 } };" + PATCH % 0, "names no object"),
        (
            "static int data; static struct klp_func a[] = { { \"x\", &data }, { 0 } };"
            "static struct klp_object objs[] = { { 0, a }, { 0 } };" + PATCH % 0,
            "is not code",
        ),
        (
            "static struct klp_func a[] = { { \"no name\", f }, { 0 } };"
            "static struct klp_object objs[] = { { 0, a }, { 0 } };" + PATCH % 0,
            "is not a name",
        ),
        (
            "static struct klp_func a[] = { { \"x\", f }, { 0, f }, { 0 } };"
            "static struct klp_object objs[] = { { 0, a }, { 0 } };" + PATCH % 0,
            "does not divide",
        ),
    ],
)
def test_unreadable(build_module: Callable[..., Path], source: str, words: str) -> None:
    """What does not read as one patch and nothing else is not guessed at; it says why."""
    with pytest.raises(UnreadableError, match=words):
        read(build_module, structs() + source)


def test_stripped(build_module: Callable[..., Path]) -> None:
    """Without the sizes of its arrays nothing is guessed at."""
    path = build_module(extra=structs() + TWO + PATCH % 0)
    subprocess.run(["strip", "--strip-unneeded", path], check=True)
    with pytest.raises(UnreadableError, match=r"size of an array|no struct klp_patch"):
        declared(Image.read(path))


CALLED = """
#define APART(name) __attribute__((noinline, used, section(".text." #name)))
static int APART(b) b(int n) { return n ? b(n - 1) + (n & 1) : 7; }
static int APART(c) c(int n) { __asm__(""); return n; }
static int APART(d) d(int n) { __asm__(""); return n + 2; }
static int (*pointer)(int) = d;
static int APART(a) a(int n);
static int clone(int n) __asm__("part.isra.0");
static int APART(clone) clone(int n) { __asm__(""); return n; }
static int APART(a) a(int n) { return %s + pointer(n); }
static struct klp_func funcs[] = { { "a", a }, { "b", b }, { "c", c }, { "d", d }, { 0 } };
static struct klp_object objs[] = { { 0, funcs }, { 0 } };
"""


@pytest.mark.parametrize(("call", "called"), [
    ("b(n)", {"b"}), ("c(n) + clone(n)", {"c"}), ("b(n) + c(n)", {"b", "c"}), ("n", set())])
def test_what_code_of_the_patch_calls_itself(build_module: Callable[..., Path], call: str, called: set[str]) -> None:
    """A call has a relocation to the new code; a function that calls itself, and data with one, do not count."""
    found = code(Image.read(build_module(extra=structs() + CALLED % call + PATCH % 0)))
    assert found.called == {("vmlinux", name) for name in called}
    assert found.cloned == {"part"}
