# SPDX-License-Identifier: MIT
"""C programs as data: what a generator makes of chance, what an edit changes, and what is written down at the end."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field

COST = 20_000
"""Steps that a call of an entry may take, roughly."""

KINDS = {
    "u64": "u64 @", "u32": "u32 @", "u16": "u16 @", "u8": "u8 @", "s64": "s64 @", "s32": "s32 @", "s8": "s8 @",
    "bool": "bool @", "small": "unsigned int @", "buffer": "u64 *@", "pair": "struct pair @",
    "pointer": "const struct pair *@", "bits": "struct bits @", "function": "u64 (*@)(u64)", "text": "const char *@",
    "void": "void @", "slot": "u64 *@",
}  # fmt: skip
"""Kinds of parameters and results: how each is declared."""

NUMBERS = ("u64", "u32", "u16", "u8", "s64", "s32", "s8", "bool")

READS = {
    "pair": ("@.a", "@.b"), "pointer": ("@->a", "@->b"), "bits": ("@.low", "@.middle", "@.high"), "text": ("@[0]",),
    "slot": ("*@",),
}  # fmt: skip
"""How a value of a kind is read as a number, where it is none by itself; "@" is the value."""

TYPES = """struct pair {
	u64 a;
	u32 b;
};

struct bits {
	u32 low : 5;
	s32 middle : 11;
	u32 high : 16;
};

union word {
	u64 whole;
	u32 half[2];
	u8 bytes[8];
};

struct node {
	const struct node *next;
	u64 value;
};

"""


class Node:
    """A piece of C: *text* with @0, @1 and so on where its kids stand.

    Its kind says what an edit may do: "const", "bound" (a constant from 1 to 8), "op", "compare", "shift", "statement",
    "block" (its kids are statements), "if", "loop", "string", "fixed" (nothing), or "value".
    """

    __slots__ = ("kids", "kind", "text")

    def __init__(self, text: str, *kids: Node, kind: str = "value") -> None:
        self.text, self.kids, self.kind = text, list(kids), kind

    def __str__(self) -> str:
        if self.kind == "block":
            return "".join(map(str, self.kids))
        return re.sub(r"@(\d+)", lambda found: str(self.kids[int(found[1])]), self.text)

    def walk(self) -> Iterator[Node]:
        """Yield it and all that is in it."""
        yield self
        for kid in self.kids:
            yield from kid.walk()

    def cost(self, program: Program) -> int:
        """Return about how many steps it takes."""
        below = 1 + sum(kid.cost(program) for kid in self.kids)
        return below * 8 if self.kind == "loop" else below


class Call(Node):
    """A call of a function of the program; *wrap* makes a number of its result, "#"."""

    __slots__ = ("name", "wrap")

    def __init__(self, name: str, kids: list[Node], wrap: str = "(u64)#") -> None:
        super().__init__("", *kids, kind="call")
        self.name, self.wrap = name, wrap

    def __str__(self) -> str:
        return self.wrap.replace("#", f"{self.name}({', '.join(map(str, self.kids))})")

    def cost(self, program: Program) -> int:
        """Return about how many steps it takes, with what it calls."""
        return super().cost(program) + program.cost(self.name)


def const(value: int) -> Node:
    """Return a constant."""
    return Node(f"{value & 0xFFFFFFFFFFFFFFFF:#x}ULL", kind="const")


def fixed(text: str) -> Node:
    """Return a piece that no edit changes."""
    return Node(text, kind="fixed")


@dataclass
class Variable:
    """A variable with static storage.

    Attributes:
        name: Its name.
        type: What is declared: "u32 @", "u64 @[8]".
        start: Its initial value, or "".
        attributes: After its name: "__read_mostly".
        cpu: What defines it when it is per CPU: "DEFINE_PER_CPU".
        linkage: "static ", or "".
        length: Elements, of an array.
        reads: How a number is read of it; "@" is the variable, "$" an index.
        writes: How a number "#" is written to it; none for what is never written.
        sets: How a reset writes to all of it; by default as the first of *writes* does.
        is_reset: Whether a reset sets it: all are that the original writes.
        place: The name of the function whose own it is, or "".
        block: Which block of that function, from 1; 0 for the whole function.
    """

    name: str
    type: str
    start: str = ""
    attributes: str = ""
    cpu: str = ""
    linkage: str = "static "
    length: int = 0
    reads: tuple[str, ...] = ("@",)
    writes: tuple[str, ...] = ("@ = #",)
    sets: tuple[str, ...] = ()
    is_reset: bool = True
    place: str = ""
    block: int = 0

    def __str__(self) -> str:
        value = f" = {self.start}" if self.start else ""
        after = f" {self.attributes}" if self.attributes else ""
        if self.cpu:
            base, _, rest = self.type.partition("@")
            return f"{self.linkage}{self.cpu}({base.strip()}{rest}, {self.name}){value};\n"
        return f"{self.linkage}{self.type.replace('@', self.name)}{after}{value};\n"

    def reset(self, number: int) -> str:
        """Return statements that set it to what depends on the key of a reset."""
        if not self.writes:
            return ""
        lines = []
        for each in range(self.length or 1):
            value = f"oracle_mix(reset_key + {number * 64 + each})"
            lines += [text.replace("@", self.name).replace("#", value).replace("$", str(each)) + ";"
                      for text in self.sets or self.writes[:1]]
        return "\n".join(f"\t\t{line}" for line in lines) + "\n"


@dataclass
class Function:
    """A function.

    Attributes:
        name: Its name.
        result: The kind of its result.
        parameters: Kind and name of each.
        linkage: "static ", "static inline ", "static noinline ", "", …
        attributes: Before its name: '__section(".sched.text") '.
        locals: Local variables of type u64, by name; all are zero at first.
        declarations: Lines of other declarations.
        body: Its statements.
        value: What it returns; None for a shape that returns by itself, or void.
        level: It calls functions of lower levels only, unless it is a recursion that ends by itself.
        after: Lines after it: an alias, an export.
        weight: How many times its body runs, for a recursion.
        where: "" for the source, "header" for the header of the unit.
        is_entry: Whether the harness calls it.
        fragile: Whether its prototype stays as it is: its address is taken, or another function relies on it.
    """

    name: str
    result: str = "u64"
    parameters: list[tuple[str, str]] = field(default_factory=list)
    linkage: str = "static "
    attributes: str = ""
    locals: list[str] = field(default_factory=list)
    declarations: str = ""
    body: Node = field(default_factory=lambda: Node("", kind="block"))
    value: Node | None = None
    level: int = 0
    after: str = ""
    weight: int = 1
    where: str = ""
    is_entry: bool = False
    fragile: bool = False

    @property
    def head(self) -> str:
        """Its declaration without the semicolon."""
        listed = ", ".join(KINDS[kind].replace("@", name) for kind, name in self.parameters) or "void"
        return f"{self.linkage}{self.attributes}{KINDS[self.result].replace('@', f'{self.name}({listed})')}"

    @property
    def is_static(self) -> bool:
        """Whether nobody else can call it."""
        return self.linkage.startswith("static")

    def nodes(self) -> Iterator[Node]:
        """Yield all that an edit might change."""
        yield from self.body.walk()
        if self.value is not None:
            yield from self.value.walk()


@dataclass
class Program:
    """A source file, with a header of its own.

    Attributes:
        name: Its file is NAME.c, its header NAME.h.
        includes: Headers of the kernel.
        macros: Lines after the includes.
        variables: Its variables.
        functions: Its functions, in the order in which they stand.
        extras: Pieces of text that stand before the function of that name.
        taken: Names at the level of the file.
    """

    name: str
    includes: list[str] = field(default_factory=lambda: ["linux/types.h", "linux/compiler.h", "linux/bug.h"])
    macros: str = ""
    variables: list[Variable] = field(default_factory=list)
    functions: list[Function] = field(default_factory=list)
    extras: dict[str, str] = field(default_factory=dict)
    taken: set[str] = field(default_factory=set)

    def function(self, name: str) -> Function:
        """Return the function *name*."""
        return next(one for one in self.functions if one.name == name)

    def own(self, function: Function) -> list[Variable]:
        """Return the variables of a function's own."""
        return [one for one in self.variables if one.place == function.name]

    def mentions(self, function: Function, name: str) -> bool:
        """Tell whether a function has the word *name*."""
        return re.search(rf"\b{name}\b", self._function(function)) is not None

    def cost(self, name: str) -> int:
        """Return about how many steps a call of a function takes."""
        function = self.function(name)
        below = function.body.cost(self) + (function.value.cost(self) if function.value else 0)
        return min(below * function.weight, 10 * COST)

    def fits(self) -> bool:
        """Tell whether no entry takes too long."""
        return all(self.cost(one.name) <= COST for one in self.functions if one.is_entry)

    # ---- text ----

    def header(self) -> str:
        """Return its header."""
        text = "/* SPDX-License-Identifier: MIT */\n" + TYPES
        return text + "".join(self._function(one) for one in self.functions if one.where == "header")

    def source(self) -> str:
        """Return its source."""
        out = ["// SPDX-License-Identifier: MIT\n", *(f"#include <{name}>\n" for name in self.includes),
               '#include "oracle.h"\n', f'#include "{self.name}.h"\n\n', "static u64 reset_key;\n", self.macros]
        out += [str(one) for one in self.variables if not one.place and not one.start.startswith("&")]
        inside = [one for one in self.functions if not one.where]
        out += ["\n", *(f"{one.head};\n" for one in inside), "\n"]
        # tables of functions and pointers stand after the declarations of what they have
        out += [str(one) for one in self.variables if not one.place and one.start.startswith("&")]
        out.append("\n")
        for one in inside:
            out += [self.extras.get(one.name, ""), self._function(one)]
        return "".join(out) + self._reset() + self._unit()

    def _function(self, function: Function) -> str:
        own = self.own(function)
        zero = {"void": "return", "pair": "return (struct pair){ 0 }", "bits": "return (struct bits){ 0 }",
                "text": 'return ""', "slot": "return &reset_key"}.get(function.result, "return 0")
        out = [function.head, "\n{\n", function.declarations, *(f"\tu64 {name} = 0;\n" for name in function.locals),
               *(f"\t{one}" for one in own if not one.block), "\n"]
        body = str(function.body)
        resets = "".join(one.reset(number) for number, one in self._resets() if one.place == function.name)
        if resets:
            out.append(f"\tif (unlikely(reset_key)) {{\n{resets}\t\t{zero};\n\t}}\n")
        out.append(body)
        if function.value is not None:
            out.append(f"\treturn {function.value};\n")
        return "".join(out) + "}\n" + function.after + "\n"

    def _resets(self) -> list[tuple[int, Variable]]:
        """Return what a reset sets, each with a number that stays when others come and go."""
        found = []
        for one in self.variables:
            if one.is_reset:
                seed = sum(ord(letter) * 31 ** at for at, letter in enumerate(f"{one.place}.{one.name}.{one.block}"))
                found.append((seed % 100_003, one))
        return found

    def _reset(self) -> str:
        direct = "".join(one.reset(number) for number, one in self._resets() if not one.place)
        nested = []
        for function in self.functions:
            if any(one.is_reset for one in self.own(function)):
                arguments = ", ".join(_ZERO.get(kind, "0") for kind, _ in function.parameters)
                nested.append(f"\t\t{function.name}({arguments});\n")
        return ("static void reset(u64 key)\n{\n\treset_key = key | 1;\n\t{\n" + direct + "".join(nested)
                + "\t}\n\treset_key = 0;\n}\n\n")

    def _unit(self) -> str:
        entries = ", ".join(sorted(one.name for one in self.functions if one.is_entry))
        return (f"static u64 (*const entries[])(u64, u64) = {{ {entries} }};\n\n"
                f"const struct oracle_unit unit_{self.name} = {{\n\t.name = \"{self.name}\",\n\t.entries = entries,\n"
                "\t.count = ARRAY_SIZE(entries),\n\t.reset = reset,\n};\n")


_ZERO = {"buffer": "&reset_key", "pair": "(struct pair){ 0 }", "pointer": "&(struct pair){ 0 }",
         "bits": "(struct bits){ 0 }", "function": "NULL", "text": '""', "slot": "&reset_key"}
