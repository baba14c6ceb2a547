# SPDX-License-Identifier: MIT
"""Assembly as the compiler writes it, cut into atoms: what has a label, and what stands between two changes of section.

An object file no longer tells what a reference means when the assembler has made "section plus offset" of it: at the
end of an array that is the next variable's address as well. So each atom gets a mark of its own, and the text is
assembled in several *layouts* that differ in the padding before each mark: padding number n of a section grows
by n steps from one layout to the next, and so does every reference to atom n, wherever in it or behind it it points.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

MARK, END = ".plp.mark.", ".plp.end."
"""What the symbols at the beginning and at the end of each atom are called, before its number."""

_NEAR = 256
"""Bytes between two pieces of code in a layout with padding: no jump between them is a short one."""

_CODE = re.compile(r"\.(?:text|init\.text|exit\.text|altinstr_replacement|altinstr_aux)(?:[.\d]|\Z)|.*\.text(?:\.|\Z)")
_LABEL = re.compile(r"\s*([\w.]+):(?!=)")
_SYMBOL = re.compile(r"[A-Za-z_.][\w.]*")
_ALIGN = re.compile(r"\.(?:p2align|align|balign)\w*\s+(\d+)")
_SILENT = frozenset((
    ".globl", ".global", ".weak", ".local", ".hidden", ".protected", ".internal", ".type", ".set", ".ident", ".file",
    ".size", ".comm", ".loc", ".macro", ".endm", ".purgem", ".altmacro", ".noaltmacro", ".addrsig", ".code64",
))
"""Directives that put nothing into a section."""


@dataclass(eq=False, slots=True)
class Atom:
    """A piece of a section that the assembler could put anywhere.

    Attributes:
        number: Its number among all atoms of the text, in their order.
        section: The section's name.
        rank: Its number among the atoms of its section, from 1: how often the padding's step comes before it.
        labels: Its labels but for numeric ones.
        owner: The function in whose text it is written: a table entry about that function, or its cold part.
        align: Alignment that it asks for, in bytes: at its beginning, and for loops in the midst of it, so that the
            padding there is the same wherever it is.
        code: Whether its section holds code.
        inline: Whether an asm statement made it by a change of section, not the compiler.
        lines: The text of it, and of all atoms that it owns; of a warning's line there is only that it has one.
    """

    number: int
    section: str
    rank: int
    labels: list[str] = field(default_factory=list)
    owner: Atom | None = None
    align: int = 1
    code: bool = False
    inline: bool = False
    lines: list[str] = field(default_factory=list, repr=False)

    @property
    def name(self) -> str:
        """The first of its labels that is a symbol, or ""."""
        return next((label for label in self.labels if not label.startswith(".L")), "")


class _Directive(NamedTuple):
    word: str
    rest: str
    text: str


@dataclass(slots=True)
class _Section:
    name: str
    code: bool
    writable: bool = False
    atoms: list[Atom] = field(default_factory=list)
    open: Atom | None = None
    """The atom that is being written."""
    function: str = ""
    """The function whose end has not come yet."""
    pending: bool = True
    """Whether what comes next begins a new atom."""
    touched: bool = False
    """Whether anything but labels was written since the last mark."""
    align: int = 1
    most: int = 1
    inline: bool = False


class Assembly:
    """The assembly text of one source.

    Attributes:
        atoms: Its atoms, in the order of the text.
        names: The atom of each symbol that has a label here.
        aliases: What ``.set`` gives another name to.
        objects: Size in bytes of each variable.
        binding: "globl" or "weak" for the symbols that are not local.
        compiler: What wrote it, as it names itself; "" when it does not.
    """

    def __init__(self, text: str) -> None:
        self.atoms: list[Atom] = []
        self.names: dict[str, Atom] = {}
        self.aliases: dict[str, str] = {}
        self.objects: dict[str, int] = {}
        self.binding: dict[str, str] = {}
        ident = re.search(r'^\t\.ident\t"(.*)"$', text, re.MULTILINE)
        self.compiler: str = ident[1] if ident else ""
        self._local: set[str] = set()
        self._sections: dict[str, _Section] = {}
        self._out: list[str | tuple[str, int]] = []
        self._types: dict[str, str] = {}
        self._current = self._enter(".text")
        self._previous = self._current
        self._stack: list[tuple[_Section, _Section]] = []
        self._function: Atom | None = None
        self._macro = False
        self._inline = False
        self._parse(text)
        self._steps = {name: self._step(section) for name, section in self._sections.items()}

    def step(self, section: str) -> int:
        """Return by how many bytes the padding before an atom grows from one layout to the next; 0 in tables."""
        return self._steps.get(section, 0)

    def layout(self, factor: int) -> str:
        """Return the text with *factor* steps of padding before each atom; with 0 it is what the compiler wrote."""
        out: list[str] = []
        for item in self._out:
            if isinstance(item, str):
                out.append(item)
            else:
                name, number = item
                size, align = factor * self._steps[name], self.atoms[number].align
                if size:
                    filler = "0xcc" if self._sections[name].code else "0"
                    out.append(f"\t.balign {align}, {filler}\n\t.skip {size}, {filler}")
                out.append(f"{MARK}{number}:")
        return "\n".join(out) + "\n"

    def names_of(self, atom: Atom) -> list[str]:
        """Return all names of an atom, those that ``.set`` gives to it among them."""
        return [label for label in atom.labels if not label.startswith(".L")] + [
            name for name, target in self.aliases.items() if self.names.get(target) is atom]

    def ranked(self, section: str) -> list[Atom]:
        """Return the atoms of *section*, in the order of their ranks."""
        return self._sections[section].atoms if section in self._sections else []

    # ---- reading ----

    def _parse(self, text: str) -> None:
        for line in text.split("\n"):
            if line.startswith("#"):
                self._inline = line.startswith("#APP") or (self._inline and not line.startswith("#NO_APP"))
                continue
            if line.endswith("# bug_entry::line"):
                self._content(line, "bug_entry::line")
            elif self._inline or line.startswith("\t.") or not line.startswith("\t") or ";" in line:
                for statement in _statements(line):
                    self._statement(statement)
            else:
                self._content(line)
        self._close(self._current)

    def _statement(self, text: str) -> None:
        if self._macro:
            self._out.append(text)
            self._macro = not re.match(r"\s*\.endm\b", text)
            self._note(text)
            return
        while match := _LABEL.match(text):
            self._label(match[1])
            text = text[match.end():]
        words = text.split(None, 1)
        if not words:
            return
        handler = _HANDLERS.get(words[0])
        if handler is not None:
            handler(self, _Directive(words[0], words[1].strip() if len(words) > 1 else "", text))
        elif words[0] in _SILENT or words[0].startswith(".cfi"):
            self._out.append(text)
            if self._inline:
                self._note(text)
        else:
            self._content(text)

    def _note(self, text: str) -> None:
        """Keep a line for those who compare texts."""
        atom = self._function or self._current.open
        if atom is not None:
            atom.lines.append(text)

    def _content(self, text: str, line: str = "") -> None:
        section = self._current
        if section.pending:
            self._mark(section)
        section.touched = True
        self._out.append(text)
        atom = section.open
        assert atom is not None
        (self._function or atom).lines.append(line or text)

    def _label(self, name: str) -> None:
        section = self._current
        numeric = name.isdigit()
        if section.pending or (section.touched and not (numeric or section.code or section.function)):
            self._mark(section)
        atom = section.open
        assert atom is not None
        self._out.append(f"{name}:")
        if not numeric:
            atom.labels.append(name)
            self.names[name] = atom
            if self._types.get(name) == "function" and not section.function:
                section.function = name
                if self._function is None:
                    self._function = atom
        (self._function or atom).lines.append(f"{name}:")

    def _mark(self, section: _Section) -> None:
        self._close(section)
        atom = Atom(len(self.atoms), section.name, len(section.atoms) + 1, owner=self._function,
                    align=section.align, code=section.code, inline=section.inline)
        self.atoms.append(atom)
        section.atoms.append(atom)
        section.open, section.pending, section.touched, section.align = atom, False, False, 1
        self._out.append((section.name, atom.number))

    def _close(self, section: _Section) -> None:
        """Name the end of the atom that is being written."""
        if section.open is not None:
            self._out.append(f"{END}{section.open.number}:")
            section.open = None

    # ---- sections ----

    def _enter(self, name: str, flags: str = "") -> _Section:
        if name not in self._sections:
            self._sections[name] = _Section(name, bool(_CODE.match(name)) or "x" in flags, "w" in flags)
        return self._sections[name]

    def _section(self, said: _Directive) -> None:
        name, _, flags = said.rest.partition(",")
        if said.word == ".pushsection":
            self._stack.append((self._current, self._previous))
        section = self._enter(name.strip().strip('"'), flags.split(",")[0])
        self._move(section, said.text, leave=said.word != ".pushsection")

    def _plain(self, said: _Directive) -> None:
        self._move(self._enter(said.word), said.text)

    def _back(self, said: _Directive) -> None:
        if said.word == ".previous":
            self._move(self._previous, said.text)
            return
        if not self._current.function:
            self._close(self._current)
        self._current, self._previous = self._stack.pop()
        self._out.append(said.text)
        self._note(said.text)

    def _move(self, section: _Section, text: str, *, leave: bool = True) -> None:
        """Go on in *section*; what was written before goes on after ``.popsection`` only."""
        if leave and not self._current.function:
            self._close(self._current)
        self._previous, self._current = self._current, section
        if not section.function:
            section.pending, section.inline = True, self._inline or self._function is not None
        self._out.append(text)
        self._note(text)

    # ---- symbols ----

    def _aligned(self, said: _Directive) -> None:
        section = self._current
        match = _ALIGN.match(said.text.strip())
        size = 1
        if match:
            size = int(match[1]) if said.word != ".p2align" else 1 << int(match[1])
        section.most = max(section.most, size)
        if not section.function and not section.inline:
            self._close(section)
            section.pending = True
            section.align = max(section.align, size)
            self._out.append(said.text)
            return
        if section.pending:
            section.align = max(section.align, size)
            self._out.append(said.text)
            return
        self._content(said.text)
        if section.code and section.open is not None:
            section.open.align = max(section.open.align, size)

    def _typed(self, said: _Directive) -> None:
        name, _, kind = said.rest.partition(",")
        self._types[name.strip()] = kind.strip().strip("@%")
        self._out.append(said.text)

    def _sized(self, said: _Directive) -> None:
        name, _, size = (part.strip() for part in said.rest.partition(","))
        self._out.append(said.text)
        if size.isdigit():
            self.objects[name] = int(size)
        for section in self._sections.values():
            if section.function == name:
                section.function = ""
                self._close(section)
                section.pending, section.inline = True, False
        if self._function is not None and name in self._function.labels:
            self._function = None

    def _common(self, said: _Directive) -> None:
        """Write a variable without a value like any other, so that it has a mark."""
        name, size, *align = (part.strip() for part in said.rest.split(","))
        if name not in self._local:
            self._out.append(said.text)
            return
        section, function = self._enter(".bss", "aw"), self._function
        current, self._current, self._function = self._current, section, None
        alignment = int(align[0]) if align else 1
        self._out.append(f"\t.pushsection .bss\n\t.balign {alignment}\n\t.type {name}, @object\n\t.size {name}, {size}")
        section.pending, section.align, section.inline = True, alignment, False
        section.most = max(section.most, alignment)
        self.objects[name] = int(size)
        self._label(name)
        self._content(f"\t.skip {size}")
        self._close(section)
        self._out.append("\t.popsection")
        section.pending, self._current, self._function = True, current, function

    def _localised(self, said: _Directive) -> None:
        self._local.add(said.rest.strip())
        self._out.append(said.text)

    def _bound(self, said: _Directive) -> None:
        for name in said.rest.split(","):
            self.binding[name.strip()] = said.word[1:].replace("global", "globl")
        self._out.append(said.text)

    def _alias(self, said: _Directive) -> None:
        name, _, target = (part.strip() for part in said.rest.partition(","))
        if _SYMBOL.fullmatch(target):
            self.aliases[name] = target
        self._out.append(said.text)
        if self._inline:
            self._note(said.text)

    def _define(self, said: _Directive) -> None:
        self._macro = True
        self._out.append(said.text)
        self._note(said.text)

    def _step(self, section: _Section) -> int:
        """Return the padding's step: none where entries must stay one behind the other, since nothing names them."""
        if not section.code and not any(atom.labels for atom in section.atoms):
            return 0
        most = max((atom.align for atom in section.atoms), default=1)
        return max(_NEAR if section.code else 64, most, section.most)


_HANDLERS = {
    ".section": Assembly._section, ".pushsection": Assembly._section, ".text": Assembly._plain,
    ".data": Assembly._plain, ".bss": Assembly._plain, ".previous": Assembly._back, ".popsection": Assembly._back,
    ".p2align": Assembly._aligned, ".align": Assembly._aligned, ".balign": Assembly._aligned, ".type": Assembly._typed,
    ".size": Assembly._sized, ".comm": Assembly._common, ".local": Assembly._localised, ".globl": Assembly._bound,
    ".global": Assembly._bound, ".weak": Assembly._bound, ".set": Assembly._alias, ".macro": Assembly._define,
}


def _statements(line: str) -> Iterator[str]:
    """Yield the statements of a line, without comments."""
    if '"' not in line:
        line = re.sub(r"/\*.*?\*/", " ", line).partition("#")[0]
        yield from line.split(";")
        return
    start = at = 0
    quoted = False
    while at < len(line):
        char = line[at]
        if char == "\\" and quoted:
            at += 1
        elif char == '"':
            quoted = not quoted
        elif not quoted and char == ";":
            yield line[start:at]
            start = at + 1
        elif not quoted and char == "#":
            break
        at += 1
    yield line[start:at]
