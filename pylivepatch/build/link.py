# SPDX-License-Identifier: MIT
"""Make a patch module of what was extracted: a module like any other to kbuild, then livepatch relocations."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from pylivepatch.boot import files
from pylivepatch.build import tables
from pylivepatch.build.elf import (
    R_X86_64_NONE,
    SHN_LIVEPATCH,
    SHT_PROGBITS,
    STB_GLOBAL,
    WIDTH,
    Object,
    Reloc,
    Section,
    Symbol,
)
from pylivepatch.build.extract import Extract
from pylivepatch.build.glue import About, glue
from pylivepatch.build.image import VMLINUX
from pylivepatch.build.symbols import Livepatch, Symbols
from pylivepatch.build.target import Target
from pylivepatch.errors import BuildError
from pylivepatch.lab.sandbox import Sandbox

_DIFF = ".klpctl.diff"


def link(
    extract: Extract, about: About, target: Target, work: Path, *,
    objtool: Sequence[str] | None, klpctl: Path | None, symbols: Symbols, box: Sandbox,
) -> Object:
    """Link the module, turn what only the livepatch core can resolve into livepatch relocations, and return it.

    Args:
        extract: What was taken out of the objects.
        about: What the module says about itself.
        target: What it is for.
        work: An empty directory.
        objtool: The command that has to see the extracted object, where kbuild shows it single objects (before 6.2,
            or without IBT); None where it shows it the whole module.
        klpctl: Directory of klpctl's sources, built: its header and Module.symvers; not needed for a standalone patch.
        symbols: The symbols of the kernel.
        box: Where programs run; they may write to *work*.

    Raises:
        BuildError: The module cannot be linked, or would not be resolved.
    """
    part = work / f"{about.name}_code.o"
    _static_call_keys(extract, symbols)
    names = _Names.give(extract)
    extract.object.write(part)
    if objtool is not None:
        _heed(_run(box, [*objtool, str(part)], work, "objtool"), names.meant)
    (work / f".{about.name}_code.o.cmd").write_text("")  # modpost looks there for sources
    (work / f"{about.name}_patch.c").write_text(glue(extract, about, symbols.image(VMLINUX).version()))
    (work / "Kbuild").write_text(
        f"obj-m := {about.name}.o\n{about.name}-y := {about.name}_patch.o {about.name}_code.o\n")
    flags = ["-g0", f"-ffile-prefix-map={work}=."]
    argv = ["make", "-s", "-C", str(target.headers), f"M={work}", "KBUILD_MODPOST_WARN=1",
            "CONFIG_DEBUG_INFO_BTF_MODULES=", f"CC={target.compiler}"]
    if klpctl is not None and not about.standalone:
        box = box.seeing(klpctl)
        flags.append(f"-I{klpctl / 'include'}")
        argv.append(f"KBUILD_EXTRA_SYMBOLS={klpctl / 'Module.symvers'}")
    said = _run(box, [*argv, f"KCFLAGS={' '.join(flags)}", "modules"], work, "kbuild")
    made = work / f"{about.name}.ko"
    _heed(said, {*names.meant, *extract.entries})
    if not made.exists():
        raise BuildError(f"kbuild made no module of the patch:\n{said}", kind="link")
    module = Object.open(made)
    for symbol in module.symbols:
        symbol.name = names.own.get(symbol.name, symbol.name)
    _enter(module, extract.entries)
    _resolve(module, names.meant)
    _strip(module)
    module.sections.append(note(_DIFF, about.diff.encode(errors="surrogateescape")))
    _check(module, symbols, klpctl)
    return module


def write(module: bytes, output: Path) -> None:
    """Write a module's file; what was there stays until the new one is whole.

    Raises:
        BuildError: It cannot be written.
    """
    try:
        if output.exists() and not output.is_file():
            output.write_bytes(module)  # a pipe, or /dev/null
        else:
            files.write(output.resolve(), module)
    except OSError as error:
        raise BuildError(f"{output} cannot be written: {error.strerror}; what was there is untouched",
                         kind="output") from error


def _static_call_keys(extract: Extract, symbols: Symbols) -> None:
    """Name the keys of static calls: objtool puts a key into the site of the call where it finds it.

    With the trampoline there instead the kernel looks for the key in a table of those that are not exported, and does
    not load the module when it finds none (static_call_add_module()).
    """
    for meant in list(extract.undefined):
        name = meant if isinstance(meant, str) else meant.name
        if name.startswith(tables.TRAMPOLINE) and (isinstance(meant, str) or meant.known):
            key = name.replace(tables.TRAMPOLINE, tables.KEY, 1)
            extract.refer(key if symbols.ordinary(key) else symbols.find(VMLINUX, key, name))


@dataclass(frozen=True, slots=True)
class _Names:
    """What symbols are called until the module is linked: objtool must not take one for another of the same name.

    Attributes:
        meant: What the undefined ones mean.
        own: What the others are called afterwards.
    """

    meant: dict[str, Livepatch | str]
    own: dict[str, str]

    @classmethod
    def give(cls, extract: Extract) -> Self:
        """Give names to what is not in the extracted object, and others to its own where those are the same."""
        symbols = extract.object.symbols
        exported = {meant for meant in extract.undefined if isinstance(meant, str)}
        own = {}
        for symbol in symbols:
            if symbol.section is not None and symbol.name.partition(".cold")[0] in exported:
                own[f"__klp_own_{symbol.name}"] = symbol.name
                symbol.name = f"__klp_own_{symbol.name}"
        taken = {symbol.name for symbol in symbols if symbol.section is not None} | exported
        meant: dict[str, Livepatch | str] = {}
        for number, (each, symbol) in enumerate(extract.undefined.items()):
            if isinstance(each, str):
                symbol.name = each
            else:
                symbol.name = each.name if each.known and each.name not in taken else f"__klp_ref_{number}"
            meant[symbol.name] = each
        return cls(meant, own)


def _run(box: Sandbox, argv: Sequence[str], cwd: Path, what: str) -> str:
    done = box.run(argv, cwd=cwd, what=what)
    if done.status:
        raise BuildError(f"{what} failed on the extracted code:\n{done.output()}", kind="link")
    return done.output()


_COMPLAINT = re.compile(r"\b(?:objtool|modpost): ")
_EXPECTED = re.compile(r"""modpost: (?:"(?P<name>[^"]*)" \[[^]]*\] undefined!"""
                         r"""|\S+: symbol '(?P<named>[^']*)' undefined!"""  # 7.3
                         r"""|\S+: missing MODULE_DESCRIPTION\(\)"""  # a patch need not have one
                         r"""|suppressed \d+ unresolved symbol warnings)""")


def _heed(output: str, unresolved: Collection[str]) -> None:
    """Refuse what objtool or modpost complains about: up to 6.15 they do so and succeed all the same.

    Args:
        output: What they wrote.
        unresolved: Names that are resolved when they have seen the module.

    Raises:
        BuildError: They do. The module would lack what objtool makes: unwind data, mitigations.
    """
    def expected(line: str) -> bool:
        found = _EXPECTED.search(line)
        return found is not None and {found["name"], found["named"]} <= {None, *unresolved}

    lines = [line for line in output.splitlines() if _COMPLAINT.search(line) and not expected(line)]
    if lines:
        raise BuildError("what the kernel's build says of the extracted code makes it unfit for a patch:\n"
                         + "\n".join(lines[:10]), kind="link")


def _enter(module: Object, entries: Mapping[str, str]) -> None:
    """Put the functions that are meant in the place of the names that they had before the module was linked."""
    functions = {symbol.name: symbol for symbol in module.symbols
                 if symbol.is_func and symbol.section is not None and not tables.is_init(symbol.section.name)}
    for section in module.sections:
        for reloc in section.relocs:
            if reloc.symbol.undefined and reloc.symbol.name in entries:
                reloc.symbol = functions[entries[reloc.symbol.name]]
    module.symbols = [symbol for symbol in module.symbols if not (symbol.undefined and symbol.name in entries)]


def note(name: str, data: bytes) -> Section:
    """Return a section that is not loaded."""
    return Section(name, SHT_PROGBITS, 0, bytearray(data), len(data))


def _resolve(module: Object, names: Mapping[str, Livepatch | str]) -> None:
    """Move the relocations that the livepatch core applies into sections of its own, and name what they refer to."""
    final: dict[str, Symbol] = {}
    undefined = {id(symbol): names[symbol.name] for symbol in module.symbols
                 if symbol.undefined and symbol.name in names}
    for section in module.sections:
        kept: list[Reloc] = []
        for reloc in section.relocs:
            meant = undefined.get(id(reloc.symbol))
            if meant is None or isinstance(meant, str):
                kept.append(reloc)
                continue
            symbol = final.setdefault(
                meant.final, Symbol(meant.final, bind=STB_GLOBAL, shndx=SHN_LIVEPATCH))
            section.livepatch.setdefault(meant.needs, []).append(Reloc(reloc.offset, reloc.type, symbol, reloc.addend))
            if meant.needs != VMLINUX and (tables.is_table(section.name) or section.name == tables.REPLACEMENTS):
                raise BuildError(
                    f"{section.name} of the patch refers to {meant.name} of the module {meant.owner}, which is not "
                    "there yet when the kernel reads it", kind="static-key", symbol=meant.name)
        section.relocs = kept
    module.symbols = [symbol for symbol in module.symbols if not isinstance(undefined.get(id(symbol)), Livepatch)]
    module.symbols += final.values()


def _strip(module: Object) -> None:
    """Leave out what is of no use at run time, and would differ from one build to the next."""
    dropped = {id(section) for section in module.sections
               if section.name.startswith((".debug", ".comment", ".BTF", ".note.GNU-stack", ".llvm"))}
    module.sections = [section for section in module.sections if id(section) not in dropped]
    module.symbols = [symbol for symbol in module.symbols
                      if symbol.section is None or id(symbol.section) not in dropped]


def _check(module: Object, symbols: Symbols, klpctl: Path | None) -> None:
    """Make sure that everything will be resolved, exactly once, and that nothing is written beside its section."""
    symvers = (klpctl / "Module.symvers").read_text() if klpctl else ""
    provided = set(re.findall(r"^\S+\t(\S+)", symvers, re.MULTILINE))
    for symbol in module.symbols:
        if symbol.shndx == SHN_LIVEPATCH:
            owner, _, rest = symbol.name.removeprefix(".klp.sym.").partition(".")
            name, _, sympos = rest.rpartition(",")
            count = len(symbols.image(owner).symbols.addresses(name))
            if not count or (count > 1) != bool(int(sympos)) or int(sympos) > count:
                raise BuildError(f"{owner} has {count} symbols called {name}, and the patch wants number {sympos}",
                                 kind="unresolved", symbol=name)
        elif symbol.undefined and symbol.name and not symbols.ordinary(symbol.name) and symbol.name not in provided:
            raise BuildError(f"the kernel does not export {symbol.name}, which the patch needs", kind="unresolved",
                             symbol=symbol.name)
    for section in module.sections:
        for reloc in [*section.relocs, *(reloc for relocs in section.livepatch.values() for reloc in relocs)]:
            width = 0 if reloc.type == R_X86_64_NONE else WIDTH.get(reloc.type)
            if width is None or reloc.offset + width > section.size:
                raise BuildError(f"{section.name} of the patch has a relocation that cannot be (type {reloc.type} at "
                                 f"{reloc.offset:#x})", kind="link")
