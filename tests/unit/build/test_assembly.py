# SPDX-License-Identifier: MIT
"""The assembler's input taken apart: every reference names what it leads to, and the code is the same."""

from __future__ import annotations

import random
import subprocess
import sys
from pathlib import Path

import capstone
import pytest

from pylivepatch import BuildError
from pylivepatch.build import agreement, assembly
from pylivepatch.build.elf import Object, Section, Symbol
from pylivepatch.build.parts import Part, Parts

sys.path.insert(0, str(Path(__file__).parent))

from compiling import Made, assembled, made

TIED = """
#define SCHED __attribute__((section(".sched.text")))
#define READ_MOSTLY __attribute__((section(".data..read_mostly")))
extern int puts(const char *);
static SCHED __attribute__((noinline)) int wait(long *p) { return puts("wait") + (*p += 3); }
SCHED int sleep(long *p) { if (!p) return 0; return wait(p); }
static int ahead READ_MOSTLY = 1;
static long array[4] READ_MOSTLY = { 1, 2, 3, 4 };
static int behind READ_MOSTLY = 5;
int loop(void)
{
        long *p = array;

        asm("" : "+r"(p));
        for (; p != array + 4; p++)
                *p += ahead;
        return behind++;
}
int jumps(int n)
{
        static const void *const to[] = { &&one, &&two, &&three };
        goto *to[n];
one:    return puts("1");
two:    return puts("2") + 3;
three:  return puts("3") + 4;
}
static int zero, zeros[30];
int count(void) { zeros[3]++; return ++zero; }
__attribute__((cold, noinline)) static void rare(void) { puts("rare"); puts("cold"); }
int often(int n) { if (__builtin_expect(n == 7, 0)) rare(); return n; }
int alias(int n) __attribute__((alias("often")));
asm(".pushsection .text,\\"ax\\"\\n.globl by_hand\\n.type by_hand, @function\\nby_hand: ret\\n"
    ".size by_hand, .-by_hand\\n.popsection");
struct big { long a[9]; };
struct big constant(void) { return (struct big){ { 1, 2, 3, 4, 5, 6, 7, 8, 9 } }; }
"""


@pytest.fixture
def tied(tmp_path: Path) -> Made:
    """A source whose parts the assembler ties together."""
    return made(tmp_path, TIED, "x", "-fpatchable-function-entry=16,16", "-falign-functions=16")


def part(parts: Parts, name: str) -> Part:
    """Return a part by name."""
    found = parts.named(name)
    assert found is not None
    return found


def leads(parts: Parts, name: str) -> set[tuple[str, int]]:
    """Return the names and offsets that a part refers to."""
    return {(ref.part.name if ref.part else ref.external, ref.at) for ref in part(parts, name).refs}


def place(symbol: Symbol) -> tuple[int, int, str]:
    """Return where a symbol is; those that are not here are told apart by their names."""
    return id(symbol.section), symbol.value, "" if symbol.section else symbol.name


def padding(section: Section) -> set[int]:
    """Return where the code of a section has long nops, which do nothing whatever their operands are."""
    decoder = capstone.Cs(capstone.CS_ARCH_X86, capstone.CS_MODE_64)
    return {at for insn in decoder.disasm(bytes(section.data), 0)
            if section.executable and insn.mnemonic == "nop" and insn.size > 1
            for at in range(insn.address, insn.address + insn.size)}  # fmt: skip


def test_a_neighbour_of_an_explicit_section(tied: Made) -> None:
    """A jump to a static function has a relocation, which names it; as the kernel builds it there is none."""
    [plain] = [section for section in tied.plain.sections if section.name == ".sched.text"]
    assert "wait" not in {reloc.symbol.name for reloc in plain.relocs}
    assert ("wait", 0) in leads(Parts(tied.named), "sleep")


def test_the_end_of_an_array(tied: Made) -> None:
    """A pointer behind the last element is one into the array, and not to the variable that comes next."""
    found = leads(Parts(tied.named), "loop")
    assert {"array", "ahead", "behind"} <= {name for name, _ in found}
    assert ("array", 32) in found


def test_a_table_of_labels(tied: Made) -> None:
    """It belongs to the function into which it leads."""
    parts = Parts(tied.named)
    [table] = [each for each in parts.all if each.name.startswith("to.")]
    assert table.labels
    assert table.is_fresh
    assert {ref.part.name for ref in table.refs if ref.part} == {"jumps"}


def test_each_thing_has_a_section(tied: Made) -> None:
    """Functions, variables of all kinds, and what has two names; what was written in assembly stays where it is."""
    parts = Parts(tied.named)
    sections = [id(each.section) for each in parts.all if each.symbols and each.name != "by_hand"]
    assert len(sections) == len(set(sections))
    names = {each.name for each in parts.all}
    assert {"wait", "sleep", "array", "zero", "zeros", "rare", "jumps", "by_hand"} <= names
    assert {symbol.name for symbol in part(parts, "often").symbols} == {"often", "alias"}
    assert part(parts, "zeros").size == 120
    functions = [each for each in parts.functions() if not each.is_cold and each.name not in ("by_hand", "rare")]
    assert {each.section.align for each in functions} <= {16, 32}  # 32 where gcc 14 aligns a loop
    assert part(parts, "loop").lead == 16


def test_damage_is_seen(tied: Made) -> None:
    """Whatever is changed in one of the two objects, they do not agree any more."""
    dice = random.Random(1)
    checked = 0
    for _ in range(400):
        again = Object.parse(tied.named.pack())
        homes = [symbol.section for symbol in again.symbols if symbol.section is not None and symbol.size]
        section = dice.choice([one for one in homes if one.relocs or one.data])
        if section.relocs and dice.random() < 0.6:
            reloc = dice.choice(section.relocs)
            what = dice.choice(("addend", "symbol", "lost"))
            if what == "addend":
                reloc.addend += dice.choice((-8, 4, 16))
            elif what == "symbol":
                there = place(reloc.symbol)
                reloc.symbol = dice.choice([one for one in again.symbols if one.name and place(one) != there])
            else:
                section.relocs.remove(reloc)
        else:
            taken = {at for reloc in section.relocs for at in range(reloc.offset, reloc.offset + 8)}
            taken |= padding(section)
            if section.name == ".sched.text":
                taken |= set(range(16 + 5, 16 + 16))  # a jump that became long, and padding that differs
            free = [at for at in range(len(section.data)) if at not in taken]
            if not free:
                continue
            section.data[dice.choice(free)] ^= 1 << dice.randrange(8)
        checked += 1
        with pytest.raises(BuildError, match="taken apart"):
            agreement.check("x.c", tied.plain, again)
    assert checked > 300


def test_other_code_is_not_taken_for_the_same(tmp_path: Path, tied: Made) -> None:
    """Objects of two sources do not agree."""
    other = made(tmp_path, TIED.replace("+ 3; }", "+ 5; }"), "y")
    with pytest.raises(BuildError, match="taken apart"):
        agreement.check("x.c", tied.plain, other.named)


def test_debug_information_is_left_out(tmp_path: Path) -> None:
    """What is left assembles to the same code as without any; directives that look alike stay."""
    (tmp_path / "x.c").write_text(TIED)
    flags = ["gcc", "-O2", "-fno-asynchronous-unwind-tables", "-mcmodel=kernel", "-fno-pic", "-S", "-o"]
    texts = []
    for name, debug in (("without", "-g0"), ("with", "-gbtf")):
        subprocess.run([*flags, tmp_path / f"{name}.s", debug, tmp_path / "x.c"], check=True)
        texts.append(assembly.without_debug((tmp_path / f"{name}.s").read_text()))
    one, two = (assembled(tmp_path, text, name) for (text, _), name in zip(texts, ("one", "two"), strict=True))
    assert [(each.name, each.data, each.size) for each in one.sections if each.size] == [
        (each.name, each.data, each.size) for each in two.sections if each.size]
    assert not texts[0][1]
    assert ".section\t.BTF," in texts[1][1]
    assert ".local\tzero" in texts[1][0]


POINTER = """	mov $81985529216486895,%{reg}
1:
.pushsection runtime_ptr_table,"a"
	.long 1b - 8 - .
.popsection
"""
SHIFT = """	shrl $12,%{reg}
1:
.pushsection runtime_shift_bits,"a"
	.long 1b - 1 - .
.popsection
"""


@pytest.mark.parametrize("reg", ["rax", "rcx", "r15"])
def test_a_pointer_written_at_boot(reg: str, tmp_path: Path) -> None:
    """In a module the variable is read."""
    text = assembly.for_module(POINTER.format(reg=reg))
    assert text == f"\tmovq table(%rip), %{reg}\n"


@pytest.mark.parametrize("reg", ["eax", "ecx", "edx", "esi", "r11d"])
@pytest.mark.parametrize("bits", [0, 5, 31])
def test_a_shift_written_at_boot(reg: str, bits: int, tmp_path: Path) -> None:
    """In a module the value is shifted by what the variable holds; all other registers are what they were."""
    full = {"eax": "rax", "ecx": "rcx", "edx": "rdx", "esi": "rsi"}.get(reg, reg.rstrip("d"))
    others = [name for name in ("rax", "rbx", "rcx", "rdx", "rsi", "rdi", "r8", "r11") if name != full]
    kept = "\n".join(f"\tmovq ${number + 100}, %{name}" for number, name in enumerate(others))
    same = "\n".join(f"\tcmpq ${number + 100}, %{name}\n\tjne 9f" for number, name in enumerate(others))
    (tmp_path / "x.s").write_text(
        f"\t.globl main\nmain:\n\tpushq %rbx\n{kept}\n\tmovl $0xfedcba98, %{reg}\n"
        + assembly.for_module(SHIFT.format(reg=reg))
        + f"{same}\n\tcmpl ${0xfedcba98 >> bits}, %{reg}\n\tjne 9f\n\txorl %eax, %eax\n\tpopq %rbx\n\tret\n"
        f"9:\tmovl $1, %eax\n\tpopq %rbx\n\tret\n\t.data\nbits: .long {bits}\n"
        '\t.section .note.GNU-stack,"",@progbits\n')
    subprocess.run(["gcc", "-o", tmp_path / "x", tmp_path / "x.s"], check=True)
    assert subprocess.run([tmp_path / "x"], check=False).returncode == 0
