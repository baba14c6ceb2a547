# SPDX-License-Identifier: MIT
"""The kernel that a patch is for: its image, config, headers, modules and source, found or given."""

from __future__ import annotations

import os
import platform
import re
import shutil
import subprocess
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypedDict, Unpack

from pylivepatch.errors import BuildError, PatchNotFoundError, UnsupportedError
from pylivepatch.lab import LabError, bzimage, cache, toolchain
from pylivepatch.lab import kernel as stock
from pylivepatch.lab import module as lab_module
from pylivepatch.lab.toolchain import Toolchain
from pylivepatch.module.sign import DIGEST

_GCC = re.compile(r"(?:[A-Za-z0-9_]+-)*gcc(?:-[0-9][0-9.]*)?")
"""What a configuration may name: it is data, and decides about no file."""


class Given(TypedDict, total=False):
    """What replaces what would be found.

    Attributes:
        source: Directory of the kernel's source, unpacked, of exactly the version that runs.
        config: The kernel's configuration file.
        image: The kernel's image: a vmlinuz, or the ELF file from inside it.
        headers: Build directory for modules of the kernel, with Module.symvers.
        modules: The directory /lib/modules/RELEASE.
        compiler: The C compiler.
    """

    source: str | os.PathLike[str]
    config: str | os.PathLike[str]
    image: str | os.PathLike[str]
    headers: str | os.PathLike[str]
    modules: str | os.PathLike[str]
    compiler: str


@dataclass(frozen=True, slots=True)
class Target:
    """A kernel, with all that a patch for it is built from.

    Attributes:
        release: What ``uname -r`` says there.
        version: Version of the distribution's package; "" when there is none.
        source: Directory of its source; None for that of the distribution's package.
        config: Its configuration.
        image: Its image: the ELF file that is in the vmlinuz.
        modules: Its modules.
        headers: Build directory for its modules.
        toolchain: The programs to build with.
        kernel: The same kernel for the lab.
    """

    release: str
    version: str
    source: Path | None
    config: Path
    image: Path
    modules: Path
    headers: Path
    toolchain: Toolchain
    kernel: stock.Kernel

    @property
    def compiler(self) -> str:
        """The C compiler to use."""
        return self.toolchain.compiler

    @property
    def series(self) -> str:
        """MAJOR.MINOR of the release."""
        return ".".join(self.release.split(".")[:2])

    @property
    def digest(self) -> str:
        """The hash that its modules are signed with, as its configuration names it; sha256 when that names none."""
        named = re.search(r'^CONFIG_MODULE_SIG_HASH="(\S+)"', self.config.read_text(), re.MULTILINE)
        return named[1] if named else DIGEST

    def unconfined(self) -> Target:
        """Return the same kernel, to be built for with this machine's own programs."""
        if self.toolchain.root == Path("/"):
            return self
        return replace(self, toolchain=toolchain.here(_compiler(self.config)))

    def klpctl(self) -> Path:
        """Return klpctl's sources, built for this kernel: its header, and Module.symvers.

        Raises:
            LabError: It cannot be built.
        """
        built = lab_module.klpctl(self.kernel, self.headers)
        if built is None:
            raise LabError("no klpctl sources beside the package: build a standalone patch, which needs none")
        return built.path / "src"


def for_series(series: str, flavour: str = "standard", suite: str = "", **given: Unpack[Given]) -> Target:
    """Return the newest stock kernel of *series*, from the distribution's packages.

    Args:
        series: "6.1", "6.12".
        flavour: "standard", "cloud" or "rt".
        suite: Suite or distribution of the archive that it is from; the one that has the newest by default.
        **given: What not to take from the packages.

    Raises:
        LabError: There is no such kernel.
        PatchNotFoundError: Something that was given does not exist.
        BadDataError: That is not the name of one.
    """
    return _target(stock.resolve(series, flavour, suite), given)


def for_release(release: str, **given: Unpack[Given]) -> Target:
    """Return the kernel *release*: from the distribution's packages, or from this machine when it runs here.

    Args:
        release: As ``uname -r`` has it.
        **given: What not to take from there.

    Raises:
        LabError: There is no such kernel.
        PatchNotFoundError: Something that was given does not exist.
        BadDataError: That is not the name of one.
    """
    try:
        return _target(stock.resolve(release), given)
    except (LabError, ValueError):
        if release != platform.release() and not {"config", "image", "headers", "modules", "source"} <= given.keys():
            raise
    return _target(_local(release), given)


def _local(release: str) -> stock.Kernel:
    """Return the kernel of this machine, of no distribution that we know."""
    series = ".".join(re.findall(r"\d+", release)[:2])
    return stock.Kernel(series, "standard", release, "", Path("/lib/modules") / release)


def _target(kernel: stock.Kernel, given: Given) -> Target:
    source, config, image, headers, modules = (
        None if path is None else _existing(path)
        for path in (
            given.get("source"), given.get("config"), given.get("image"), given.get("headers"), given.get("modules")
        )
    )
    for folder in (source, headers):
        if folder:
            check_owner(folder)
    packaged = bool(kernel.version)
    boot = Path("/boot")
    release = kernel.release
    config = config or (kernel.path / "config" if packaged else boot / f"config-{release}")
    image = image or (kernel.vmlinux if packaged else boot / f"vmlinuz-{release}")
    modules = modules or (kernel.modules if packaged else kernel.path)
    headers = headers or (lab_module.headers(kernel) if packaged else kernel.path / "build")
    for path in (config, image, modules, headers):
        if not path.exists():
            raise LabError(f"{path} is missing: name it, or install the packages of {release}")
    return Target(release, kernel.version, source, config.resolve(), _elf(image.resolve()),
                  modules.resolve(), headers.resolve(), _toolchain(kernel, config, given.get("compiler")), kernel)


def _existing(given: str | os.PathLike[str]) -> Path:
    path = Path(given)
    if not path.exists():
        raise PatchNotFoundError(f"there is no {path}", after="nothing was built", remedy="check the path")
    return path


def _toolchain(kernel: stock.Kernel, config: Path, compiler: str | None) -> Toolchain:
    """Return the programs to build with: the distribution's of a packaged kernel, else this machine's."""
    if not kernel.distribution:
        return toolchain.here(compiler or _compiler(config))
    found = toolchain.resolve(kernel)
    if compiler is None:
        _, version = _named_compiler(config)
        if not re.search(rf"\b{found.compiler.rpartition('-')[2]}\.\d+\.\d+\Z", version):
            raise UnsupportedError(f"the kernel was built by {version}, and its headers need {found.compiler}",
                                   feature="compiler", remedy="name the compiler of this configuration (--compiler)")
        return found
    if "/" in compiler:
        return replace(found, compiler=compiler, key=cache.digest([found.key, compiler, Path(compiler).read_bytes()]))
    if (found.root / "usr/bin" / compiler).exists():
        return replace(found, compiler=compiler, key=f"{found.key} {compiler}")
    return toolchain.here(compiler)


def check_owner(folder: Path) -> None:
    """Refuse to run another user's Makefiles as root: what make runs, and what it makes, is that user's."""
    if os.geteuid():
        return
    for path in (folder, folder / "Makefile"):
        if path.exists() and ((stat := path.stat()).st_uid or stat.st_mode & 0o002):
            whose = f"is of uid {stat.st_uid}" if stat.st_uid else "is writable by everybody"
            raise BuildError(f"{path} {whose}, and its Makefiles would run as root", kind="owner", file=str(path),
                             remedy="build as an ordinary user, since a build needs no root, or from a copy of root's")


def _elf(image: Path) -> Path:
    """Return the ELF image in *image*, unpacked into the cache when it is a vmlinuz."""
    with image.open("rb") as file:
        if file.read(4) == b"\x7fELF":
            return image
    data = image.read_bytes()
    key = cache.digest([data])

    def fill(into: Path) -> None:
        (into / "vmlinux").write_bytes(bzimage.vmlinux(data))

    return cache.entry("elf", key, fill, check=("vmlinux",)) / "vmlinux"


def _named_compiler(config: Path) -> tuple[str, str]:
    """Return name and version of the compiler that the configuration names."""
    text = re.search(r'^CONFIG_CC_VERSION_TEXT="(\S+) (.*)"', config.read_text(), re.MULTILINE)
    if text is None:
        raise UnsupportedError(f"{config} names no compiler: it is no kernel configuration", feature="compiler")
    name, version = text[1], text[2]
    if not _GCC.fullmatch(name):
        raise UnsupportedError(f"{config} names the compiler {name!r}, which is no gcc by its name", feature="compiler",
                               remedy="name the compiler of this kernel, when you trust it (--compiler)")
    return name, version


def _compiler(config: Path) -> str:
    """Return the compiler that the configuration names, or the one that is as near as this machine has it."""
    name, version = _named_compiler(config)
    major = re.search(r"(\d+)\.\d+\.\d+\Z", version)
    names = ["gcc", name, f"gcc-{major[1]}"] if major else ["gcc", name]
    for candidate in names:
        if shutil.which(candidate) and version in _version(candidate):
            return candidate
    for candidate in reversed(names):
        if shutil.which(candidate):
            return candidate
    raise UnsupportedError(f"no compiler {name} {version} here, which this kernel was built with", feature="compiler",
                           remedy=f"install {names[-1]}")


def _version(compiler: str) -> str:
    said = subprocess.run([compiler, "--version"], capture_output=True, text=True, check=False).stdout
    return said.partition("\n")[0]
