# SPDX-License-Identifier: MIT
"""The assembler's input, as the compiler writes it: with a section of its own for each function and variable.

The kernel's build puts the functions of a source into one section, where the assembler ties them together: a call
of a static neighbour, or a reference behind the end of an array, becomes a distance or an offset that does not name
anybody. Taken apart in the text, before the assembler sees it, the compiler's code is the same, every reference
names what it leads to, and functions can be compared and taken out one by one.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from pylivepatch.build import tables

_PATCHABLE = "__patchable_function_entries"
_STANDARD = {".text": ('"ax"', "@progbits"), ".data": ('"aw"', "@progbits"), ".bss": ('"aw"', "@nobits"),
             ".rodata": ('"a"', "@progbits")}

_LINE = re.compile(
    r"^(?:[ \t]*\.(?P<word>section|text|data|bss|pushsection|popsection|previous|type|size|p2align|align|balign|globl"
    r"|weak|hidden|internal|protected|local|comm)\b(?P<rest>[^\n]*)|(?P<label>[\w.$]+):[^\n]*|(?P<nop>\tnop)"
    r'|(?P<asm>#APP(?=\n(?!# \d))|# \d+ "[^"\n]*" 1))\n', re.MULTILINE)
_ASM_END = re.compile(r'^(?:#NO_APP|# 0 "" 2)\n', re.MULTILINE)
_SWITCH = re.compile(r"(?:^|[;:])\s*\.(section|text|data|bss|pushsection|popsection|previous)\b([^\n;]*)", re.MULTILINE)
_NAME = re.compile(r'\s*(?:"([^"]+)"|([^\s,]+))\s*,?\s*(.*)')

_DEBUG = re.compile(r"^\t\.section\t\.(?:debug_\w+|BTF)\b")
_OF_DEBUG = re.compile(r"^(?:\t\.(?:loc\b|cfi_\w+|file [0-9])[^\n]*"
                       r"|\.L(?:VL|FB|FE|FSB|FSE|BB|BE|BI|e?text|e?text_cold)[0-9]+:)\n", re.MULTILINE)

_RUNTIME = re.compile(
    r"^\t(?:mov \$81985529216486895,(?P<to>%\w+)\n1:\n"
    r'\.pushsection runtime_ptr_(?P<pointer>\w+),"a"\n\t\.long 1b - 8 - \.'
    r"|shrl \$12,(?P<of>%\w+)\n1:\n"
    r'\.pushsection runtime_shift_(?P<shift>\w+),"a"\n\t\.long 1b - 1 - \.)\n\.popsection\n',
    re.MULTILINE)


def without_debug(text: str) -> tuple[str, str]:
    """Return what is assembled of a compiler's output, and the types in it, as BTF."""
    code: list[str] = []
    types: list[str] = []
    for piece in re.split(r"^(?=\t\.(?:section|text|data|bss)\b)", text, flags=re.MULTILINE):
        if not _DEBUG.match(piece):
            code.append(piece)
        elif piece.startswith("\t.section\t.BTF,"):
            types.append(piece)
    return _OF_DEBUG.sub("", "".join(code)), "".join(types)


def split(text: str) -> str:
    """Return the compiler's output with a section of its own for each function and variable.

    The sections keep their names; the assembler tells them apart by number.
    """
    return "".join(_Splitter(text).run())


def for_module(text: str) -> str:
    """Return the compiler's output for vmlinux with what a module needs instead.

    Since 6.11 (94a2bc0f611c) the kernel writes the values of some variables into its code when it boots, and cannot do
    so in a module: there the code reads the variable. Nothing else changes, flags neither.
    """
    return _RUNTIME.sub(_read_at_run_time, text)


def _read_at_run_time(found: re.Match[str]) -> str:
    if found["pointer"]:
        return f"\tmovq {found['pointer']}(%rip), {found['to']}\n"
    value, other = found["of"], "%rcx"
    lines = [f"movl {found['shift']}(%rip), %ecx", f"shrl %cl, {value}"]
    if value == "%ecx":
        other = "%rax"
        lines = ["movl %ecx, %eax", lines[0], "shrl %cl, %eax", "movl %eax, %ecx"]
    return "".join(f"\t{line}\n" for line in (f"pushq {other}", *lines, f"popq {other}"))


class _Splitter:
    """Follows the section that each line goes to, and begins a new one of the same name where something begins."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._out: list[str] = []
        self._current, self._previous = ".text", ".text"
        self._stack: list[tuple[str, str]] = []
        self._flags = dict(_STANDARD)
        self._piece: dict[str, str] = {}
        self._count = 0
        # what has been read of what a function or variable begins with, and its place in the output
        self._begin: int | None = None
        self._begin_section = ""
        self._returns: list[int] = []
        self._typed: set[str] = set()
        self._local: set[str] = set()

    def run(self) -> Iterator[str]:
        text, end = self._text, 0
        while found := _LINE.search(text, end):
            if found.start() > end:
                self._out.append(text[end:found.start()])
                self._body()
            end = found.end()
            if found["asm"]:
                close = _ASM_END.search(text, end)
                stop = close.end() if close else len(text)
                self._asm(text[end:stop])
                self._out.append(text[found.start():stop])
                end = stop
                self._body()
            elif found["label"]:
                self._label(found["label"], found[0])
            elif found["nop"]:
                self._head(found[0])
            else:
                self._directive(found["word"], found["rest"], found[0])
        self._out.append(text[end:])
        yield from self._out

    def _body(self) -> None:
        """What came last is no beginning of anything, unless it is the table of patchable entries."""
        if self._current != _PATCHABLE:
            self._begin = None

    def _away(self) -> bool:
        """Tell whether something has begun, and lines go to another section than that where it has."""
        return self._begin is not None and self._current not in (self._begin_section, _PATCHABLE)

    def _head(self, line: str) -> None:
        """Take a line that may belong to the beginning of a function or variable."""
        if self._begin is None or self._away():
            self._begin, self._begin_section = len(self._out), self._current
            self._returns, self._typed = [], set()
        self._out.append(line)

    def _label(self, name: str, line: str) -> None:
        if self._current == _PATCHABLE or name.startswith(".LPFE"):
            self._head(line)
            return
        self._head(line)
        flags = self._flags.get(self._current, ('""', ""))[0]
        if self._splits(self._current, flags) and ("x" not in flags or name in self._typed):
            self._start()
        self._begin = None

    def _start(self) -> None:
        """Give what begins a section of its own."""
        assert self._begin is not None
        self._count += 1
        flags, kind = self._flags[self._current]
        self._piece[self._current] = line = f'\t.section "{self._current}",{flags},{kind},unique,{self._count}\n'
        for place in self._returns:
            self._out[place] = line
        self._out.insert(self._begin, line)

    def _splits(self, name: str, flags: str) -> bool:
        """Tell whether what is in a section may be moved apart."""
        return "a" in flags and not re.search("[MGo]", flags) and not tables.dropped(name)

    def _directive(self, word: str, rest: str, line: str) -> None:
        if word in ("section", "text", "data", "bss"):
            self._switch(word, rest, line)
        elif word in ("pushsection", "popsection", "previous"):
            self._track(word, rest)
            self._out.append(line)
            self._body()
        elif word == "comm" and rest.split(",")[0].strip() in self._local:
            self._common(rest)
        elif word == "size" and ".-" in rest:
            self._out.append(line)
            self._body()
        else:
            if word == "local":
                self._local.add(rest.strip())
            self._head(line)
            if word == "type":
                self._typed.add(rest.partition(",")[0].strip())

    def _switch(self, word: str, rest: str, line: str) -> None:
        self._track(word, rest)
        if self._current == _PATCHABLE:
            self._head(line)
            return
        if self._begin is not None and self._current == self._begin_section:
            self._returns.append(len(self._out))
        self._out.append(self._piece.get(self._current, line))

    def _common(self, rest: str) -> None:
        """Define what the assembler would have allocated."""
        name, size, align = (word.strip() for word in rest.split(","))
        self._count += 1
        self._out.append(f'\t.pushsection .bss,"aw",@nobits,unique,{self._count}\n\t.balign {align}\n'
                         f"\t.type {name}, @object\n\t.size {name}, {size}\n{name}:\n\t.zero {size}\n\t.popsection\n")
        self._begin = None

    def _asm(self, text: str) -> None:
        """Follow the sections that assembly of the source goes to."""
        for word, rest in _SWITCH.findall(text):
            self._track(word, rest)

    def _track(self, word: str, rest: str) -> None:
        if word == "popsection":
            if self._stack:
                self._current, self._previous = self._stack.pop()
            return
        if word == "previous":
            self._current, self._previous = self._previous, self._current
            return
        if word == "pushsection":
            self._stack.append((self._current, self._previous))
        name = f".{word}"
        if word in ("section", "pushsection"):
            found = _NAME.match(rest)
            assert found is not None
            name = found[1] or found[2]
            arguments = [argument.strip() for argument in found[3].split(",")]
            if arguments[0] and name not in self._flags:
                kind = arguments[1] if len(arguments) > 1 else ""
                nobits = kind.endswith("nobits") or (not kind and name.startswith(".bss"))
                self._flags[name] = arguments[0], "@nobits" if nobits else "@progbits"
        self._current, self._previous = name, self._current
