# SPDX-License-Identifier: MIT
"""Out-of-tree modules for a kernel of the lab: klpctl and the payloads, built on the host in the cache."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pylivepatch.lab import apt, archive, cache, package, toolchain
from pylivepatch.lab import tools as programs
from pylivepatch.lab.errors import LabError
from pylivepatch.lab.kernel import Kernel

BUILT = (".o", ".ko", ".mod", ".mod.c", ".cmd", ".symvers", ".order", ".pyc", ".so", ".a")
"""Endings of what a build leaves in a source directory."""


@dataclass(frozen=True, slots=True)
class Built:
    """The result of building one directory of module sources.

    Attributes:
        path: The cache entry: the sources with what was built beside them.
        modules: The module files.
    """

    path: Path
    modules: tuple[Path, ...]

    @property
    def symbols(self) -> Path:
        """What the modules export, for modules that use it."""
        return self.path / "src/Module.symvers"


def _check(kernel: Kernel) -> tuple[str, ...]:
    top = f"usr/src/linux-headers-{kernel.release}"
    return f"{top}/Makefile", f"{top}/Module.symvers", f"{top}/scripts/mod/modpost"


def headers(kernel: Kernel) -> Path:
    """Return the build directory for modules of *kernel*, fetched into the cache if need be.

    The packaged headers refer to each other by relative links, except for one line of one Makefile,
    which is made relative here: nothing is installed on the host.

    Raises:
        LabError: The packages cannot be had.
    """
    name = f"linux-headers-{kernel.release}"

    def fill(into: Path) -> None:
        pin = apt.Package(name, kernel.version).pin
        wanted = [item for item in apt.closure([pin], kernel.distribution)
                  if item.name.startswith(("linux-headers-", "linux-kbuild-"))]
        apt.unpack(wanted, into, into / "debs", kernel.distribution)
        makefile = into / "usr/src" / name / "Makefile"
        makefile.write_text(makefile.read_text().replace("/usr/src/", "../"))
        # Debian 13 keeps lib/linux-kbuild-* below usr/; the links lead to both
        if not (into / "usr/lib").exists():
            (into / "usr/lib").symlink_to("../lib")

    entry = cache.entry("headers", kernel.path.name, fill, check=_check(kernel), notice=f"fetching {name}")
    return entry / "usr/src" / name


def sources(directory: Path) -> list[Path]:
    """Return the files of *directory* that are sources, not results of a build there."""
    return sorted(
        path for path in directory.rglob("*")
        if path.is_file() and not path.name.endswith(BUILT)
        and not any(part.startswith((".", "__pycache__")) for part in path.relative_to(directory).parts)
    )


def can_build(kernel: Kernel) -> bool:
    """Tell whether the headers of *kernel* are in the cache, or the archive still has them."""
    return bool(cache.kept("headers", kernel.path.name, _check(kernel))) or any(
        (item.name, item.version) == (f"linux-headers-{kernel.release}", kernel.version)
        for item in archive.state().kernels())


def around(tree: Path) -> list[Path]:
    """Return the directories that the headers *tree* refers to: itself, what it was unpacked with, its source."""
    unpacked = tree.parent.parent.parent
    if (unpacked / cache.MARKER).exists():
        return [unpacked]
    return [path.resolve() for path in (tree, tree / "source") if path.exists()]


def build(kernel: Kernel, directory: Path, *, using: Sequence[Built] = (), tree: Path | None = None) -> Built:
    """Build the modules of *directory* for *kernel*, or return what was built of the same sources before.

    Args:
        kernel: What to build for.
        directory: Sources with a Kbuild file or a Makefile; nothing is written there.
        using: What these modules call: its symbols, and its include/ directory if there is one.
        tree: The headers to build against; those of the kernel's package by default.

    Raises:
        LabError: No sources, no compiler, or the build failed, with what it said.
    """
    directory = directory.resolve()
    if not any((directory / name).is_file() for name in ("Kbuild", "Makefile")):
        raise LabError(f"{directory} has neither Kbuild nor Makefile: not a directory of module sources")
    files = sources(directory)
    tools = toolchain.resolve(kernel) if kernel.distribution else toolchain.here()
    key = cache.digest([kernel.path.name, tools.key, cache.tree_digest(directory, files),
                        *(str(item.path) for item in using)])
    tree = (tree or headers(kernel)).resolve()

    def fill(into: Path) -> None:
        work = into / "src"
        for path in files:
            target = work / path.relative_to(directory)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, target)
        argv: list[str | Path] = ["make", "-C", tree, f"M={work}", f"-j{os.cpu_count() or 1}"]
        if using:
            argv += ["KBUILD_EXTRA_SYMBOLS=" + " ".join(str(item.symbols) for item in using),
                     "KCFLAGS=" + " ".join(f"-I{item.path / 'src/include'}" for item in using)]
        tools.run([*argv, "modules"], what=f"building {directory.name} for {kernel.release}", cwd=into,
                  read=[*around(tree), *(item.path for item in using)], write=[into])
        made = sorted(str(path.relative_to(into)) for path in work.rglob("*.ko"))
        if not made:
            raise LabError(f"building {directory} made no module: does its Kbuild say obj-m?")
        for path in [*work.rglob("*.o"), *work.rglob(".*.cmd")]:
            path.unlink()
        (into / "modules").write_text("".join(f"{name}\n" for name in made))

    entry = cache.entry("builds", f"{directory.name}-{key}", fill, check=("modules",),
                        notice=f"building {directory.name} for {kernel.release}")
    names = (entry / "modules").read_text().splitlines()
    return Built(entry, tuple(entry / name for name in names))


def klpctl_source() -> Path | None:
    """Return the directory of klpctl's sources, beside the package or inside it, or None."""
    top = package.source()
    for place in (top.parent / "kmod", top / "_kmod"):
        if (place / "Kbuild").is_file():
            return place
    return None


def klpctl(kernel: Kernel, tree: Path | None = None) -> Built | None:
    """Return klpctl built for *kernel*, or None, with a notice, when its sources are not there."""
    place = klpctl_source()
    if place is None:
        cache.say("no klpctl sources beside the package: the guest will have no klpctl")
        return None
    if tree is None and not can_build(kernel):
        cache.say(f"the archive has no headers of {kernel.release}: the guest will have no klpctl")
        return None
    return build(kernel, place, tree=tree)


def build_module(kernel: Kernel, source_dir: Path, out_dir: Path) -> list[Path]:
    """Build the modules of *source_dir*, which may use klpctl, for *kernel*, into *out_dir*.

    Returns:
        The module files in *out_dir*.

    Raises:
        LabError: The build failed; *out_dir* has nothing new.
    """
    core = klpctl(kernel)
    built = build(kernel, source_dir, using=[core] if core else [])
    out_dir.mkdir(parents=True, exist_ok=True)
    return [Path(shutil.copy(path, out_dir)) for path in built.modules]


def layer(kernel: Kernel, core: Built | None) -> str:
    """Return the directory, below the kernel's cache entry, with module indexes that know klpctl.

    The indexes depend on the names that klpctl goes by, not on its code, so they outlive most builds.
    """
    if core is None:
        return f"lib/modules/{kernel.release}"
    facts = programs.call(["modinfo", core.modules[0]], what="reading klpctl's names").decode()
    lines = [line for line in facts.splitlines() if line.startswith(("alias:", "depends:", "softdep:", "name:"))]
    key = cache.digest([kernel.path.name, *lines])

    def fill(into: Path) -> None:
        place = into / "lib/modules" / kernel.release
        (place / "updates").mkdir(parents=True)
        shutil.copy(core.modules[0], place / "updates")
        for path in kernel.modules.glob("modules.*"):
            if path.name in ("modules.builtin", "modules.builtin.modinfo", "modules.order"):
                shutil.copy(path, place)
        (place / "kernel").symlink_to(kernel.modules / "kernel")
        programs.call(["depmod", "-b", into, kernel.release], what=f"indexing the modules of {kernel.release}")

    check = (f"lib/modules/{kernel.release}/modules.dep.bin",)
    entry = cache.entry(f"stock/{kernel.path.name}/layers", key, fill, check=check,
                        notice=f"indexing klpctl among the modules of {kernel.release}")
    return str(entry.relative_to(kernel.path) / "lib/modules" / kernel.release)
