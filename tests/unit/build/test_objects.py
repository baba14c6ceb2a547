# SPDX-License-Identifier: MIT
"""Objects taken apart, compared and written, with what the compiler here makes of a few lines."""

from __future__ import annotations

import resource
import subprocess
import sys
from pathlib import Path

import pytest

from pylivepatch import BadDataError, BuildError, MismatchError
from pylivepatch.build import layout
from pylivepatch.build.compare import Changes, compare
from pylivepatch.build.elf import SHN_LIVEPATCH, STB_GLOBAL, Object, Reloc, Section, Symbol
from pylivepatch.build.image import Image
from pylivepatch.build.kallsyms import Kallsyms, KernelSymbol
from pylivepatch.build.link import write
from pylivepatch.build.parts import Parts
from pylivepatch.build.runpre import _is_name_of, match

sys.path.insert(0, str(Path(__file__).parent))

from compiling import made

BASE = """
extern int puts(const char *);
struct thing { int a; long b; };
static int count;
int table[3] = { 1, 2, 3 };
static __attribute__((noinline)) int helper(int n) { return n * 3 + count; }
int first(struct thing *t) { count++; return helper(t->a); }
int second(void) { static int calls; return puts("second") + ++calls; }
int (*pointer(void))(void) { return second; }
__attribute__((section(".init.text"))) int begin(void) { return puts("begin"); }
"""


def compiled(folder: Path, text: str, name: str = "x") -> Object:
    """Compile a text."""
    return made(folder, text, name).named


def types(folder: Path, text: str, name: str = "x") -> Object:
    """Return the types of a text."""
    return made(folder, text, name).types


def changes(folder: Path, old: str, new: str) -> Changes:
    """Compare two texts."""
    return compare("x.c", Parts(compiled(folder, BASE)), Parts(compiled(folder, BASE.replace(old, new), "y")))


def names(found: Changes) -> set[str]:
    """Name the functions that changed."""
    return {new.name for _, new in found.functions}


def test_an_object_survives_reading_and_writing(tmp_path: Path) -> None:
    """Sections, symbols and relocations are the same after a round trip, and the linker takes the object."""
    one = compiled(tmp_path, BASE)
    one.write(tmp_path / "again.o")
    two = Object.open(tmp_path / "again.o")
    for a, b in zip(one.sections, two.sections, strict=True):
        assert (a.name, a.type, a.flags, a.data, a.size, a.align) == (b.name, b.type, b.flags, b.data, b.size, b.align)
        assert [(r.offset, r.type, r.addend, r.symbol.name) for r in a.relocs] == [
            (r.offset, r.type, r.addend, r.symbol.name) for r in b.relocs]
    before, after = (sorted((s.name, s.value, s.size) for s in each.symbols) for each in (one, two))
    assert before == after
    assert one.pack() == two.pack()
    subprocess.run(["ld", "-r", "-o", tmp_path / "linked.o", tmp_path / "again.o"], check=True)


def test_livepatch_relocations_are_sections_of_their_own(tmp_path: Path) -> None:
    """They are written as the kernel's module-elf-format says, and read again."""
    made = Object()
    section = Section(".text.f", flags=6, data=bytearray(8), size=8)
    symbol = Symbol(".klp.sym.vmlinux.f,2", bind=STB_GLOBAL, shndx=SHN_LIVEPATCH)
    section.livepatch["vmlinux"] = [Reloc(4, 2, symbol, -4)]
    made.sections.append(section)
    made.symbols.append(symbol)
    made.write(tmp_path / "x.o")
    said = subprocess.run(["readelf", "-SW", tmp_path / "x.o"], capture_output=True, text=True, check=True).stdout
    assert ".klp.rela.vmlinux..text.f" in said
    again = Object.open(tmp_path / "x.o")
    [reloc] = again.sections[0].livepatch["vmlinux"]
    assert (reloc.symbol.name, reloc.symbol.shndx, reloc.addend) == (symbol.name, SHN_LIVEPATCH, -4)


@pytest.mark.parametrize("data", [b"", b"not ELF", b"\x7fELF" + bytes(60)])
def test_what_is_no_object(data: bytes) -> None:
    """It is refused by its name."""
    with pytest.raises(BadDataError, match="thing"):
        Object.parse(data, "thing")


def test_nothing_changes(tmp_path: Path) -> None:
    """The same text is the same code; comments and lines change nothing."""
    assert not names(changes(tmp_path, "static int count;", "/* more\nlines */\nstatic int count;"))


def test_a_changed_function(tmp_path: Path) -> None:
    """Only that function changes; where it does is told."""
    found = changes(tmp_path, 'puts("second") +', 'puts("second") - 5 +')
    assert names(found) == {"second"}
    assert found.first["second"] > 0


def test_a_changed_string(tmp_path: Path) -> None:
    """A string is a part of the function that uses it."""
    assert names(changes(tmp_path, '"second"', '"zweite"')) == {"second"}


def test_a_changed_callee(tmp_path: Path) -> None:
    """A function of its own changes alone; its callers stay."""
    assert names(changes(tmp_path, "n * 3", "n * 4")) == {"helper"}


def test_a_new_function_and_new_data(tmp_path: Path) -> None:
    """What is new is no change of what there is."""
    found = changes(tmp_path, "int second(void) {", "static int more = 5;\n__attribute__((noinline)) int other(void) "
                    "{ return ++more; }\nint second(void) { other();")
    assert names(found) == {"second"}
    assert {part.name for part in found.added} == {"other"}


@pytest.mark.parametrize(("old", "new", "kind", "symbol"), [
    ("{ 1, 2, 3 }", "{ 1, 2, 4 }", "data", "table"),
    ("table[3] = { 1, 2, 3 }", "table[4] = { 1, 2, 3 }", "data", "table"),
    ('puts("begin")', 'puts("start")', "init", "begin"),
])
def test_what_cannot_change(tmp_path: Path, old: str, new: str, kind: str, symbol: str) -> None:
    """Data in use and init code are refused by name."""
    with pytest.raises(BuildError) as caught:
        changes(tmp_path, old, new)
    assert (caught.value.kind, caught.value.symbol) == (kind, symbol)


@pytest.mark.parametrize(("old", "new", "words"), [
    ("int a; long b;", "int a; long b; int c;", "c is new"),
    ("int a; long b;", "long b; int a;", "a is"),
    ("int a; long b;", "_Bool a; long b;", "a is"),
])
def test_types_that_change(tmp_path: Path, old: str, new: str, words: str) -> None:
    """A struct that exists already must stay as it is."""
    before = types(tmp_path, BASE)
    layout.check("x.c", before, types(tmp_path, BASE, "y"), set())
    with pytest.raises(BuildError, match="struct thing changes") as caught:
        layout.check("x.c", before, types(tmp_path, BASE.replace(old, new), "y"), set())
    assert caught.value.kind == "layout"
    assert words in str(caught.value) or "its size" in str(caught.value)


def test_how_an_exported_function_is_called(tmp_path: Path) -> None:
    """Its arguments stay as they are; those of others may change."""
    before, after = (types(tmp_path, f"long f({argument} a) {{ return a; }}", name)
                     for argument, name in (("int", "x"), ("long", "y")))
    layout.check("x.c", before, after, set())
    with pytest.raises(BuildError, match=r"f\(\) is exported, and changes from function \(int\)") as caught:
        layout.check("x.c", before, after, {"f"})
    assert (caught.value.kind, caught.value.symbol) == ("export", "f")


@pytest.mark.parametrize(("text", "old", "new", "words"), [
    ("static struct { int a, b; } state;\nint f(void) { return state.a++ + 2 * state.b++; }", "a, b;", "b, a;",
     "the type of state"),
    ("enum { ONE = 1, TWO };\nint f(int a) { return a == TWO ? ONE : 0; }", "ONE = 1", "ONE = 3", "enumerator ONE"),
    ("typedef int number;\nint f(void *a) { return *(number *)a; }", "typedef int", "typedef short", "typedef number"),
])
def test_what_has_a_type_without_a_name(tmp_path: Path, text: str, old: str, new: str, words: str) -> None:
    """It must stay as it is, too."""
    with pytest.raises(BuildError, match=words) as caught:
        layout.check("x.c", types(tmp_path, text), types(tmp_path, text.replace(old, new), "y"), set())
    assert caught.value.kind == "layout"


CIRCLE = """
extern int ext1(int), ext2(int);
int __attribute__((noinline)) A(int, int) __asm__("a.constprop.0");
int __attribute__((noinline)) B(int, int) __asm__("b.constprop.0");
int x(int n) { return A(n, 1) + 1; }
int y(int n) { return B(n, 1) + 2; }
int __attribute__((noinline)) A(int n, int m) { return n ? B(n - 1, m) : 3; }
int __attribute__((noinline)) B(int n, int m) { return n ? ext1(A(n - 2, m)) : 4; }
"""


def test_clones_that_call_each_other(tmp_path: Path) -> None:
    """When one of them changes, the callers of both change: what was found equal under way is not kept."""
    found = compare("x.c", *(Parts(compiled(tmp_path, text, name)) for text, name in (
        (CIRCLE, "x"), (CIRCLE.replace("? ext1", "? ext2"), "y"))))
    assert names(found) == {"x", "y"}


@pytest.mark.parametrize(("old", "new", "words"), [
    ("static unsigned long v;", "static struct { unsigned a, b; } v;", "the type of v changes"),
    ("static struct one *v;", "static struct two *v;", "the type of v changes"),
    ("struct one { int a; long b, c; };", "struct one_and_more { int a; long more, b, c; };\n#define one one_and_more",
     "struct one becomes struct one_and_more"),
])
def test_state_under_another_type(old: str, new: str, words: str, tmp_path: Path) -> None:
    """A variable keeps its type, and a type that goes on under another name what it has."""
    text = ("struct one { int a; long b, c; };\nstruct two { int b; long a, c; };\nstruct one *made(void);\n"
            f"{old if 'v;' in old else ''}\nlong f(void) {{ struct one *o = made(); return o->a + o->b; }}\n"
            + ("void *g(void) { return &v; }" if "v;" in old else ""))
    with pytest.raises(BuildError, match=words) as caught:
        layout.check("x.c", types(tmp_path, text), types(tmp_path, text.replace(old, new), "y"), set())
    assert caught.value.kind == "layout"


def test_what_is_as_good(tmp_path: Path) -> None:
    """A struct that changes its name only, and a number that is read with a sign, are no change of what there is."""
    text = "struct one { int a; unsigned long b; };\nlong f(struct one *o) { return o->a + o->b; }"
    before = types(tmp_path, text)
    assert not layout.check("x.c", before, types(tmp_path, text.replace("one", "first"), "y"), set()).notes
    [note] = layout.check("x.c", before, types(tmp_path, text.replace("unsigned long", "long"), "z"), set()).notes
    assert "b is long at bit 64 instead of unsigned long at bit 64" in note


TWO = """
__attribute__((noinline)) int f(int a) { %s return a; }
__attribute__((noinline)) int g(int a) { %s return a; }
int h(void) { return f(1) + g(2); }
"""


@pytest.mark.parametrize(("before", "after"), [
    (TWO % ("static int n; a += ++n;", ""), TWO % ("", "static int n; a += ++n;")),
    (TWO % ("static int n; a += ++n;", ""), "__attribute__((noinline)) int new(int a) { static int n = 5; return ++n; }"
     + TWO % ("", "a += new(a);")),
    ("static int n;" + TWO % ("a += ++n;", ""), TWO % ("", "static int n; a += ++n;")),
])
def test_a_static_local_that_another_function_has(tmp_path: Path, before: str, after: str) -> None:
    """A variable of the same name in another function, new or not, is not taken for the one that was there."""
    with pytest.raises(BuildError, match="nothing tells whether") as caught:
        compare("x.c", *(Parts(compiled(tmp_path, each)) for each in (before, after)))
    assert caught.value.kind == "ambiguous"


def test_an_alias_that_goes_its_own_way(tmp_path: Path) -> None:
    """A function is not replaced under a name of which the diff makes another function."""
    text = "int f(int a) { return a + 1; }\n"
    alias, own = 'int g(int a) __attribute__((alias("f")));', "int g(int a) { return a + 1; }"
    old, new, both = (Parts(compiled(tmp_path, each, name)) for each, name in (
        (text + alias, "a"), (text.replace("1", "2") + own, "b"), (text.replace("1", "2") + alias, "c")))
    with pytest.raises(BuildError, match="another name of") as caught:
        compare("x.c", old, new)
    assert caught.value.symbol in ("f", "g")
    assert len(compare("x.c", old, both).functions) == 1


TRACE = ("-pg", "-mfentry", "-mrecord-mcount")
NOT_TRACED = """
static __attribute__((noinline, no_instrument_function)) int body(int a) { %s return a; }
int call(int a) { return body(a) + 1; }
int other(int a) { return a + 2; }
static __attribute__((noinline)) int traced(int a) { %s return a * 7; }
int calls_traced(int a) { return traced(a) + traced(a + 1); }
"""


@pytest.mark.parametrize(("change", "more", "changed", "added"), [
    (("a *= 3;", ""), "", "call", "body"),
    (("a *= 3;", ""), "int (*pointer)(int) = body;", "body", ""),
    (("", "a *= 3;"), "", "traced", ""),
])
def test_what_cannot_be_traced_goes_along_with_its_callers(
    tmp_path: Path, change: tuple[str, str], more: str, changed: str, added: str,
) -> None:
    """The callers of a static function that is not traced are changed when it is; not when its address is kept."""
    old, new = (Parts(made(tmp_path, NOT_TRACED % text + more, name, *TRACE).named)
                for text, name in ((("", ""), "a"), (change, "b")))
    found = compare("x.c", old, new)
    assert " ".join(part.name for _, part in found.functions) == changed
    assert " ".join(part.name for part in found.added) == added


def test_what_cannot_be_written_leaves_what_was_there(tmp_path: Path) -> None:
    """A file system that takes no more leaves the old module, and nothing of the new one."""
    module, output = compiled(tmp_path, BASE), tmp_path / "out" / "x.ko"
    output.parent.mkdir()
    output.write_bytes(b"old")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))
    try:
        with pytest.raises(BuildError, match="cannot be written") as caught:
            write(module.pack(), output)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert caught.value.kind == "output"
    assert list(output.parent.iterdir()) == [output]
    assert output.read_bytes() == b"old"
    write(module.pack(), output)
    assert output.read_bytes() == module.pack()
    write(module.pack(), Path("/dev/null"))
    assert Path("/dev/null").is_char_device()


IDS = """
asm(".pushsection .BTF_ids,\\"a\\"\\n"
    ".local the_set\\nthe_set:\\n.zero 4\\n.local __BTF_ID__func__%s__%d\\n__BTF_ID__func__%s__%d:\\n.zero 4\\n"
    ".local one\\none:\\n.local __BTF_ID__struct__file__9%d\\n__BTF_ID__struct__file__9%d:\\n.zero 4\\n.popsection");
extern int the_set, one, asks(int *);
int f(int a) { return a + asks(&the_set) + asks(&one); }
int g(int a) { return a * one; }
"""


def test_sets_of_btf_ids(tmp_path: Path) -> None:
    """An element is what it stands for, whatever the preprocessor's number; a change of a set is refused."""
    before, after, other = (Parts(compiled(tmp_path, text, name)) for text, name in (
        (IDS % ("x", 1, "x", 1, 1, 1), "a"), ((IDS % ("x", 2, "x", 2, 2, 2)).replace("a +", "a -"), "b"),
        (IDS % ("y", 1, "y", 1, 1, 1), "c")))
    found = compare("x.c", before, after)
    assert [new.name for _, new in found.functions] == ["f"]
    assert all(found.original(ref.part) for ref in found.functions[0][1].refs if ref.part)
    with pytest.raises(BuildError, match="a set of BTF ids") as caught:
        compare("x.c", before, other)
    assert (caught.value.kind, caught.value.symbol) == ("registration", "func__y")


@pytest.mark.parametrize("name", ["___done", "___once_key", "descriptor", "n"])
def test_what_was_done_once_stays_done(tmp_path: Path, name: str) -> None:
    """State that the code keeps is the kernel's own, whatever it is called."""
    text = f"int f(int a) {{ static int {name}; if (!{name}) {{ {name} = 1; a *= 5; }} return a; }}"
    patched = Parts(compiled(tmp_path, text.replace("a *= 5", "a *= 6"), "y"))
    found = compare("x.c", Parts(compiled(tmp_path, text)), patched)
    [part] = [part for part in patched.all if part.name.startswith(name)]
    assert found.original(part) is not None
    assert not part.is_fresh


RUN = """
extern int puts(const char *);
static const int numbers[] = { 3, 1, 4, 1, 5, 9, 2, 6 };
static const char *const words[] = { "one", "two" };
static int a, b;
int first(int n) { return numbers[n]; }
int second(int n) { return puts(words[n]); }
void shown(char *to, char *end)
{
	const char *from = " window";

	for (int most = 10; most-- && *from; to++, from++)
		if (to < end)
			*to = *from;
	first(0);
}
int third(void) { return puts("third"); }
int fourth(void) { b += 3; a += 7; return a + 5; }
"""


@pytest.mark.parametrize(("old", "new", "name"), [
    ("5, 9", "5, 8", "first"), ('"two"', '"TWO"', "second"), ('"third"', '"THIRD"', "third"),
    ("b += 3; a += 7;", "a += 3; b += 7;", "fourth"), ("a + 5", "a + 6", "fourth"), ("a + 5", "a + 5", ""),
])
def test_another_source_has_other_contents(tmp_path: Path, old: str, new: str, name: str) -> None:
    """A function is what runs when its strings, its tables and what it refers to are, too."""
    made(tmp_path, RUN, "run")
    found = match("x.c", made(tmp_path, RUN.replace(old, new), "pre").plain,
                  Image.module("run", tmp_path / "run-plain.o"))
    if name:
        with pytest.raises(MismatchError, match="not what runs"):
            found.prove()
    else:
        found.prove()
    for each in ("first", "second", "shown", "third", "fourth"):
        if each == name:
            with pytest.raises(MismatchError, match="not what runs"):
                found.require(each)
        else:
            assert found.require(each)


def test_the_end_of_a_loop_over_a_string(tmp_path: Path) -> None:
    """A bound that the loop does not reach is behind the string, and means that string, not what the next one has."""
    shown = Parts(compiled(tmp_path, RUN)).named("shown")
    assert shown is not None
    ends = [ref for ref in shown.refs if ref.part is not None and ref.part.is_string]
    assert {ref.at for ref in ends} == {0, 10}
    assert [ref.part.data for ref in ends if ref.part] == [b" window\0"] * len(ends)


def test_what_a_reference_means(tmp_path: Path) -> None:
    """An operand with an immediate behind it means the variable, not what stands before it."""
    text = "static long a, b;\nvoid f(void) { a = 5; b = 7; }\nlong g(void) { return a + b; }"
    parts = Parts(compiled(tmp_path, text))
    function = parts.named("f")
    assert function is not None
    assert {(ref.part.name if ref.part else "", ref.at) for ref in function.refs} == {("a", 0), ("b", 0)}


def test_calls_and_pointers(tmp_path: Path) -> None:
    """A call may go to new code; a pointer is no call."""
    parts = Parts(compiled(tmp_path, BASE))
    for name, branch in (("first", True), ("pointer", False)):
        function = parts.named(name)
        assert function is not None
        assert [ref.branch for ref in function.refs if ref.part and ref.part.is_func] == [branch]


ALTERNATIVE = """
#define ALTERNATIVE(more) asm volatile("661: nop; nop; nop; nop; nop\\n662:\\n" \
    ".pushsection .altinstructions,\\"a\\"\\n.long 661b-., 663f-.\\n" \
    ".word 7\\n.byte 662b-661b, 664f-663f\\n.popsection\\n" \
    ".pushsection .altinstr_replacement,\\"ax\\"\\n663: " more "\\n664:\\n.popsection")
int before(int n) { ALTERNATIVE(""); return n + 1; }
int after(int n) { ALTERNATIVE("jmp after"); return n + 2; }
"""


def test_an_alternative_that_takes_code_away(tmp_path: Path) -> None:
    """Its replacement has no bytes, and is not that of the next function, which begins where it is."""
    parts = Parts(compiled(tmp_path, ALTERNATIVE))
    sizes = {}
    for part in parts.functions():
        [entry] = [entry for entry in part.entries if entry.table == ".altinstructions"]
        replacement = entry.refs[1].part
        assert replacement is not None
        sizes[part.name] = len(replacement.data), [ref.part and ref.part.name for ref in replacement.refs]
    assert sizes == {"before": (0, []), "after": (5, ["after"])}
    changed = compiled(tmp_path, ALTERNATIVE.replace('"jmp after"', '"jmp before"'), "y")
    assert names(compare("x.c", parts, Parts(changed))) == {"after"}


TABLES = """
extern int puts(const char *);
static int six(void) { return 6; }
static const int numbers[] = { 3, 1, 4, 1, 5 };
static const char *const words[] = { "one", "two" };
static int (*const calls[])(void) = { six, 0 };
static const struct pair { int a, b; } shared = { 1, 2 };
static const struct pair *const holder = &shared, *volatile keeps = &shared;
const int known[] = { 2, 7, 1, 8 };
static int left[] = { 1, 2, 3 };
int first(int n) { return numbers[n] + 1; }
int second(int n) { return numbers[n] + puts(words[n]); }
int third(int n) { return calls[n]() + known[n] + left[n]++; }
int fourth(void) { return keeps->a + shared.b; }
"""


@pytest.mark.parametrize(("old", "new", "users"), [
    ("1, 5 }", "1, 6 }", {"first", "second"}), ("1, 5 }", "1, 5, 9 }", {"first", "second"}),
    ('"two" }', '"TWO" }', {"second"}), ('"two" }', '"two", "three" }', {"second"}),
    ("six, 0", "0, six", None), ("2 };\nstatic const struct", "3 };\nstatic const struct", None), ("8 }", "9 }", None),
    ("2, 3 }", "2, 4 }", None),
])
def test_constants_go_with_those_who_use_them(tmp_path: Path, old: str, new: str, users: set[str] | None) -> None:
    """A table of this source is changed by replacing its users, unless others know where it is."""
    assert TABLES.count(old) == 1
    before, after = (Parts(compiled(tmp_path, text, name)) for text, name in (
        (TABLES, "a"), (TABLES.replace(old, new), "b")))
    if users is None:
        with pytest.raises(BuildError, match="the running kernel has it in use"):
            compare("x.c", before, after)
        return
    found = compare("x.c", before, after)
    assert names(found) == users
    assert found.notes
    table = after.named("numbers" if "first" in users else "words")
    assert table is not None
    assert found.original(table) is None


@pytest.mark.parametrize(
    ("compiled", "runs", "same"),
    [
        ("./include/linux/fs.h", "include/linux/fs.h", True),
        ("./include/linux/fs.h", "/somewhere/linux-7.3/include/linux/fs.h", True),
        ("kernel/fork.c", "/somewhere/linux-7.3/kernel/fork.c", True),
        ("kernel/fork.c", "/somewhere/linux-7.3/other-kernel/fork.c", False),
        ("kernel/fork.c", "other/kernel/fork.c", False),
        ("kernel/fork.c", "/somewhere/kernel/fork.c and more", False),
        ("fork", "/somewhere/fork", False),
    ],
)
def test_names_of_sources(compiled: str, runs: str, same: bool) -> None:
    """A kernel that was built in a directory of its own names its sources by another way to them."""
    assert _is_name_of(compiled.encode() + b"\0", runs.encode() + b"\0more") is same


def test_data_of_which_nothing_has_a_name(tmp_path: Path) -> None:
    """What UBSAN has in .data comes along by reference alone, be there named variables beside it or not."""
    text = "int shifted(int a, int n) { return a << n; }\nint other(int a, int n) { return a >> n; }\n"
    for more in ("", "int named = 5;\n"):
        parts = Parts(made(tmp_path, text + more, "x", "-fsanitize=shift", "-fno-reorder-blocks-and-partition").named)
        data = {part.name: [ref.part for ref in part.refs if ref.part is not None and ref.part.name == ".data"]
                for part in parts.functions()}
        assert data["shifted"]
        assert data["other"]
        assert not {id(part) for part in data["shifted"]} & {id(part) for part in data["other"]}


WARNING = """
#define WARNING(format, line) ({ void *bug; asm volatile("lea 2f(%%rip), %0\\n1:\\n" \
    ".pushsection __bug_table,\\"aw\\"\\n" \
    "2: .long 1b-., %c1-., %c2-.\\n.word %c3, 5\\n.popsection" \
    : "=r"(bug) : "i"(format), "i"("FILE"), "i"(line)); bug; })
extern void warn(void *, int);
void first(int n) { warn(WARNING("first %d", 7), n); }
void second(int n) { warn(WARNING("second %d", 8), n); warn(WARNING("third %d", 9), n); }
"""


def test_what_code_hands_on_of_a_table(tmp_path: Path) -> None:
    """The code of a warning refers to its own entry of the bug table (7.x), and changes with what that says."""
    parts = Parts(compiled(tmp_path, WARNING))
    for part, count in zip(parts.functions(), (1, 2), strict=True):
        handed = [ref.part.entry for ref in part.refs if ref.part is not None and ref.part.entry is not None]
        assert handed == part.entries
        assert [len(entry.data) for entry in part.entries] == [16] * count
        assert [len(entry.refs) for entry in part.entries] == [3] * count
    for old, new, changed in (("third %d", "3rd %d", {"second"}), ("8)", "18)", set())):
        other = Parts(compiled(tmp_path, WARNING.replace(old, new), "y"))
        assert names(compare("x.c", parts, other)) == changed


@pytest.mark.parametrize(
    ("per_cpu", "gone"), [((0, 0x30), {0x1000, 0x1020, 0x1FFF}), ((0x1010, 0x1030), {0x1000, 0x1FFF})]
)
def test_per_cpu_variables_stay(per_cpu: tuple[int, int], gone: set[int]) -> None:
    """Where the kernel has their first values in what it frees (6.15), their addresses are good all the same."""
    marks = {"__init_begin": 0x1000, "__init_end": 0x2000, "__per_cpu_start": per_cpu[0], "__per_cpu_end": per_cpu[1]}
    image = Image("vmlinux", Path(), Kallsyms([KernelSymbol(place, "D", name) for name, place in marks.items()]))
    assert {place for place in (0x20, 0x1000, 0x1020, 0x1FFF, 0x2000) if image.gone(place)} == gone
