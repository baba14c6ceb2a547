# SPDX-License-Identifier: MIT
"""The programs that a distribution's kernels are built with: a root file system for each, in the cache."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pylivepatch.lab import apt, cache, rootfs, tools
from pylivepatch.lab.errors import LabError
from pylivepatch.lab.kernel import Kernel
from pylivepatch.lab.sandbox import Sandbox

PACKAGES = (
    "bash", "bc", "binutils", "bison", "bzip2", "coreutils", "cpio", "dash", "diffutils", "findutils", "flex", "grep",
    "gzip", "kmod", "libc6-dev", "libelf-dev", "libssl-dev", "m4", "make", "mawk", "pahole", "patch", "perl", "pkgconf",
    "python3", "sed", "sparse", "util-linux", "xz-utils", "zlib1g-dev", "zstd",
)  # fmt: skip
"""What a toolchain has, besides the compiler, with what these depend on."""

LEFT_OUT = re.compile(r"dpkg|debconf|adduser|gcc-\d+-base|media-types|tzdata|install-info|sensible-utils")

FORMAT = 2
"""Raised when the making of a toolchain changes, so that old ones are not used."""

CHECK = ("root/usr/bin/make", "root/usr/bin/bash", "root/usr/bin/ld", "root/etc/ld.so.cache")


@dataclass(frozen=True, slots=True)
class Toolchain:
    """The programs of a distribution, or, without one, of this machine.

    Attributes:
        root: The root file system; this machine's own without one.
        compiler: The C compiler in it.
        key: What tells one toolchain from another, for what is made by it.
    """

    root: Path
    compiler: str
    key: str

    def run(
        self,
        command: Sequence[str | Path],
        *,
        what: str,
        cwd: Path,
        read: Sequence[Path] = (),
        write: Sequence[Path] = (),
    ) -> str:
        """Run one of its programs to its end, and return what it printed.

        Args:
            command: Program and arguments.
            what: What this is for, for the message of an error.
            cwd: Working directory; it must be seen.
            read: Directories and files that are seen.
            write: Directories that are seen, and may be changed.

        Raises:
            LabError: It failed, with the end of its output.
        """
        done = Sandbox(tuple(read), tuple(write), self.root).run(command, what=what, cwd=cwd)
        if done.status:
            raise LabError(f"{what}: {command[0]} failed with status {done.status}:\n{done.output()}")
        return done.output()


def here(compiler: str = "gcc") -> Toolchain:
    """Return the programs of this machine, for a kernel that is from no package."""
    return Toolchain(Path("/"), compiler, tools.call([compiler, "--version"], what="asking the compiler").decode())


def _fill(packages: Sequence[apt.Package], distribution: str, into: Path) -> None:
    rootfs.make(packages, into / "root", into / "debs", distribution)
    awk = into / "root/usr/bin/awk"
    if not awk.exists():
        awk.symlink_to("mawk")  # as update-alternatives would have it


def compiler_package(kernel: Kernel) -> str:
    """Return the package of the compiler that *kernel* was built with, as its configuration says.

    Raises:
        LabError: It was not built with gcc.
    """
    config = (kernel.path / "config").read_text()
    match = re.search(r'^CONFIG_CC_VERSION_TEXT="\S*gcc\S* .*\b(\d+)\.\d+\.\d+"$', config, re.MULTILINE)
    if match is None:
        raise LabError(f"the kernel {kernel.release} was not built with gcc: nothing can be built for it")
    return f"gcc-{match[1]}"


def resolve(kernel: Kernel) -> Toolchain:
    """Return the toolchain of *kernel*'s distribution, made in the cache if need be.

    Without a network the one that was used last is taken, with a notice.

    Raises:
        LabError: A package cannot be had, and there is none in the cache.
    """
    compiler = compiler_package(kernel)
    distribution = kernel.distribution
    check = (*CHECK, f"root/usr/bin/{compiler}")
    prefix = f"{distribution}-{compiler}-"
    try:
        packages = rootfs.closure([*PACKAGES, compiler], distribution, LEFT_OUT)
        key = cache.digest([str(FORMAT), *(package.pin for package in packages)])
        path = cache.entry(
            "toolchains", prefix + key,
            lambda into: _fill(packages, distribution, into),
            check=check, notice=f"making the toolchain of {distribution}, with {compiler}: {len(packages)} packages",
        )  # fmt: skip
    except LabError as error:
        kept = cache.kept("toolchains", prefix, check)
        if kept is None:
            raise
        cache.say(f"using the cached toolchain {kept.name}: {str(error).splitlines()[0]}")
        path = kept
    return Toolchain(path / "root", compiler, path.name)
