# SPDX-License-Identifier: MIT
"""Live patch modules as files, read before anything is loaded."""

from __future__ import annotations

import dataclasses
import gzip
import io
import lzma
import zlib
from pathlib import Path
from typing import TYPE_CHECKING, Self

from elftools.elf.elffile import ELFFile
from elftools.elf.sections import SymbolTableSection

from pylivepatch.errors import ModuleFileError, PatchNotFoundError, UnsupportedError

if TYPE_CHECKING:
    import os

__all__ = ["ModuleFile"]

_SIGNATURE = b"~Module signature appended~\n"
_RELOCATIONS = ".klp.rela."
_REGISTER = "klpctl_register_patch"
_MACHINES = {
    "x86_64": "EM_X86_64",
    "aarch64": "EM_AARCH64",
    "ppc64le": "EM_PPC64",
    "ppc64": "EM_PPC64",
    "s390x": "EM_S390",
    "loongarch64": "EM_LOONGARCH",
    "riscv64": "EM_RISCV",
}
_BUILD = "build the patch for this kernel"


@dataclasses.dataclass(frozen=True, slots=True)
class ModuleFile:
    """What a module file says about itself.

    Attributes:
        path: The file.
        name: The module's name.
        release: The kernel release that it was built for; "" when it is not said.
        vermagic: That, and the options of that kernel.
        machine: Its architecture, as ELF names it: "EM_X86_64".
        depends: Names of the modules that it needs.
        livepatch: Whether it is a live patch module.
        payload: Whether it registers with klpctl, so that loading it changes nothing.
        signed: Whether a signature is appended; it is not verified here.
        relocated: Objects that it has livepatch relocations for.
    """

    path: Path
    name: str
    release: str
    vermagic: str
    machine: str
    depends: tuple[str, ...]
    livepatch: bool
    payload: bool
    signed: bool
    relocated: tuple[str, ...]

    @classmethod
    def open(cls, path: str | os.PathLike[str]) -> Self:
        """Read a module file: plain, or compressed as .xz, .zst or .gz.

        Args:
            path: The file.

        Raises:
            PatchNotFoundError: There is no such file.
            ModuleFileError: It cannot be read, or it is not a kernel module.
            UnsupportedError: It is compressed with zstd, and zstandard is missing.
        """
        file = Path(path)
        try:
            data = file.read_bytes()
        except FileNotFoundError:
            raise PatchNotFoundError(
                f"there is no module file {file}",
                after="nothing was loaded",
                remedy="check the path",
            ) from None
        except (OSError, ValueError) as error:
            raise ModuleFileError(f"it cannot be read: {error}", filename=str(file)) from error
        if not data:
            raise ModuleFileError("it is empty", filename=str(file), remedy="build it anew")
        data = _decompressed(data, str(file))
        if not data.startswith(b"\x7fELF"):
            raise ModuleFileError("it is not an ELF file", filename=str(file), remedy="give a .ko file")
        try:
            return cls._parse(file, data)
        except ModuleFileError:
            raise
        except Exception as error:  # pyelftools trusts what it reads: any error is damage
            raise ModuleFileError(f"it is damaged: {error}", filename=str(file), remedy="build it anew") from error

    @classmethod
    def _parse(cls, file: Path, data: bytes) -> Self:
        elf = ELFFile(io.BytesIO(data))
        section = elf.get_section_by_name(".modinfo")
        if elf["e_type"] != "ET_REL" or section is None:
            raise ModuleFileError("it is not a kernel module", filename=str(file), remedy="give a .ko file")
        info: dict[str, str] = {}
        for entry in section.data().split(b"\0"):
            key, _, value = entry.decode(errors="replace").partition("=")
            info.setdefault(key, value)
        vermagic = info.get("vermagic", "")
        relocated = {
            section.name.removeprefix(_RELOCATIONS).partition(".")[0]
            for section in elf.iter_sections()
            if section.name.startswith(_RELOCATIONS)
        }
        return cls(
            path=file,
            name=info.get("name") or file.name.partition(".")[0].replace("-", "_"),
            release=vermagic.partition(" ")[0],
            vermagic=vermagic,
            machine=str(elf["e_machine"]),
            depends=tuple(name for name in info.get("depends", "").split(",") if name),
            livepatch=info.get("livepatch") == "Y",
            payload=_needs(elf, _REGISTER),
            signed=data.endswith(_SIGNATURE),
            relocated=tuple(sorted(relocated)),
        )

    def check(self, release: str, machine: str) -> None:
        """Insist on a live patch module for a kernel.

        Args:
            release: The kernel's release, as ``uname -r`` prints it.
            machine: Its architecture, as ``uname -m`` prints it.

        Raises:
            ModuleFileError: It is something else. Nothing was loaded.
        """
        wanted = _MACHINES.get(machine, self.machine)
        if self.machine != wanted:
            why, remedy = f"it is for {self.machine}, and this machine is {wanted}", _BUILD
        elif not self.livepatch:
            why, remedy = "it is not a live patch module", "load it with modprobe or insmod"
        elif self.release != release:
            built = f"kernel {self.release}" if self.release else "no kernel that it names"
            why, remedy = f"it was built for {built}, and this is kernel {release}", _BUILD
        else:
            return
        raise ModuleFileError(why, filename=str(self.path), remedy=remedy)


def _needs(elf: ELFFile, symbol: str) -> bool:
    return any(
        found["st_shndx"] == "SHN_UNDEF"
        for section in elf.iter_sections()
        if isinstance(section, SymbolTableSection)
        for found in section.get_symbol_by_name(symbol) or ()
    )


def _decompressed(data: bytes, filename: str) -> bytes:
    try:
        if data.startswith(b"\xfd7zXZ\0"):
            return lzma.decompress(data)
        if data.startswith(b"\x1f\x8b"):
            return gzip.decompress(data)
        if data.startswith(b"\x28\xb5\x2f\xfd"):
            return _zstd(data)
    except (lzma.LZMAError, zlib.error, OSError, EOFError) as error:
        raise ModuleFileError(
            f"its compression is damaged: {error}", filename=filename, remedy="build it anew"
        ) from error
    return data


def _zstd(data: bytes) -> bytes:
    try:
        import zstandard
    except ImportError:
        raise UnsupportedError(
            "reading .zst modules needs the package zstandard",
            feature="zstd",
            remedy="install zstandard, or unpack the file with zstd -d",
        ) from None
    try:
        return zstandard.ZstdDecompressor().decompressobj().decompress(data)
    except zstandard.ZstdError as error:
        raise OSError(str(error)) from error
