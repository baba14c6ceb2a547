# SPDX-License-Identifier: MIT
"""Shapes of code, each one that compilers, objtool or live patching treat in a way of its own."""

from __future__ import annotations

import random

from oracle.chance import HELPERS, STATE, WORDS, Chance, Scope
from oracle.code import KINDS, Call, Node, Program, const, fixed
from oracle.state import State

SECTIONS = (".sched.text", ".kprobes.text", ".spinlock.text", ".cpuidle.text", ".text.unlikely", ".softirqentry.text",
            ".text.own")  # fmt: skip
"""Sections that code may be put into by name."""


JUMP_TABLE = """#ifdef __annotate_jump_table
#define OWN_JUMP_TABLE __annotate_jump_table
#else
#define OWN_JUMP_TABLE __section(".data.rel.ro.c_jump_table")
#endif

"""
"""Where objtool looks for the tables that a computed goto uses."""


class Shapes(State):
    """Adds functions to a program."""

    def trace(self, node: Node) -> Node:
        """Return a statement that shows a number."""
        return self.chance.line("oracle_trace(@0);", node)

    def _linkage(self) -> str:
        return self.rng.choice(("static ", "static ", "static noinline ", "static inline ", "static __always_inline ", ""))

    def plain(self) -> None:
        """A function with parameters of any kind, called by others."""
        kinds = [kind for kind in KINDS if kind not in ("void", "function", "buffer", "small", "pointer")]
        parameters = [(self.rng.choice([kind for kind in KINDS if kind not in ("void", "slot", "function")]), name)
                      for name in "abcdef"[:self.rng.randrange(1, 7)]]
        linkage = self._linkage()
        section = f'__section("{self.rng.choice(SECTIONS)}") ' if self.chance.one_in(6) and "inline " not in linkage else ""
        self.function(self.rng.choice([kind for kind in kinds if kind != "slot"]), tuple(parameters), linkage=linkage,
                      attributes=section, statements=self.rng.randrange(1, 5))

    def header(self) -> None:
        """An inline function in the header."""
        self.function(parameters=(("u64", "a"), ("u64", "b")), linkage="static inline ", statements=1, where="header")

    def neighbours(self) -> None:
        """Static functions of one section, which call each other without a relocation."""
        section = f'__section("{self.rng.choice(SECTIONS)}") '
        first = self.function(linkage="static noinline ", attributes=section)
        second = self.function(linkage="static noinline ", attributes=section)
        second.body.kids.append(self.trace(Call(first.name, [const(3)])))
        third = self.function(linkage="", attributes=section)
        third.body.kids.append(self.trace(Call(second.name, [fixed("a")])))

    def recursion(self) -> None:
        """A function that calls itself, and two that call each other."""
        name = self.chance.name(self.program, HELPERS)
        made = self.function(parameters=(("small", "n"), ("u64", "a")), linkage="static ", name=name, weight=8, statements=1,
                             fragile=True)
        made.body.kids.insert(0, Node("\tif (!n)\n\t\treturn @0;\n", self.chance.number(Scope(self.program, made))))
        made.value = Node(f"{name}(n - 1, @0) {self.rng.choice('+^-')} @1", made.value or const(1), const(5), kind="value")
        one, two = (self.chance.name(self.program, HELPERS) for _ in range(2))
        shared = (("small", "n"), ("u64", "a"))
        for mine, other in ((one, two), (two, one)):
            part = self.function(parameters=shared, linkage="static noinline ", name=mine, weight=8, statements=1, fragile=True)
            part.body.kids.insert(0, Node("\tif (!n)\n\t\treturn @0;\n", self.chance.number(Scope(self.program, part), 1)))
            part.value = Node(f"{other}(n - 1, @0) + @1", fixed("x0"), const(self.rng.randrange(9)))
        self.program.function(two).level = self.program.function(one).level

    def clones(self) -> None:
        """Functions that the compiler makes clones of: a parameter that is always the same, a field alone, a part."""
        same = self.function(parameters=(("u64", "a"), ("u64", "mode")), linkage="static noinline ", fragile=True)
        field_ = self.function(parameters=(("pointer", "p"), ("u64", "a")), linkage="static noinline ")
        part = self.function(parameters=(("u64", "a"),), linkage="static ", statements=6)
        scope = Scope(self.program, part)
        part.body.kids.insert(0, Node("\tif (likely(a & @0))\n\t\treturn @1;\n", const(0xFFF), self.chance.leaf(scope)))
        mode = const(self.rng.randrange(5))
        for caller in range(2):
            user = self.function(linkage=self.rng.choice(("static ", "")), statements=1)
            for callee, more in ((same, [mode] if caller == 0 or self.chance.one_in(2) else [const(9)]), (part, [])):
                user.body.kids.append(self.trace(Call(callee.name, [fixed("a + x0"), *more])))
            user.body.kids.append(self.trace(self.chance.call(
                Scope(self.program, user), 2, field_) or const(0)))

    def labels(self) -> None:
        """An interpreter that jumps through a table of labels."""
        made = self.function(linkage=self.rng.choice(("static noinline ", "")), statements=1)
        count = self.rng.randrange(3, 7)
        scope = Scope(self.program, made)
        name = self.rng.choice(("jumptable", "ops", "targets"))
        listed = ", ".join(f"&&l{number}" for number in range(count))
        # a target that is a constant is more than objtool can follow
        kids = []
        text = (f"next:\n\tif (pc > {self.rng.randrange(3, 9)})\n\t\tgoto out;\n\tOPTIMIZER_HIDE_VAR(pc);\n"
                f"\tgoto *{name}[(pc++ ^ a) % {count}];\n")
        for number in range(count):
            kids.append(self.chance.number(scope, 2))
            text += f"l{number}:\n\tacc {self.rng.choice(('+=', '^=', '-='))} @{number};\n"
            text += "\tgoto next;\n" if number == count - 1 or not self.chance.one_in(4) else ""
        made.declarations = (f"\tstatic const void *const {name}[] OWN_JUMP_TABLE = {{ {listed} }};\n"
                             "\tunsigned int pc = 0;\n\tu64 acc = a;\n")
        self.program.macros = JUMP_TABLE
        made.body.kids.append(Node(f"{text}out:\n\tx0 += acc;\n", *kids, kind="labels"))
        made.weight = 8

    def switches(self) -> None:
        """A switch that becomes a table of constants, with a name of the compiler's own."""
        made = self.function(linkage=self._linkage())
        cases = "".join(f"\tcase {number}:\n\t\treturn @{number};\n" for number in range(8))
        kids = [const(self.rng.randrange(1, 1000)) for _ in range(8)]
        made.body.kids.append(Node(f"\tswitch (@8 % 11) {{\n{cases}\tdefault:\n\t\tbreak;\n\t}}\n", *kids, fixed("(a ^ x0)"),
                                   kind="switch"))

    def strings(self) -> None:
        """Strings, tables of them, and functions that return them."""
        count = self.rng.randrange(2, 6)
        words = ", ".join(f'"{self.rng.choice(WORDS)}"' for _ in range(count))
        self.variable(name=self.chance.name(self.program, ("names", "words", "labels", "kinds")), length=count,
                      type=f"const char *const @[{count}]", start=f"{{ {words} }}", reads=("@[$][0]", "oracle_text(@[$])"),
                      writes=(), is_reset=False)
        made = self.function("text", linkage=self._linkage())
        user = self.function()
        user.body.kids.append(self.chance.line("oracle_trace(oracle_text(@0));", Call(made.name, [fixed("a")], "#")))
        if self.chance.one_in(2):
            self.include("linux/kernel.h")
            user.declarations += "\tchar line[48];\n"
            user.body.kids.append(Node(
                '\tscnprintf(line, sizeof(line), "%s %llu %x", @0, @1, (u32)@2);\n\toracle_trace(oracle_text(line));\n',
                self.chance.string(), fixed("a"), self.chance.number(Scope(self.program, user), 1), kind="statement"))

    def tables(self) -> None:
        """Functions called through tables: a constant one, one in a struct, and a pointer that changes."""
        targets = [self.function(linkage=self.rng.choice(("static ", "")), fragile=True).name for _ in range(3)]
        calls = self.chance.name(self.program, ("calls", "handlers", "methods"))
        user = self.function()
        self.program.extras[user.name] = (
            f"static u64 (*const {calls}[3])(u64) = {{ {', '.join(targets)} }};\n"
            f"static const struct {{\n\tconst char *name;\n\tu64 (*first)(u64);\n\tu64 (*second)(u64);\n}} {calls}_ops = "
            f'{{\n\t.name = "{self.rng.choice(WORDS)}", .first = {targets[0]}, .second = {targets[2]},\n}};\n\n')
        changing = self.variable(name=self.chance.name(self.program, ("handler", "hook", "method")), type="u64 (*@)(u64)",
                                 start=f"&{targets[1]}", reads=("@(oracle_step)",),
                                 writes=(f"@ = (#) & 1 ? {targets[0]} : {targets[1]}",))
        scope = Scope(self.program, user)
        for text in (f"{calls}[@0 % 3](a)", f"{calls}_ops.first(@0)", f"{calls}_ops.second(@0) + {calls}_ops.name[0]"):
            user.body.kids.append(self.trace(Node(text, self.chance.number(scope, 1), kind="indirect")))
        self.use(user, changing)
        self.restrain(user)

    def nodes(self) -> None:
        """A list of static structs that point to each other."""
        name = self.chance.name(self.program, ("chain", "list", "ring"))
        user = self.function()
        count = self.rng.randrange(2, 5)
        parts = [f"static const struct node {name}_{number} = {{ "
                 f"{f'&{name}_{number - 1}' if number else 'NULL'}, {self.rng.randrange(999)} }};\n" for number in range(count)]
        self.program.extras[user.name] = "".join(parts) + "\n"
        user.body.kids.append(Node(f"\tfor (const struct node *at = &{name}_{count - 1}; at; at = at->next) {{\n"
                                   f"\t\tx0 += at->value;\n@0\t}}\n", Node("", kind="block"), kind="walk"))

    def varargs(self) -> None:
        """A function with a variable number of arguments."""
        self.include("linux/stdarg.h")
        name = self.chance.name(self.program, ("sum", "collect", "join"))
        user = self.function(fragile=True)
        self.program.extras[user.name] = (
            f"static noinline u64 {name}(unsigned int count, ...)\n{{\n\tva_list list;\n\tu64 total = {self.rng.randrange(9)};\n\n"
            f"\tva_start(list, count);\n\twhile (count--)\n\t\ttotal = total * {self.rng.randrange(2, 9)} + va_arg(list, u64);\n"
            "\tva_end(list);\n\treturn total;\n}\n\n")
        for count in (2, 4):
            given = ", ".join(f"(u64)@{number}" for number in range(count))
            user.body.kids.append(self.chance.line(f"oracle_trace({name}({count}, {given}));", *(
                self.chance.number(Scope(self.program, user), 1) for _ in range(count))))

    def fault(self) -> None:
        """A read that faults, and is continued elsewhere by the exception table."""
        self.include("linux/uaccess.h")
        made = self.function(linkage=self._linkage(), statements=1)
        made.declarations = "\tu64 got = 77;\n"
        made.body.kids.append(Node(
            "\tpagefault_disable();\n"
            "\t__get_kernel_nofault(&got, (u64 *)(a & 1 ? 0xffff800000000000UL + (a & 0xff8) : (unsigned long)&oracle_never),"
            " u64, fault);\n\tx0 ^= @0;\n\tif (0) {\nfault:\n\t\tx0 += @1;\n\t}\n\tpagefault_enable();\n\tx0 += got;\n",
            const(11), const(22), kind="statement"))

    def interrupts(self) -> None:
        """Interrupts switched off, a lock, atomic operations, features of the CPU: alternatives of all kinds."""
        self.include("linux/spinlock.h", "linux/atomic.h")
        lock = self.chance.name(self.program, ("lock", "guard"))
        count = self.variable(name=self.chance.name(self.program, STATE), type="atomic64_t @", start="ATOMIC64_INIT(4)",
                              reads=("atomic64_read(&@)", "atomic64_inc_return(&@)"),
                              writes=("atomic64_set(&@, #)", "atomic64_add(#, &@)"))
        made = self.function(linkage=self._linkage())
        self.program.extras[made.name] = f"static DEFINE_SPINLOCK({lock});\n\n"
        made.declarations = "\tunsigned long saved;\n"
        made.body.kids.append(Node(
            f"\tspin_lock_irqsave(&{lock}, saved);\n@0\tspin_unlock_irqrestore(&{lock}, saved);\n"
            "\tif (cpu_feature_enabled(X86_FEATURE_TSC))\n\t\tx0 += @1;\n\tif (boot_cpu_has(X86_FEATURE_K6_MTRR))\n\t\tx0 += @2;\n",
            self.chance.line("x0 += @0;", self.chance.number(Scope(self.program, made), 1)), const(3), const(5),
            kind="statement"))
        self.use(made, count)

    def cold(self) -> None:
        """Code that hardly ever runs, and functions that never return."""
        name = self.chance.name(self.program, ("die", "give_up", "complain"))
        made = self.function(linkage=self._linkage())
        self.program.extras[made.name] = (
            f"static noinline __cold void {name}(u64 why)\n{{\n\tpr_err(\"never %llu\\n\", why);\n\toracle_trace(why);\n}}\n\n"
            f"static void __noreturn {name}_for_good(void)\n{{\n\tpr_err(\"never\\n\");\n\tBUG();\n}}\n\n")
        made.body.kids.append(Node(
            f"\tif (unlikely(oracle_never)) {{\n\t\t{name}(@0);\n\t\tif (oracle_never == @1)\n\t\t\t{name}_for_good();\n\t\treturn @2;\n\t}}\n"
            f"\tif (unlikely((a & 0x3f) == @3))\n\t\t{name}_quiet(@0);\n", fixed("a"), const(5), fixed("1"), const(9),
            kind="statement"))
        self.program.extras[made.name] += (
            f"static __cold void {name}_quiet(u64 why)\n{{\n\toracle_trace(why + {self.rng.randrange(99)});\n}}\n\n")

    def wide(self) -> None:
        """Numbers of 128 bits, and instructions written by hand."""
        made = self.function(linkage=self._linkage(), parameters=(("u64", "a"), ("u64", "b")))
        made.body.kids.append(Node(
            "\t{\n\t\tunsigned __int128 wide = (unsigned __int128)a * @0 + b;\n\n\t\tx0 ^= (u64)(wide >> 64) + (u64)wide;\n\t}\n"
            '\tasm volatile("rolq %1, %0\\n\\txorq %2, %0" : "+r" (x0) : "i" (@1), "r" (b) : "cc");\n'
            '\tasm("bswapq %0" : "+r" (x0));\n',
            self.chance.number(Scope(self.program, made), 1), Node(str(self.rng.randrange(1, 63)), kind="fixed"),
            kind="statement"))

    def weak(self) -> None:
        """A weak function, an alias, an export."""
        self.include("linux/export.h")
        made = self.function(linkage="__weak ", fragile=True)
        if self.chance.one_in(2):
            other = f"{made.name}_alias"
            made.after = f'\nu64 {other}(u64 a) __attribute__((alias("{made.name}")));\n'
            user = self.function()
            self.program.extras[user.name] = f"u64 {other}(u64 a);\n\n"
            user.body.kids.append(self.trace(Node(f"{other}(@0)", self.chance.number(Scope(self.program, user), 1))))
        exported = self.function(linkage="", fragile=True)
        exported.after = f"EXPORT_SYMBOL_GPL({exported.name});\n"

    def memory(self) -> None:
        """Memory that is allocated, filled and freed."""
        self.include("linux/slab.h", "linux/string.h")
        made = self.function(linkage=self._linkage(), statements=1)
        made.declarations = "\tu64 *block;\n"
        made.body.kids.append(Node(
            "\tblock = kcalloc(@0, sizeof(*block), GFP_KERNEL);\n\tif (!block)\n\t\treturn 0;\n"
            "\tmemset(block, 3, @0 * sizeof(*block));\n\tblock[@0 - 1] = @1;\n"
            "\tfor (unsigned int i = 0; i < @0; i++)\n\t\tx0 += block[i];\n\tkfree(block);\n",
            Node(str(self.rng.randrange(2, 20)), kind="fixed"), self.chance.number(Scope(self.program, made), 1),
            kind="statement"))

    def shared_static(self) -> None:
        """An inline function with a static variable, in more than one function; static variables in blocks."""
        made = self.function(linkage="static __always_inline ", statements=1)
        self.use(made, self.variable(name=self.own_name(made), type="u64 @", start="3", place=made.name))
        for _ in range(2):
            user = self.function(statements=1)
            user.body.kids.append(self.trace(Call(made.name, [fixed("a")])))
        user = self.function(statements=2)
        name = self.own_name(user)
        for block in (1, 2):
            start = self.rng.randrange(9)
            user.body.kids.append(Node(
                f"\tif (a & {block}) {{\n\t\tstatic const u8 {name}[] = {{ {start}, {start + 1}, 4 }};\n\n"
                f"\t\tx0 += {name}[@0 % 3];\n\t}}\n", self.chance.number(Scope(self.program, user), 1), kind="statement"))

    def keys(self) -> None:
        """Jump labels: of a key that the kernel exports, and of one of the file's own."""
        self.include("linux/jump_label.h", "linux/mm.h")
        made = self.function(linkage=self._linkage())
        made.body.kids.append(Node(
            "\tif (static_branch_maybe(CONFIG_INIT_ON_ALLOC_DEFAULT_ON, &init_on_alloc))\n\t\tx0 += @0;\n\telse\n\t\tx0 ^= @1;\n",
            const(3), const(5), kind="statement"))
        if self.chance.one_in(2):
            key = self.chance.name(self.program, ("key", "fast_path"))
            user = self.function(statements=1)
            self.program.extras[user.name] = f"static DEFINE_STATIC_KEY_FALSE({key});\n\n"
            user.body.kids.append(Node(
                f"\tif (static_branch_unlikely(&{key}))\n\t\tx0 += @0;\n\tif ((a & 0xff) == 3)\n\t\tstatic_branch_enable(&{key});\n"
                f"\telse if ((a & 0xff) == 4)\n\t\tstatic_branch_disable(&{key});\n", const(7), kind="statement"))

    def grid(self) -> None:
        """An array of arrays, a compound literal, goto to the end on errors, a cleanup attribute."""
        size = self.rng.choice((2, 3, 4))
        self.variable(name=self.chance.name(self.program, STATE), type=f"u32 @[4][{size}]", length=4,
                      reads=(f"@[$][oracle_step % {size}]",), sets=tuple(f"@[$][{at}] = # + {at}" for at in range(size)),
                      writes=(f"@[$][{size - 1}] = #", "@[$][0] += #"))
        made = self.function(linkage=self._linkage())
        name = self.chance.name(self.program, ("leave", "release", "put"))
        self.program.extras[made.name] = (
            f"static inline void {name}(u64 *value)\n{{\n\toracle_trace(*value ^ {self.rng.randrange(99)});\n}}\n\n")
        scope = Scope(self.program, made)
        made.body.kids.append(Node(
            f"\t{{\n\t\tu64 held __cleanup({name}) = @0;\n\n\t\tif @1\n\t\t\tgoto out;\n@2\t\theld++;\n\t}}\n\tx0 += 2;\nout:\n\tx0 ^= @3;\n",
            self.chance.number(scope, 2), self.chance.truth(scope), self.chance.block(scope, 1), const(6), kind="statement"))

    def entry(self) -> None:
        """A function that the harness calls."""
        made = self.function(parameters=(("u64", "a"), ("u64", "b")), linkage=self.rng.choice(("static ", "")),
                             statements=self.rng.randrange(2, 7), fragile=True)
        made.is_entry = True
        scope = Scope(self.program, made)
        called = {node.name for one in self.program.functions for node in one.nodes() if isinstance(node, Call)}
        for one in [one for one in scope.callable() if one.name not in called and one.where == ""][:6]:
            made.body.kids.append(self.trace(self.chance.call(scope, 1, one)) if one.result != "void" else
                                  Node("\t@0;\n", self.chance.call(scope, 1, one), kind="statement"))
        made.level += 1


def program(name: str, seed: str) -> Program:
    """Make a source by chance: the same one for the same seed."""
    rng = random.Random(seed)
    while True:
        made = Program(name)
        shapes = Shapes(Chance(rng), made)
        first = [shapes.scalar, shapes.array, shapes.structure, shapes.per_cpu, shapes.header]
        for shape in rng.choices(first, k=rng.randrange(3, 7)):
            shape()
        others = [shapes.plain, shapes.plain, shapes.plain, shapes.neighbours, shapes.recursion, shapes.clones, shapes.labels,
                  shapes.switches, shapes.strings, shapes.tables, shapes.nodes, shapes.varargs, shapes.fault, shapes.interrupts,
                  shapes.cold, shapes.wide, shapes.weak, shapes.memory, shapes.shared_static, shapes.keys, shapes.grid,
                  shapes.array, shapes.per_cpu]  # fmt: skip
        for shape in rng.sample(others, k=rng.randrange(3, 8)):
            shape()
        shapes.local()
        for _ in range(rng.randrange(1, 4)):
            shapes.entry()
        shapes.local()
        if made.fits():
            return made
