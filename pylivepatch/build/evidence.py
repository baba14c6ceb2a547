# SPDX-License-Identifier: MIT
"""What the checker of finished modules gets from a build: sources as they were compiled, programs, and the kernel."""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from elftools.elf.elffile import ELFFile

from pylivepatch.build.compiler import Compiled
from pylivepatch.build.image import VMLINUX
from pylivepatch.build.symbols import Symbols
from pylivepatch.build.target import Target
from pylivepatch.build.verify import Evidence, Kernel, Layouts, Running, Source, exports
from pylivepatch.errors import BuildError
from pylivepatch.lab.sandbox import Sandbox

_OBJTOOL = re.compile(r";\s*(\S*objtool/objtool\s[^;\n]*?)\s+\S+\.o\s*(?:;|$)", re.MULTILINE)
_COMPILED = re.compile(r" -c -o \S+ (?=(\S+\.c)\s*$)")


def gather(
    pairs: Sequence[tuple[Compiled, Compiled]], made: Path, folder: Path, *, target: Target, symbols: Symbols,
    symvers: Sequence[Path], box: Sandbox,
) -> Evidence:
    """Return the evidence of a build.

    Args:
        pairs: Each source that was compiled, as it is and with the diff.
        made: The directory in which the module was linked.
        folder: An empty directory, for programs to write to.
        target: The kernel that the module is for.
        symbols: Its symbols.
        symvers: What it and its modules export.
        box: Where programs run; it sees both directories, and may write to *folder*.

    Raises:
        BuildError: The module's own sources do not compile.
    """
    sources = [Source(orig.unit.source, orig.unit.object, _text(patched.text), _text(orig.text))
               for orig, patched in pairs]
    commands = {path.name[1:-6]: path.read_text().partition("\n")[0].partition(":=")[2]
                for path in sorted(made.glob(".*.o.cmd"))}
    where = _where(commands.values(), made, target.headers)
    programs = _Programs(box, folder, where, pairs[0][0])
    sources += [Source(name, "", text) for name, text in programs.compile(commands).items()]
    return Evidence(
        release=target.release, kernel=_kernel(target, symbols, symvers), layouts=_layouts(target.image),
        sources=tuple(sources), assemble=programs.assemble,
        annotate=_Objtool(box, folder, where, "\n".join(commands.values())).run)


def _where(commands: Iterable[str], made: Path, headers: Path) -> Path:
    """Return where kbuild ran its commands: since 6.13 (13b25489b6f8) in the module's directory, by relative names."""
    sources = [match[1] for command in commands if (match := _COMPILED.search(_plain(command)))]
    return headers if all(source.startswith("/") for source in sources) else made


def _text(path: Path) -> str:
    return path.read_text(errors="surrogateescape")


def _kernel(target: Target, symbols: Symbols, symvers: Sequence[Path]) -> Kernel:
    def opened(name: str) -> Running:
        try:
            image = symbols.image(name)
        except BuildError as error:
            raise LookupError(str(error)) from error
        return Running.vmlinux(target.image, image.symbols) if name == VMLINUX else Running.module(name, image.path)

    return Kernel(opened, exports("".join(path.read_text() for path in symvers)))


def _layouts(image: Path) -> Layouts:
    """Read how the kernel's structs look out of its image.

    Raises:
        BuildError: The image does not tell.
    """
    with image.open("rb") as file:
        section = ELFFile(file).get_section_by_name(".BTF")
        if section is None:
            raise BuildError(f"{image} has no BTF: nothing tells what the livepatch core's tables look like",
                             kind="proof", remedy="use a kernel with CONFIG_DEBUG_INFO_BTF")
        return Layouts(section.data())


@dataclass(frozen=True, slots=True)
class _Programs:
    """The compiler and the assembler, many runs at once."""

    box: Sandbox
    folder: Path
    where: Path
    like: Compiled

    def compile(self, commands: dict[str, str]) -> dict[str, str]:
        """Return the assembly of the module's own sources, by name, of the commands that compiled them."""
        wanted = {name: _COMPILED.sub(f" -S -o {shlex.quote(str(self.folder / name))}.s ", _plain(command))
                  for name, command in commands.items() if _COMPILED.search(_plain(command))}
        _parallel(self.box, list(wanted.values()), self.where, self.folder, "compiling the module's own sources")
        return {name: _text(self.folder / f"{name}.s") for name in wanted}

    def assemble(self, texts: Sequence[str]) -> list[bytes]:
        """Return the objects that the assembler of the kernel's own build makes of *texts*."""
        commands = []
        for number, text in enumerate(texts):
            place = self.folder / f"layout-{number}"
            place.with_suffix(".s").write_text(text, errors="surrogateescape")
            commands.append(self.like.assemble.replace("OUTPUT", shlex.quote(f"{place}.o"))
                            .replace("INPUT", shlex.quote(f"{place}.s")))
        _parallel(self.box, commands, self.like.where, self.folder, "assembling what the compiler made")
        return [(self.folder / f"layout-{number}.o").read_bytes() for number in range(len(texts))]


@dataclass(frozen=True, slots=True)
class _Objtool:
    """objtool, as the kernel's build ran it on the module."""

    box: Sandbox
    folder: Path
    where: Path
    commands: str

    def run(self, objects: Sequence[bytes]) -> list[bytes]:
        """Return the objects with what objtool adds; as they are for a kernel that does without."""
        found = _OBJTOOL.findall(self.commands)
        paths = [self.folder / f"object-{number}.o" for number in range(len(objects))]
        for path, data in zip(paths, objects, strict=True):
            path.write_bytes(data)
        if found:
            _parallel(self.box, [f"SRCARCH=x86 {found[-1]} {shlex.quote(str(path))}" for path in paths],
                      self.where, self.folder, "objtool on the reference")
        return [path.read_bytes() for path in paths]


def _plain(command: str) -> str:
    """Return the compiler's part of a command that kbuild saved."""
    return re.sub(r" ?-Wp,-MMD,\S+", "", command.partition(" ; ")[0].strip())


def _parallel(box: Sandbox, commands: Sequence[str], cwd: Path, folder: Path, what: str) -> None:
    """Run commands of the shell on all processors.

    Raises:
        BuildError: One failed.
    """
    if not commands:
        return
    script = folder / "commands"
    script.write_text("\0".join(commands), errors="surrogateescape")
    done = box.run(["xargs", "-0", "-a", script, "-n", "1", "-P", str(os.cpu_count() or 1), "bash", "-c"], cwd=cwd,
                   what=what)
    if done.status:
        raise BuildError(f"{what} failed:\n{done.output(20)}", kind="proof")
