# SPDX-License-Identifier: MIT
"""Expressions and statements by chance, of what a function can see."""

from __future__ import annotations

import random
from dataclasses import dataclass, field

from oracle.code import NUMBERS, READS, Call, Function, Node, Program, Variable, const, fixed

OPERATORS = ("+", "-", "*", "^", "&", "|")
COMPARISONS = ("<", ">", "<=", ">=", "==", "!=")
INTERESTING = (0, 1, 2, 3, 7, 8, 15, 31, 63, 64, 100, 127, 128, 255, 256, 1000, 4095, 4096, 0x7FFF, 0xFFFF, 0x7FFFFFFF,
               0x80000000, 0xFFFFFFFF, 0x123456789ABCDEF, 0x8000000000000000, 0xFFFFFFFFFFFFFFFF)  # fmt: skip
WORDS = ("alpha", "beta", "gamma", "delta", "eps", "zeta-1", "eta two", "theta", "x", "", "kappa kappa", "longer than others",
         "mu\\n", "%d", "nu")  # fmt: skip
HELPERS = ("update", "check", "parse", "lookup", "merge", "step", "apply", "account", "find", "clamp_it", "fold", "prepare",
           "finish", "is_valid", "advance", "commit", "probe", "scan", "handle", "split", "emit", "rate")  # fmt: skip
STATE = ("count", "state", "last", "seen", "table", "total", "limit", "cursor", "stamp", "flags", "budget", "cache")


@dataclass
class Scope:
    """What an expression of a function can be made of.

    Attributes:
        program: The source.
        function: The function.
        fresh: Variables that were added for it.
    """

    program: Program
    function: Function
    fresh: list[Variable] = field(default_factory=list)

    def visible(self) -> list[Variable]:
        """Return the variables that it can read."""
        own = [one for one in self.program.own(self.function) if not one.block]
        hidden = {one.name for one in own}
        if self.function.where == "header":
            return [*own, *self.fresh]
        return [*(one for one in self.program.variables if not one.place and one.name not in hidden), *own, *self.fresh]

    def callable(self) -> list[Function]:
        """Return the functions that it can call: those of lower levels."""
        if self.function.where == "header":
            return [one for one in self.program.functions if one.where == "header" and one.level < self.function.level]
        return [one for one in self.program.functions if one.level < self.function.level and not one.is_entry]


class Chance:
    """Makes pieces of C for a scope."""

    def __init__(self, rng: random.Random) -> None:
        self.rng = rng

    def one_in(self, number: int) -> bool:
        """Tell, once in *number* times, that it is time."""
        return self.rng.randrange(number) == 0

    def name(self, program: Program, pool: tuple[str, ...]) -> str:
        """Return a name for the level of the file, which other files may have, too."""
        free = [name for name in pool if name not in program.taken]
        name = self.rng.choice(free) if free else f"{self.rng.choice(pool)}_{len(program.taken)}"
        program.taken.add(name)
        return name

    def constant(self) -> Node:
        """Return a constant: often one of the interesting ones."""
        if self.one_in(3):
            return const(self.rng.getrandbits(self.rng.choice((8, 16, 32, 64))))
        return const(self.rng.choice(INTERESTING))

    def bound(self) -> Node:
        """Return how often a loop runs."""
        return Node(str(self.rng.randrange(1, 9)), kind="bound")

    # ---- expressions ----

    def leaf(self, scope: Scope) -> Node:
        """Return a number that the function has at hand."""
        found = [self.constant]
        parameters = [(kind, name) for kind, name in scope.function.parameters if kind in NUMBERS or kind in READS
                      or kind in ("small", "buffer")]
        if parameters:
            kind, name = self.rng.choice(parameters)
            found += [lambda: self._parameter(kind, name)] * 4
        if scope.function.locals:
            found += [lambda: fixed(self.rng.choice(scope.function.locals))] * 4
        variables = [one for one in scope.visible() if one.reads]
        if variables:
            found += [lambda: self.read(self.rng.choice(variables))] * 4
        return self.rng.choice(found)()

    def _parameter(self, kind: str, name: str) -> Node:
        if kind == "buffer":
            return fixed(f"{name}[{self.rng.randrange(4)}]")
        return fixed(f"(u64){self.rng.choice(READS.get(kind, ('@',))).replace('@', name)}")

    def read(self, variable: Variable, index: Node | None = None) -> Node:
        """Return a read of a variable as a number."""
        text = f"(u64){self.rng.choice(variable.reads).replace('@', variable.name)}"
        if "$" not in text:
            return fixed(text)
        at = index or (self.constant() if self.one_in(3) else fixed("oracle_step"))
        return Node(text.replace("$", f"(@0) % {variable.length}"), at)

    def number(self, scope: Scope, depth: int = 3) -> Node:
        """Return an expression of type u64."""
        if depth <= 0 or self.one_in(5):
            return self.leaf(scope)

        def more() -> Node:
            return self.number(scope, depth - 1)

        choice = self.rng.randrange(20)
        if choice < 6:
            return Node(f"(@0 {self.rng.choice(OPERATORS)} @1)", more(), more(), kind="op")
        if choice < 8:
            kind = self.rng.choice(NUMBERS[1:])
            return Node(f"(u64)({kind})(({kind})@0 {self.rng.choice(OPERATORS)} ({kind})@1)", more(), more(), kind="op")
        if choice < 10:
            return self.truth(scope, depth)
        if choice < 12:
            return Node("(@0 ? @1 : @2)", self.truth(scope, depth), more(), more())
        if choice == 12:
            return Node(f"(@0 {self.rng.choice(('<<', '>>'))} (@1 & 63))", more(), more(), kind="shift")
        if choice == 13:
            return Node(f"(@0 {self.rng.choice(('/', '%'))} (@1 | 1))", more(), more(), kind="shift")
        if choice == 14:
            return Node("(u64)((s64)@0 / (s64)((@1 & 0xff) | 1))", more(), more())
        if choice == 15:
            return Node(f"(u64)({self.rng.choice(NUMBERS)})@0", more())
        call = self.call(scope, depth - 1) if choice < 19 else None
        return call or more()

    def truth(self, scope: Scope, depth: int = 2) -> Node:
        """Return a comparison."""
        kind = self.rng.choice(("u64", "s64", "u32", "s32", "u8"))
        return Node(f"(({kind})@0 {self.rng.choice(COMPARISONS)} ({kind})@1)", self.number(scope, depth - 1),
                    self.number(scope, depth - 2), kind="compare")

    def call(self, scope: Scope, depth: int = 2, function: Function | None = None) -> Call | None:
        """Return a call of some function as a number, if there is one to call."""
        found = [one for one in scope.callable() if one.result != "void" or function]
        if not found and function is None:
            return None
        chosen = function or self.rng.choice(found)
        arguments = [self.argument(kind, scope, depth) for kind, _ in chosen.parameters]
        reads = READS.get(chosen.result)
        wrap = self.rng.choice(reads).replace("@", "#") if reads else "#"
        return Call(chosen.name, arguments, wrap if chosen.result == "void" else f"(u64){wrap}")

    def argument(self, kind: str, scope: Scope, depth: int) -> Node:
        """Return an argument of a kind."""
        if kind == "small":
            return Node("(unsigned int)(@0 & 7)", self.number(scope, depth - 1))
        if kind == "pair":
            return Node("(struct pair){ @0, (u32)@1 }", self.number(scope, depth - 1), self.leaf(scope))
        if kind == "pointer":
            return Node("&(struct pair){ @0, (u32)@1 }", self.number(scope, depth - 1), self.leaf(scope))
        if kind == "bits":
            return Node("(struct bits){ @0 & 31, @1 & 1023, @2 & 0xffff }", self.leaf(scope), self.leaf(scope),
                        self.leaf(scope))
        if kind == "buffer":
            return Node("(u64[4]){ @0, @1, @2, 4 }", self.leaf(scope), self.leaf(scope), self.leaf(scope))
        if kind == "text":
            return self.string()
        if kind == "slot":
            return fixed("&(u64){ 5 }")
        if kind == "function":
            return self.pointer(scope)
        return Node(f"({kind})@0", self.number(scope, depth - 1))

    def pointer(self, scope: Scope) -> Node:
        """Return the name of a function that takes and returns u64."""
        found = [one for one in scope.callable() if one.result == "u64" and [kind for kind, _ in one.parameters] == ["u64"]
                 and one.fragile and not one.where]
        return fixed(self.rng.choice(found).name if found else "oracle_mix")

    def string(self) -> Node:
        """Return a string."""
        return Node(f'"{self.rng.choice(WORDS)}"', kind="string")

    # ---- statements ----

    def statement(self, scope: Scope, depth: int = 2) -> Node:
        """Return a statement."""
        function = scope.function
        writable = [one for one in scope.visible() if one.writes and (one.is_reset or one in scope.fresh)]
        choice = self.rng.randrange(24)
        if choice < 6 and function.locals:
            operator = self.rng.choice(("=", "+=", "^=", "-=", "|="))
            return self.line(f"{self.rng.choice(function.locals)} {operator} @0;", self.number(scope))
        if choice < 11 and writable:
            return self.write(self.rng.choice(writable), scope)
        if choice < 14 and depth:
            return self.condition(scope, depth)
        if choice < 16 and depth:
            return self.loop(scope, depth)
        if choice == 16 and depth:
            return self.switch(scope)
        if choice == 17 and function.value is not None:
            return Node("\tif @0\n\t\treturn @1;\n", self.truth(scope), fixed(self._leave(function)), kind="statement")
        if choice == 18:
            return self.line(self.rng.choice((
                "WARN_ON_ONCE(oracle_never);", 'WARN(oracle_never, "never %llu\\n", @0);', "WARN_ON(oracle_never == 7);",
                "BUG_ON(oracle_never == 9);", 'pr_debug("value %llu\\n", @0);', "barrier();", "might_sleep();",
                "cond_resched();")), self.number(scope))
        if choice < 21:
            call = self.call(scope)
            if call:
                return self.line("oracle_trace(@0);", call)
        return self.line("oracle_trace(@0);", self.number(scope))

    def _leave(self, function: Function) -> str:
        return {"pair": "(struct pair){ 1, 2 }", "bits": "(struct bits){ 1, 2, 3 }", "text": '"left"',
                "slot": "&reset_key"}.get(function.result, str(self.rng.randrange(2)))

    def line(self, text: str, *kids: Node) -> Node:
        """Return a statement of one line."""
        return Node(f"\t{text}\n", *kids, kind="statement")

    def write(self, variable: Variable, scope: Scope, value: Node | None = None) -> Node:
        """Return a statement that writes to a variable."""
        text = self.rng.choice(variable.writes).replace("@", variable.name).replace("#", "@0")
        return self.line(text.replace("$", f"(@1) % {variable.length}") + ";", value or self.number(scope),
                         self.leaf(scope))

    def block(self, scope: Scope, depth: int, most: int = 3) -> Node:
        """Return some statements."""
        return Node("", *(self.statement(scope, depth) for _ in range(self.rng.randrange(1, most + 1))), kind="block")

    def condition(self, scope: Scope, depth: int) -> Node:
        """Return an if."""
        test = self.rng.choice(("@0", "(likely@0)", "(unlikely@0)"))
        if self.one_in(2):
            return Node(f"\tif {test} {{\n@1\t}} else {{\n@2\t}}\n", self.truth(scope), self.block(scope, depth - 1),
                        self.block(scope, depth - 1), kind="if")
        return Node(f"\tif {test} {{\n@1\t}}\n", self.truth(scope), self.block(scope, depth - 1), kind="if")

    def loop(self, scope: Scope, depth: int) -> Node:
        """Return a loop that ends."""
        name = f"i{depth}"
        text = self.rng.choice((
            f"\tfor (unsigned int {name} = 0; {name} < @0; {name}++) {{\n@1\t}}\n",
            f"\t{{\n\tint {name} = @0;\n\n\twhile ({name}--) {{\n@1\t}}\n\t}}\n",
            f"\t{{\n\tint {name} = @0;\n\n\tdo {{\n@1\t}} while (--{name} > 0);\n\t}}\n"))
        inner = self.block(scope, depth - 1)
        inner.kids.append(self.line(f"oracle_trace({name});"))
        return Node(text, self.bound(), inner, kind="loop")

    def switch(self, scope: Scope, target: str = "") -> Node:
        """Return a switch of many cases: constants alone become a table, code becomes jumps."""
        cases = sorted(self.rng.sample(range(24), self.rng.randrange(3, 12)))
        if not target:
            target = self.rng.choice(scope.function.locals) if scope.function.locals else ""
        kids = [self.number(scope, 1)]
        text = "\tswitch (@0 % 16) {\n"
        for case in cases:
            if case >= 16 and not self.one_in(4):
                continue
            kids.append(self.constant() if self.one_in(2) or not target else self.number(scope, 1))
            what = f"{target} = @{len(kids) - 1};" if target else f"oracle_trace(@{len(kids) - 1});"
            text += f"\tcase {case}:\n\t\t{what}\n" + ("\t\tfallthrough;\n" if self.one_in(6) else "\t\tbreak;\n")
        return Node(text + "\tdefault:\n\t\tbreak;\n\t}\n", *kids, kind="switch")
