# SPDX-License-Identifier: MIT
"""Assembly cut into atoms, and what their references mean."""

from __future__ import annotations

import pytest
from texts import assembled, assembly, leads, reference

from pylivepatch.build.elf import Object
from pylivepatch.build.verify.assembly import MARK, Assembly
from pylivepatch.build.verify.reference import Reference

SOURCE = """
extern int puts(const char *), printk(const char *, ...);
#define EARLY __attribute__((section(".data..read_mostly")))
static const char *const *volatile before[4] EARLY = { 0 }, *const *volatile after EARLY = 0;
static int zeros[16], more;
void write(int n) { zeros[n] = more++; }
static const double number = 2.5;
struct bug { int where, file; short line, flags; };
int strings(void) { return puts("one") + puts("another") + zeros[3] + more; }
int loop(void) {
    int count = 0;
    for (const char *const *volatile *at = before; at != before + 4; at++)
        count += *at != 0;
    return count + (after != 0);
}
int jump(int n) {
    static const void *const table[] = { &&first, &&second, &&third };
    goto *table[n];
first: return puts("first");
second: return printk("second %d", n);
third: return 3;
}
__attribute__((cold, noinline)) static void unlikely(int n) { printk("cold %d", n); }
__attribute__((section(".sched.text"), noinline)) static int callee(int n) { return puts("callee") + n; }
__attribute__((section(".sched.text"))) int caller(int n) { return n < 0 ? (unlikely(n), 1) : callee(n + 1); }
__attribute__((alias("caller"))) int again(int n);
int warned(int n) {
    if (n)
        asm volatile("1: ud2\\n.pushsection __bug_table,\\"aw\\"\\n2: .long 1b - .\\n.word 42 # bug_entry::line\\n"
                     ".word 7\\n.popsection\\n"
                     ".pushsection .discard.x\\n.pushsection .discard.y\\n.byte 1\\n.popsection\\n.byte 2\\n"
                     ".popsection");
    return n;
}
asm(".pushsection .static_call.text,\\"ax\\"\\n.globl tramp\\ntramp:\\n.pushsection .discard.z\\n.quad tramp\\n"
    ".popsection\\n.byte 0xe9; .long caller - (. + 4)\\n.type tramp,@function\\n.size tramp, . - tramp\\n.popsection");
"""


def test_without_padding_it_is_the_compilers() -> None:
    """Marks change nothing: the object is what the compiler's own text gives, byte for byte and symbol for symbol."""
    text = assembly(SOURCE)
    plain, marked = Object.parse(assembled(text)), Object.parse(assembled(Assembly(text).layout(0)))
    assert [(each.name, each.type, each.flags, each.align, bytes(each.data), each.size) for each in plain.sections] == [
        (each.name, each.type, each.flags, each.align, bytes(each.data), each.size) for each in marked.sections]
    for one, two in zip(plain.sections, marked.sections, strict=True):
        assert [(row.offset, row.type, row.symbol.name, row.addend) for row in one.relocs] == [
            (row.offset, row.type, row.symbol.name, row.addend) for row in two.relocs]
    names = [{(each.name, each.value, each.size, each.type) for each in side.symbols if each.name
              and not each.name.startswith(".plp.")} for side in (plain, marked)]
    assert names[0] == names[1]
    assert any(each.name.startswith(MARK) for each in marked.symbols)


def test_the_end_of_an_array_is_not_the_next_variable() -> None:
    """A section and an offset are ambiguous where one variable ends and the next begins: two layouts are not."""
    found = reference(SOURCE)
    assert ("before", 32) in leads(found, "loop")
    assert ("after", 0) in leads(found, "loop")


def test_a_tail_call_that_the_assembler_has_resolved_is_a_reference() -> None:
    """Between functions of one section no relocation is left; what the jump goes to is known all the same."""
    found = reference(SOURCE)
    assert ("callee", 0) in leads(found, "caller")
    atom = found.named("caller")
    assert atom is not None
    assert any(ref.resolved and ref.branch for ref in found.piece(atom).refs)
    assert not any(ref.resolved for ref in found.original(atom).refs)


def test_a_table_of_labels_leads_into_its_function() -> None:
    """Its entries are places inside of the function, not the function."""
    found = reference(SOURCE)
    [table] = [atom for atom in found.text.atoms if atom.name.startswith("table.")]
    rows = leads(found, table.name)
    assert {name for name, _ in rows} == {"jump"}
    assert len({delta for _, delta in rows}) == 3
    assert all(delta for _, delta in rows)


def test_zeros_without_a_value_are_told_apart() -> None:
    """What the compiler leaves to the assembler to place has a place of its own, too."""
    assert {("zeros", 12), ("more", 0)} <= set(leads(reference(SOURCE), "strings"))


def test_entries_belong_to_the_function_that_they_are_written_in() -> None:
    """A table's entry has no label; its line is not kept for comparison."""
    found = reference(SOURCE)
    [entry] = found.text.ranked("__bug_table")
    assert entry.owner is found.named("warned")
    assert len(found.piece(entry).data) == 8
    assert [ref.target for ref in found.piece(entry).refs] == [found.named("warned")]
    assert not any("42" in line for line in found.named("warned").lines)


def test_a_section_goes_on_after_another_one_was_pushed() -> None:
    """What stands before and after a nested .pushsection is one piece."""
    found = reference(SOURCE)
    assert leads(found, "tramp") == [("caller", 0)]
    atom = found.named("tramp")
    assert atom is not None
    assert len(found.piece(atom).data) == 5


def test_another_name_is_the_same_thing() -> None:
    """An alias has no atom of its own."""
    found = reference(SOURCE)
    assert found.named("again") is found.named("caller")
    assert set(found.text.names_of(found.named("caller"))) >= {"again", "caller"}


@pytest.mark.parametrize("flags", [
    (), ("-ffunction-sections", "-fdata-sections"), ("-fpatchable-function-entry=16,16",),
])
def test_code_is_the_same_apart(flags: tuple[str, ...]) -> None:
    """Layouts differ in padding, and in jumps that are long when what they go to is far."""
    found = reference(SOURCE, *flags)
    for name in ("strings", "loop", "jump", "warned"):
        atom = found.named(name)
        assert atom is not None
        assert found.piece(atom).data == found.original(atom).data


def test_padding_for_a_loop_depends_on_the_function_alone() -> None:
    """A loop aligned to more than its function has the padding that it has at the beginning of a section."""
    text = ("\t.text\n\t.p2align 4\n\t.type one, @function\none:\n\tret\n\t.size one, .-one\n"
            "\t.p2align 4\n\t.type two, @function\ntwo:\n\tnop\n\t.p2align 5\n.L1:\n\tjmp .L1\n\t.size two, .-two\n")
    parsed = Assembly(text)
    found = Reference("x.c", parsed, [assembled(parsed.layout(factor)) for factor in (1, 2, 0)])
    atom = found.named("two")
    assert atom is not None
    assert atom.align == 32
    assert len(found.piece(atom).data) == 34
    assert len(found.original(atom).data) == 18, "where the function itself is at an odd multiple of 16"
