# SPDX-License-Identifier: MIT
"""The steps of the proof, in their order."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from pylivepatch.build.verify import constants, glue, loader, objtool
from pylivepatch.build.verify.assembly import Assembly, Atom
from pylivepatch.build.verify.closure import INIT, NOTES, Closure
from pylivepatch.build.verify.code import Code
from pylivepatch.build.verify.glue import Layouts
from pylivepatch.build.verify.kernel import VMLINUX, Kernel
from pylivepatch.build.verify.located import Located
from pylivepatch.build.verify.meaning import Unit
from pylivepatch.build.verify.module import Module, Place
from pylivepatch.build.verify.objectfile import ObjectFile
from pylivepatch.build.verify.objtool import ADDED, SITES, Annotations
from pylivepatch.build.verify.proof import Copies
from pylivepatch.build.verify.reference import Reference
from pylivepatch.module.verdict import Verdict

_REGISTERS = re.compile(r"(?!\.(?:data|bss|rodata|text)(?:[.\d_]|\Z)|\.klpctl\.|__dyndbg)")
"""Sections of what the kernel finds by the section: parameters, initcalls, tracepoints."""

_EXPORTS = ("__ksymtab_", "__export_symbol_")

_MOST = 40
"""Complaints that are worth reading."""


@dataclass(frozen=True, slots=True)
class Source:
    """A source as the kernel's own build compiles it.

    Attributes:
        name: From the top of the tree.
        object: What it becomes a part of: "vmlinux", or a module. "" for the module's own sources.
        patched: The compiler's assembly of it with the diff.
        orig: The assembly of it as it is; "" for the module's own sources.
    """

    name: str
    object: str
    patched: str
    orig: str = ""


@dataclass(frozen=True, slots=True)
class Evidence:
    """What a module is proved with.

    Attributes:
        release: The kernel release.
        kernel: What runs.
        layouts: How the kernel's structs look.
        sources: All sources that were compiled for the module, those that the diff does not change among them.
        assemble: The assembler of the kernel's own build: texts in, objects out.
        annotate: objtool, as the kernel's own build runs it on a module: objects in, objects out.
    """

    release: str
    kernel: Kernel
    layouts: Layouts
    sources: tuple[Source, ...]
    assemble: Callable[[Sequence[str]], Sequence[bytes]] = field(repr=False)
    annotate: Callable[[Sequence[bytes]], Sequence[bytes]] = field(repr=False)


class Checker:
    """Proves modules with one evidence.

    Args:
        evidence: What to prove them with.

    Raises:
        BuildError: The evidence contradicts itself.
    """

    def __init__(self, evidence: Evidence) -> None:
        self.evidence = evidence
        self.kernel: Kernel = evidence.kernel
        texts = [(source, Assembly(constants.read(source.patched)), Assembly(source.orig) if source.object else None)
                 for source in evidence.sources]
        wanted = [((patched, (1, 2)), (orig, (0, 1, 2))) for _, patched, orig in texts]
        layouts = [text.layout(factor) for pair in wanted for text, factors in pair if text is not None
                   for factor in factors]
        objects = iter(evidence.assemble(layouts))
        self.units: list[Unit] = []
        for source, patched, orig in texts:
            apart, wide = next(objects), next(objects)
            unit = Unit(source.name, source.object, Reference(source.name, patched, (apart, wide)), apart)
            if orig is not None:
                plain, apart, wide = next(objects), next(objects), next(objects)
                unit.running = self.kernel[source.object]
                unit.located = Located(Reference(source.name, orig, (apart, wide, plain)), unit.running)
                unit.closure = Closure(Assembly(constants.read(source.orig)), patched)
            self.units.append(unit)
        idents = (unit.patched.text.compiler for unit in self.units if unit.object)
        self._compiler = next((ident for ident in idents if ident), "")
        self._width, _ = evidence.layouts.of("orc_entry")
        self._annotated: dict[int, Annotations] = {}

    def prove(self, data: bytes) -> Verdict:
        """Prove that a module is what its sources say, and say what is not so.

        Args:
            data: The module's file.

        Raises:
            BadDataError: It is no module.
        """
        module = Module.parse(data)
        tables = glue.read(module, self.evidence.layouts)
        copies = Copies(module, self.kernel, self.units, tables)
        copies.run()
        found = [*loader.complaints(module), *tables.complaints, *copies.complaints, *self._left(copies),
                 *copies.named(), *self._states(tables), *self._annotations(module, copies)]
        notes = list(copies.notes)
        for number, unit in enumerate(self.units):
            if unit.closure is not None:
                found += self._running(unit, copies.meaning.replaced[number], notes)
                found += self._omitted(number, unit, copies, notes)
        return Verdict(
            release=self.evidence.release, build_ids=self.kernel.build_ids,
            sources=tuple(unit.source for unit in self.units if unit.object), compiler=self._compiler,
            matched=sum(len(unit.located.start) for unit in self.units if unit.located is not None),
            functions=copies.functions, references=copies.references, notes=tuple(dict.fromkeys(notes)),
            unproved=tuple(dict.fromkeys(copies.meaning.unproved)),
            complaints=tuple(found[:_MOST]))

    # ---- what runs ----

    def _running(self, unit: Unit, replaced: set[int], notes: list[str]) -> Iterator[str]:
        """Say which old code goes on running, and what of the original is not what runs."""
        assert unit.closure is not None
        assert unit.located is not None
        orig = unit.located.reference
        for name in unit.located.differing:
            if orig.text.binding.get(name) != "weak":
                yield f"{name}() of {unit.source} is not what runs in {unit.object}"
        reached = unit.closure.reached(replaced)
        for atom in unit.closure.differing():
            if INIT.match(atom.section):
                notes.append(f"{atom.name}() of {unit.source} changes, and has run already")
            elif atom.number in reached and atom.number not in replaced:
                yield f"{atom.name}() of {unit.source} changes, is not replaced, and {reached[atom.number]} leads to it"
        for number in replaced:
            if number not in unit.located.start:
                yield f"{orig.text.atoms[number].name}() of {unit.source} is replaced, and is not what runs"

    def _omitted(self, number: int, unit: Unit, copies: Copies, notes: list[str]) -> Iterator[str]:
        """Say what the diff makes of data that the module does not have."""
        assert unit.closure is not None
        for atom in unit.patched.text.atoms:
            if atom.code or atom.owner is not None or not atom.name or copies.has(number, atom):
                continue
            old = unit.closure.original(atom)
            if old is None and not _REGISTERS.match(atom.section):
                continue  # what nothing refers to
            if old is not None and old.number in unit.closure.same:
                continue
            words = f"{atom.name} of {unit.source} in {atom.section} {'changes' if old is not None else 'is new'}"
            if atom.name.startswith(_EXPORTS):
                notes.append(f"{atom.name.removeprefix(_EXPORTS[0]).removeprefix(_EXPORTS[1])} is not exported")
            elif atom.section == ".modinfo" or (INIT.match(atom.section) and old is not None):
                notes.append(f"{words}, and the patch does without")
            elif not NOTES.match(atom.section):
                yield f"{words}, and the kernel goes on with what it has"

    def _states(self, tables: glue.Tables) -> Iterator[str]:
        """Say whether the states are those of the sources."""
        wanted = []
        for unit in self.units:
            for atom in unit.patched.text.atoms:
                if atom.section == ".klpctl.state":
                    data = unit.patched.piece(atom).data
                    wanted.append((int.from_bytes(data[:8], "little"), int.from_bytes(data[8:12], "little")))
        if sorted(wanted) != sorted(tables.states):
            yield f"the states of the module are {tables.states}, and the sources declare {wanted}"

    # ---- what the module has ----

    def _left(self, copies: Copies) -> Iterator[str]:
        for section, start, end in copies.left():
            if section.name not in ADDED and section.name != "__patchable_function_entries":
                yield f"nothing accounts for {section.name} from {start:#x} to {end:#x} ({end - start} bytes)"

    def _annotations(self, module: Module, copies: Copies) -> Iterator[str]:
        try:
            own = Annotations.of(module.file, self._width)
        except ValueError as error:
            yield str(error)
            return
        yield from objtool.complaints(module, own, self._used)
        if self._used(objtool.UNWIND_IP):
            wanted = [number for number in range(len(self.units)) if any(copies.code(number))]
            fresh = [number for number in wanted if number not in self._annotated]
            for number, data in zip(fresh, self.evidence.annotate([self.units[number].apart for number in fresh]),
                                    strict=True):
                self._annotated[number] = Annotations.of(ObjectFile.parse(data, self.units[number].source), self._width)
            for number in wanted:
                for atom, place in copies.code(number):
                    yield from self._unwinding(module, number, atom, place, own)
                for atom, place in copies.replacements(number):
                    yield from self._sites(number, atom, place, own)

    def _sites(self, number: int, atom: Atom, place: Place, own: Annotations) -> Iterator[str]:
        """Say whether calls of a replacement for an alternative are patched as those of the reference: since 7.x."""
        unit = self.units[number]
        piece = unit.patched.piece(atom)
        wanted, there = (objtool.sites(made, at, len(piece.data)) for made, at in (
            (self._annotated[number], Place(piece.section.index, piece.start)), (own, place)))
        yield from (f"{table} has not what it must of a replacement for an alternative of {unit.source}, at {offset:#x}"
                    for table, offset in sorted(wanted ^ there))

    def _unwinding(
        self, module: Module, number: int, atom: Atom, place: Place, own: Annotations,
    ) -> Iterator[str]:
        unit = self.units[number]
        piece = unit.patched.piece(atom)
        at = objtool.unlike(Code(piece.data), place, own, Place(piece.section.index, piece.start),
                                self._annotated[number], module.file.sections[place.section].size)
        if at is not None:
            yield (f"the stack is unwound otherwise at {module.words(Place(place.section, place.offset + at))} "
                   f"than in {atom.name or atom.section} of {unit.source}")

    def _used(self, table: str) -> bool:
        """Tell whether the kernel makes use of a table."""
        return bool(self.kernel[VMLINUX].symbols.addresses(SITES[table]))
