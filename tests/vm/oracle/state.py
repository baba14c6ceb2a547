# SPDX-License-Identifier: MIT
"""Variables of every kind, and the functions that use them."""

from __future__ import annotations

from oracle.chance import HELPERS, STATE, Chance, Scope
from oracle.code import NUMBERS, Function, Node, Program, Variable

ATTRIBUTES = ("", "", "", "__read_mostly", "____cacheline_aligned", "__aligned(32)")
PER_CPU = ("DEFINE_PER_CPU", "DEFINE_PER_CPU", "DEFINE_PER_CPU_SHARED_ALIGNED", "DEFINE_PER_CPU_ALIGNED")
MOST = 1500
"""Steps of a function that others call."""


class State:
    """Adds functions and variables to a program."""

    def __init__(self, chance: Chance, program: Program) -> None:
        self.chance, self.program, self.rng = chance, program, chance.rng

    def include(self, *names: str) -> None:
        """Include headers of the kernel."""
        self.program.includes += [name for name in names if name not in self.program.includes]

    def level(self) -> int:
        """Return a level above all that there are."""
        return max((one.level for one in self.program.functions), default=0) + 1

    def variable(self, **facts: object) -> Variable:
        """Add a variable."""
        made = Variable(**facts)  # type: ignore[arg-type]
        self.program.variables.append(made)
        return made

    def function(self, result: str = "u64", parameters: tuple[tuple[str, str], ...] = (("u64", "a"),), *,
                 linkage: str = "static ", statements: int = 3, name: str = "", **facts: object) -> Function:
        """Add a function with some statements by chance."""
        if not name:
            name = self.chance.name(self.program, HELPERS)
            name = name if linkage.startswith("static") else f"{self.program.name}_{name}"
        made = Function(name, result, list(parameters), linkage, level=self.level(), **facts)  # type: ignore[arg-type]
        made.locals = [f"x{number}" for number in range(self.rng.randrange(1, 4))]
        scope = Scope(self.program, made)
        body = [self.chance.line(f"{local} = @0;", self.chance.number(scope)) for local in made.locals]
        made.body = Node("", *body, *(self.chance.statement(scope) for _ in range(statements)), kind="block")
        made.value = self.result(scope)
        self.program.functions.append(made)
        self.restrain(made)
        return made

    def restrain(self, function: Function) -> None:
        """Take calls out of a function that would take too long."""
        while self.program.cost(function.name) > MOST:
            owners = [node for node in function.nodes() if any(kid.kind == "call" for kid in node.kids)]
            if not owners:
                return
            owner = self.rng.choice(owners)
            owner.kids = [self.chance.constant() if kid.kind == "call" else kid for kid in owner.kids]

    def result(self, scope: Scope) -> Node | None:
        """Return what a function returns."""
        kind = scope.function.result
        number = self.chance.number
        if kind == "void":
            return None
        if kind == "text":
            return Node("(@0 ? @1 : @2)", self.chance.truth(scope), self.chance.string(), self.chance.string())
        if kind in ("pair", "bits"):
            return self.chance.argument(kind, scope, 2)
        return number(scope) if kind == "u64" else Node(f"({kind})@0", number(scope))

    # ---- variables ----

    def scalar(self) -> None:
        """A static variable of the file."""
        kind = self.rng.choice(NUMBERS)
        value = str(self.rng.randrange(1, 100)) if self.chance.one_in(2) else ""
        writes = ("@ = #",) if kind == "bool" else ("@ = #", "@ += #", "@ ^= #", "@++")
        name = self.chance.name(self.program, STATE)
        linkage = "" if self.chance.one_in(8) else "static "
        self.variable(name=name if linkage else f"{self.program.name}_{name}", type=f"{kind} @", writes=writes,
                      start=value if kind != "bool" else "", attributes=self.rng.choice(ATTRIBUTES), linkage=linkage)

    def array(self) -> None:
        """An array, which functions go through from its beginning to its end."""
        kind = self.rng.choice(NUMBERS[:-1])
        size = self.rng.choice((2, 3, 4, 5, 8, 16))
        start = f"{{ {', '.join(str(self.rng.randrange(100)) for _ in range(size))} }}" if self.chance.one_in(2) else ""
        made = self.variable(name=self.chance.name(self.program, STATE), type=f"{kind} @[{size}]", start=start, length=size,
                             attributes=self.rng.choice(ATTRIBUTES), reads=("@[$]",), writes=("@[$] = #",))
        if self.chance.one_in(2):
            self.walk(made)

    def walk(self, variable: Variable, function: Function | None = None) -> Function:
        """A function with a loop by pointers to the end of an array; a loop in *function* if that is given."""
        made = function or self.function(linkage=self._linkage())
        kind = variable.type.partition("@")[0]
        end = self.rng.choice((f"p != &{variable.name}[{variable.length}]", f"p < {variable.name} + {variable.length}",
                               f"p < &{variable.name}[ARRAY_SIZE({variable.name})]"))
        step = self.rng.choice((f"{made.locals[0]} += *p;", f"{made.locals[0]} ^= *p * 3;", "oracle_trace(*p);"))
        loop = Node(f"\tfor (const {kind}*p = {variable.name}; {end}; p++) {{\n\t\t{step}\n@0\t}}\n",
                    Node("", kind="block"), kind="walk")
        made.body.kids.append(loop)
        return made

    def structure(self) -> None:
        """A static struct with bit fields, and a union."""
        self.variable(name=self.chance.name(self.program, STATE), type="struct bits @", reads=("@.low", "@.middle", "@.high"),
                      writes=("@ = (struct bits){ (#) & 31, 3, 1 }", "@.high = #"), attributes=self.rng.choice(ATTRIBUTES))
        self.variable(name=self.chance.name(self.program, STATE), type="union word @",
                      reads=("@.whole", "@.half[1]", "@.bytes[3]"), writes=("@.whole = #", "@.bytes[7] = #"))
        self.variable(name=self.chance.name(self.program, STATE), type="struct pair @[4]", length=4,
                      reads=("@[$].a", "@[$].b"), writes=("@[$] = (struct pair){ #, 1 }", "@[$].b = #"))

    def per_cpu(self) -> None:
        """A per-CPU variable, of one of the kinds that have sections of their own."""
        self.include("linux/percpu.h")
        start = str(self.rng.randrange(9)) if self.chance.one_in(2) else ""
        self.variable(name=self.chance.name(self.program, STATE), type=f"{self.rng.choice(('u64', 'u32'))} @", start=start,
                      cpu=self.rng.choice(PER_CPU), reads=("this_cpu_read(@)", "per_cpu(@, 0)", "raw_cpu_read(@)"),
                      writes=("this_cpu_write(@, #)", "this_cpu_add(@, #)", "this_cpu_inc(@)"))

    def own_name(self, function: Function) -> str:
        """Return a name for a static variable of a function's own that means nothing else in it."""
        taken = self.program.taken
        return self.rng.choice([name for name in STATE if name not in taken and not self.program.mentions(function, name)]
                               or ["own"])

    def local(self) -> None:
        """Static variables of functions: of one name in several, and in blocks of one function."""
        name = self.rng.choice(STATE)
        for function in self.rng.sample(self.program.functions, min(3, len(self.program.functions))):
            if function.where or self.program.mentions(function, name):
                continue
            kind = self.rng.choice(("u64", "u32", "u8"))
            made = self.variable(name=name, type=f"{kind} @", start=str(self.rng.randrange(1, 9)), place=function.name,
                                 writes=("@ = #", "@ += #", "@++"))
            self.use(function, made)

    def use(self, function: Function, *variables: Variable) -> None:
        """Let a function read and write variables somewhere."""
        scope = Scope(self.program, function)
        for variable in variables:
            new = [self.chance.line("oracle_trace(@0);", self.chance.read(variable))]
            if variable.writes:
                new.append(self.chance.write(variable, scope))
            for node in new:
                function.body.kids.insert(self.rng.randrange(len(function.body.kids) + 1), node)
