# SPDX-License-Identifier: MIT
"""Edits of a program, as people make them: each changes a copy of it in one way."""

from __future__ import annotations

import copy
import random
import re
from collections.abc import Callable

from oracle.chance import COMPARISONS, HELPERS, OPERATORS, STATE, WORDS, Chance, Scope
from oracle.code import NUMBERS, Call, Function, Node, Program, Variable, const, fixed
from oracle.shapes import SECTIONS, Shapes
from oracle.state import ATTRIBUTES, PER_CPU

_OPERATOR = re.compile(r"(?<=\d| )[-+*^&|](?= )")


class Edits:
    """Edits of one program; each returns whether it has changed something."""

    def __init__(self, rng: random.Random, program: Program) -> None:
        self.rng, self.program = rng, program
        self.chance = Chance(rng)
        self.shapes = Shapes(self.chance, program)
        self.focus = rng.sample(program.functions, min(3, len(program.functions)))

    # ---- what is there ----

    def pick(self) -> Function:
        """Choose a function: often one that was chosen before."""
        return self.rng.choice(self.focus if self.rng.randrange(3) else self.program.functions)

    def node(self, *kinds: str) -> Node | None:
        """Choose a node of some kinds."""
        for _ in range(8):
            found = [node for node in self.pick().nodes() if node.kind in kinds]
            if found:
                return self.rng.choice(found)
        return None

    def constant(self) -> bool:
        """Another constant."""
        node = self.node("const", "bound")
        if node is None:
            return False
        if node.kind == "bound":
            node.text = str(int(node.text) % 8 + 1)
            return True
        value = int(node.text.removesuffix("ULL"), 16)
        node.text = const(self.rng.choice((value + 1, value - 1, value ^ (1 << self.rng.randrange(64)), 0, value * 2,
                                           self.rng.getrandbits(64)))).text
        return True

    def operator(self) -> bool:
        """Another operator."""
        node = self.node("op", "compare", "shift")
        if node is None:
            return False
        before = node.text
        if node.kind == "op":
            node.text = _OPERATOR.sub(self.rng.choice(OPERATORS), node.text, count=1)
        elif node.kind == "compare":
            node.text = re.sub(r" (<=|>=|==|!=|<|>) ", f" {self.rng.choice(COMPARISONS)} ", node.text)
        else:
            swap = {"<<": ">>", ">>": "<<", "/": "%", "%": "/"}
            node.text = re.sub(r" (<<|>>|/|%) ", lambda found: f" {swap[found[1]]} ", node.text, count=1)
        return node.text != before

    def negation(self) -> bool:
        """A condition the other way round."""
        node = self.node("if")
        if node is None:
            return False
        node.kids[0] = Node("(!@0)", node.kids[0])
        return True

    def string(self) -> bool:
        """Another string."""
        node = self.node("string")
        if node is None:
            return False
        node.text = f'"{self.rng.choice(WORDS)} {self.rng.randrange(9)}"'
        return True

    def expression(self) -> bool:
        """Another expression in the place of one."""
        function = self.pick()
        owners = [node for node in function.nodes() if node.kind in ("op", "statement", "compare", "if", "value") and node.kids
                  and node.kids[0].kind != "block"]
        if not owners:
            return False
        owner = self.rng.choice(owners)
        if owner.kind == "if" or not all(kid.kind in ("op", "const", "shift", "value", "compare") for kid in owner.kids):
            return False
        owner.kids[self.rng.randrange(len(owner.kids))] = self.chance.number(Scope(self.program, function), 2)
        return True

    def added(self) -> bool:
        """A statement more."""
        function = self.pick()
        blocks = [node for node in function.nodes() if node.kind == "block"]
        block = self.rng.choice(blocks)
        block.kids.insert(self.rng.randrange(len(block.kids) + 1), self.chance.statement(Scope(self.program, function)))
        return True

    def removed(self) -> bool:
        """A statement less."""
        blocks = [node for node in self.pick().nodes() if node.kind == "block" and node.kids]
        if not blocks:
            return False
        block = self.rng.choice(blocks)
        at = self.rng.randrange(len(block.kids))
        if block.kids[at].kind in ("labels", "walk", "loop"):
            return False
        del block.kids[at]
        return True

    def swapped(self) -> bool:
        """Two statements in the other order."""
        blocks = [node for node in self.pick().nodes() if node.kind == "block" and len(node.kids) > 1]
        if not blocks:
            return False
        kids = self.rng.choice(blocks).kids
        at = self.rng.randrange(len(kids) - 1)
        kids[at], kids[at + 1] = kids[at + 1], kids[at]
        return True

    def guarded(self) -> bool:
        """A check before a statement."""
        function = self.pick()
        blocks = [node for node in function.nodes() if node.kind == "block" and node.kids]
        if not blocks:
            return False
        block = self.rng.choice(blocks)
        at = self.rng.randrange(len(block.kids))
        block.kids[at] = Node("\tif @0 {\n@1\t}\n", self.chance.truth(Scope(self.program, function)),
                              Node("", block.kids[at], kind="block"), kind="if")
        return True

    def called(self) -> bool:
        """A call of a function that is there."""
        function = self.pick()
        call = self.chance.call(Scope(self.program, function))
        if call is None:
            return False
        function.body.kids.append(self.shapes.trace(call))
        return True

    def uncalled(self) -> bool:
        """A call less."""
        owners = [node for node in self.pick().nodes() if any(kid.kind == "call" for kid in node.kids)]
        if not owners:
            return False
        owner = self.rng.choice(owners)
        owner.kids = [const(7) if kid.kind == "call" else kid for kid in owner.kids]
        return True

    # ---- what is new ----

    def unheard(self, pool: tuple[str, ...]) -> str:
        """Return a name that means nothing in the source."""
        words = set(re.findall(r"\w+", self.program.source() + self.program.header()))
        name = self.rng.choice([one for one in pool if one not in words] or [f"{self.rng.choice(pool)}_{len(words)}"])
        self.program.taken.add(name)
        return name

    def _fresh(self, function: Function, variable: Variable) -> None:
        variable.is_reset = False
        self.program.variables.append(variable)
        scope = Scope(self.program, function, [] if not variable.block else [variable])
        new = [self.chance.write(variable, scope), self.shapes.trace(self.chance.read(variable))]
        for node in new if self.rng.randrange(2) else reversed(new):
            function.body.kids.insert(self.rng.randrange(len(function.body.kids) + 1), node)

    def new_variable(self) -> bool:
        """A new variable of the file, of any kind, beside those that are there."""
        function = self.pick()
        if function.where:
            return False
        name = self.unheard(STATE)
        kind = self.rng.choice(("u64", "u32", "u16", "s64"))
        start = str(self.rng.randrange(1, 50)) if self.rng.randrange(2) else ""
        if self.rng.randrange(3) == 0:
            self.shapes.include("linux/percpu.h")
            made = Variable(name, f"{kind} @", start, cpu=self.rng.choice(PER_CPU), reads=("this_cpu_read(@)",),
                            writes=("this_cpu_add(@, #)", "this_cpu_write(@, #)"))
        elif self.rng.randrange(3) == 0:
            made = Variable(name, f"{kind} @[4]", length=4, reads=("@[$]",), writes=("@[$] += #",),
                            attributes=self.rng.choice(ATTRIBUTES))
        else:
            made = Variable(name, f"{kind} @", start, self.rng.choice(ATTRIBUTES), writes=("@ = #", "@ += #", "@++"))
        self._fresh(function, made)
        at = self.rng.randrange(len(self.program.variables))
        self.program.variables.insert(at, self.program.variables.pop())
        return True

    def new_local(self) -> bool:
        """A new static variable of a function's own, of a name that others have, too."""
        function = self.pick()
        name = self.shapes.own_name(function)
        if function.where or name == "own":
            return False
        self._fresh(function, Variable(name, f"{self.rng.choice(('u64', 'u32', 'u8'))} @", str(self.rng.randrange(1, 9)),
                                       place=function.name, writes=("@ = #", "@ += #", "@++")))
        return True

    def moved_local(self) -> bool:
        """A static variable of one function's own becomes another one's: a new variable of an old name."""
        owned = [one for one in self.program.variables if one.place and one.is_reset]
        if not owned:
            return False
        old = self.rng.choice(owned)
        before = self.program.function(old.place)
        after = self.pick()
        if after is before or after.where or self.program.mentions(after, old.name):
            return False
        self.program.variables.remove(old)
        self._forget(before, old.name)
        fresh = copy.copy(old)
        fresh.place = after.name
        self._fresh(after, fresh)
        return True

    def renamed_variable(self) -> bool:
        """A variable that gets another name is another variable."""
        found = [one for one in self.program.variables
                 if not one.place and one.is_reset and one.linkage and not one.start.startswith("&")]
        if not found:
            return False
        one = self.rng.choice(found)
        name = self.unheard(STATE)
        for function in self.program.functions:
            if not any(own.name == one.name for own in self.program.own(function)):
                for node in function.nodes():
                    node.text = re.sub(rf"\b{one.name}\b", name, node.text)
        one.name, one.is_reset = name, False
        return True

    def _forget(self, function: Function, name: str) -> None:
        """Take all that mentions a variable out of a function."""
        word = re.compile(rf"\b{name}\b")

        def clean(node: Node) -> None:
            if node.kind == "block":
                node.kids = [kid for kid in node.kids if not word.search(kid.text)]
            node.kids = [const(3) if word.search(kid.text) and kid.kind != "statement" else kid for kid in node.kids]
            for kid in node.kids:
                clean(kid)

        clean(function.body)
        if function.value is not None:
            holder = Node("", function.value)
            clean(holder)
            function.value = holder.kids[0]

    def new_function(self) -> bool:
        """A new function, which one that is there calls."""
        user = self.pick()
        if user.where:
            return False
        linkage = self.rng.choice(("static ", "static noinline ", "static inline ", "", "static noinline __cold "))
        section = f'__section("{self.rng.choice(SECTIONS)}") ' if self.rng.randrange(5) == 0 and "noinline" in linkage else ""
        made = self.shapes.function(linkage=linkage, attributes=section, statements=self.rng.randrange(1, 4))
        made.level = user.level
        for node in list(made.nodes()):
            node.kids = [const(1) if isinstance(kid, Call) and self.program.function(kid.name).level >= made.level else kid
                         for kid in node.kids]
        if made.value is not None and any(isinstance(node, Call) for node in made.value.walk()):
            made.value = fixed("x0")
        user.body.kids.insert(self.rng.randrange(len(user.body.kids) + 1), self.shapes.trace(Call(made.name, [fixed("x0" if user.locals else "1")])))
        self.program.functions.remove(made)
        self.program.functions.insert(self.rng.randrange(len(self.program.functions) + 1), made)
        return True

    def loop_to_the_end(self) -> bool:
        """A new loop by pointers to the end of an array that is there."""
        arrays = [one for one in self.program.variables
                  if not one.place and one.type.count("[") == 1 and one.type.partition("@")[0].strip() in NUMBERS]
        function = self.pick()
        if not arrays or function.where or not function.locals:
            return False
        array = self.rng.choice(arrays)
        if any(own.name == array.name for own in self.program.own(function)):
            return False
        self.shapes.walk(array, function)
        return True

    # ---- how it is written ----

    def reordered(self) -> bool:
        """Functions and variables in another order."""
        if self.rng.randrange(2):
            inside = [one for one in self.program.functions if not one.where]
            self.rng.shuffle(inside)
            self.program.functions = [one for one in self.program.functions if one.where] + inside
        else:
            self.rng.shuffle(self.program.variables)
        return True

    def commented(self) -> bool:
        """Lines that mean nothing, and one more header."""
        node = self.node("statement", "if", "loop")
        if node is not None:
            node.text = self.rng.choice(("\n", "\t/* as it was */\n", "\t/*\n\t * several\n\t * lines\n\t */\n")) + node.text
        if self.rng.randrange(2):
            self.program.includes.append(self.rng.choice(("linux/list.h", "linux/errno.h", "linux/limits.h")))
        return True

    def linkage(self) -> bool:
        """Another way to be inlined, or not, or another section."""
        function = self.pick()
        if not function.is_static or function.where:
            return False
        if self.rng.randrange(3) == 0 and "inline " not in function.linkage.replace("noinline", ""):
            section = f'__section("{self.rng.choice(SECTIONS)}") '
            function.attributes = "" if function.attributes else section
        elif not function.attributes:
            function.linkage = self.rng.choice(("static ", "static noinline ", "static inline ", "static __always_inline "))
        return True

    def prototype(self) -> bool:
        """A parameter more, or less, or of another type, in the function and where it is called."""
        found = [one for one in self.program.functions if one.is_static and not one.fragile and not one.is_entry
                 and not one.where and all(kind in NUMBERS for kind, _ in one.parameters)]
        if not found:
            return False
        function = self.rng.choice(found)
        calls = [node for one in self.program.functions for node in one.nodes()
                 if isinstance(node, Call) and node.name == function.name]
        choice = self.rng.randrange(3)
        if choice == 0:
            function.parameters.append((self.rng.choice(NUMBERS), "more"))
            function.body.kids.append(self.shapes.trace(fixed("(u64)more")))
            for number, call in enumerate(calls):
                call.kids.append(const(number % 2))
        elif choice == 1 and function.parameters:
            kind, name = function.parameters.pop()
            function.declarations += f"\t{kind} {name} = {self.rng.randrange(9)};\n"
            for call in calls:
                call.kids.pop()
        else:
            kind, name = function.parameters[0]
            function.parameters[0] = (self.rng.choice([one for one in NUMBERS if one != kind]), name)
        return True

    def renamed_function(self) -> bool:
        """A static function by another name; without variables of its own, which nothing says the future of."""
        found = [one for one in self.program.functions if one.is_static and not one.fragile and not one.is_entry
                 and not one.where and not self.program.own(one)]
        if not found:
            return False
        function = self.rng.choice(found)
        name = self.unheard(HELPERS)
        for one in self.program.functions:
            for node in one.nodes():
                if isinstance(node, Call) and node.name == function.name:
                    node.name = name
        if function.name in self.program.extras:
            self.program.extras[name] = self.program.extras.pop(function.name)
        function.name = name
        return True

    def key(self) -> bool:
        """A new static key, which the new code switches."""
        function = self.pick()
        if function.where or not function.locals or function.name in self.program.extras:
            return False
        self.shapes.include("linux/jump_label.h")
        name = self.chance.name(self.program, ("key", "fast_path"))
        self.program.extras[function.name] = f"static DEFINE_STATIC_KEY_FALSE({name});\n\n"
        function.body.kids.append(Node(
            f"\tif (static_branch_unlikely(&{name}))\n\t\tx0 += @0;\n\tif ((x0 & 0x3f) == 3)\n\t\tstatic_branch_enable(&{name});\n",
            const(7), kind="statement"))
        return True


_COMMON = ("constant", "constant", "operator", "operator", "negation", "expression", "added", "added", "removed", "guarded",
           "called", "uncalled", "swapped", "string")
_LARGE = ("new_variable", "new_variable", "new_local", "new_local", "moved_local", "renamed_variable", "new_function",
          "new_function", "loop_to_the_end", "reordered", "commented", "linkage", "prototype", "renamed_function", "key")


def edited(program: Program, seed: str) -> tuple[Program, list[str]]:
    """Return a program with one or more edits by chance, and their names: the same ones for the same seed."""
    rng = random.Random(seed)
    wanted = rng.choice((1, 1, 1, 2, 2, 3, 5, 9))
    before = program.source(), program.header()
    made, names = copy.deepcopy(program), []
    while len(names) < wanted or (made.source(), made.header()) == before:
        attempt = copy.deepcopy(made)
        name = rng.choice(_COMMON if rng.randrange(5) < 3 else _LARGE)
        edit: Callable[[], bool] = getattr(Edits(rng, attempt), name)
        if edit() and attempt.fits():
            made = attempt
            names.append(name)
    return made, names
