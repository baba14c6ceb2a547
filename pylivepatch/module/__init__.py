# SPDX-License-Identifier: MIT
"""Live patch modules as files, read before anything is loaded. Here: what a file says about itself.

* `declared`: what it replaces, found in its data. `info`: all that is known about a patch.
* `versions`: what installed modules tell of the kernel.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Self

from pylivepatch.elf.file import Image, damage, module_name
from pylivepatch.errors import BadDataError, ModuleFileError
from pylivepatch.kernel.names import module_options

if TYPE_CHECKING:
    import os
    from collections.abc import Iterable, Mapping

__all__ = ["ModuleFile"]

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
UNKNOWN_REMEDY = "spell it right: the kernel would ignore it"


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
        build_id: What the linker named this build, in hexadecimal; "" without it.
        modinfo: Every key and value of its modinfo, in the order of the file.
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
    build_id: str = ""
    modinfo: tuple[tuple[str, str], ...] = ()

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
        return cls.of(Image.read(Path(path)))

    @classmethod
    def of(cls, image: Image) -> Self:
        """Read what an image says about itself.

        Raises:
            ModuleFileError: It is damaged.
        """
        with damage(image.path):
            info: dict[str, str] = {}
            for key, value in image.modinfo:
                info.setdefault(key, value)
            vermagic = info.get("vermagic", "")
            relocated = {
                section.name.removeprefix(_RELOCATIONS).partition(".")[0]
                for section in image.sections
                if section.name.startswith(_RELOCATIONS)
            }
            return cls(
                path=image.path,
                name=info.get("name") or module_name(image.path.name),
                release=vermagic.partition(" ")[0],
                vermagic=vermagic,
                machine=str(image.elf["e_machine"]),
                depends=tuple(name for name in info.get("depends", "").split(",") if name),
                livepatch=info.get("livepatch") == "Y",
                payload=any(symbol.name == _REGISTER for symbol in image.undefined),
                signed=image.signed,
                relocated=tuple(sorted(relocated)),
                build_id=image.build_id,
                modinfo=image.modinfo,
            )

    def values(self, key: str) -> tuple[str, ...]:
        """All values of a key of its modinfo, in the order of the file."""
        return tuple(value for found, value in self.modinfo if found == key)

    def check(self, release: str, machine: str) -> None:
        """Insist on a live patch module for a kernel.

        Args:
            release: The kernel's release, as ``uname -r`` prints it.
            machine: Its architecture, as ``uname -m`` prints it.

        Raises:
            ModuleFileError: It is something else. Nothing was loaded.
        """
        for _, why, remedy in mismatches(self, release, machine):
            raise ModuleFileError(why, filename=str(self.path), remedy=remedy)


def mismatches(file: ModuleFile, release: str, machine: str) -> list[tuple[str, str, str]]:
    """Tell why a file is not a live patch module for a kernel: a code for programs, the reason, the remedy."""
    found = []
    wanted = _MACHINES.get(machine, file.machine)
    if file.machine != wanted:
        found.append(("machine", f"it is for {file.machine}, and this machine is {wanted}", _BUILD))
    if not file.livepatch:
        found.append(("not-livepatch", "it is not a live patch module", "load it with modprobe or insmod"))
    if file.release != release:
        built = f"kernel {file.release}" if file.release else "a kernel that it does not name"
        found.append(("release", f"it was built for {built}, and this is kernel {release}", _BUILD))
    return found


def unknown_params(file: ModuleFile, params: Iterable[str]) -> dict[str, str]:
    """Tell which parameters a file does not have, each with the reason: the kernel would ignore them."""
    known = {value.partition(":")[0] for key in ("parm", "parmtype") for value in file.values(key)}
    takes = f"it takes {', '.join(sorted(known))}" if known else "it takes none"
    # Parameters of the module loader itself are dyndbg and async_probe.
    return {
        name: f"the module has no parameter of that name; {takes}"
        for name in params
        if name.replace("-", "_") not in known | {"dyndbg", "async_probe"}
    }


def check_params(file: ModuleFile, params: Mapping[str, str | int | bool]) -> None:
    """Insist on parameters that a file has, with values that can be passed.

    Raises:
        BadDataError: One is unknown, or cannot be passed. Nothing has changed.
    """
    module_options(params)
    for name, why in unknown_params(file, params).items():
        raise BadDataError(f"parameter {name}: {why}", after="nothing has changed", remedy=UNKNOWN_REMEDY)
