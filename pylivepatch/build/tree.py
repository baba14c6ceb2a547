# SPDX-License-Identifier: MIT
"""Prepared sources: unpacked, configured as the kernel that runs, ready to compile single files. Kept in the cache."""

from __future__ import annotations

import contextlib
import functools
import json
import os
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from pylivepatch.build.target import Target
from pylivepatch.errors import BuildError
from pylivepatch.lab import LabError, apt, cache, tools
from pylivepatch.lab import module as lab_module
from pylivepatch.lab.sandbox import Done, Limits, Sandbox

TOP = ("init", "usr", "arch/x86", "arch/x86/lib", "arch/x86/pci", "arch/x86/power", "arch/x86/video", "kernel",
       "certs", "mm", "fs", "ipc", "security", "crypto", "io_uring", "block", "drivers", "sound", "net", "virt", "lib")
"""Where kbuild begins."""

_MANIFEST = ".manifest.json"
_STAMP = "include/generated/utsrelease.h"
_SOURCES = (".c", ".h", "Makefile", "Kbuild")
_SYSTEM = re.compile(r"(?:/usr)?/(?:s?bin|lib\w*|libexec|include|share|x86_64-linux-gnu)(?:/|\Z)")
_REMADE = frozenset({"Documentation", "tools", "scripts", "generated", "config"})
_HARMLESS = re.compile(
    r"CONFIG_(?:CC_VERSION_TEXT|RUSTC\w*|BUILD_SALT|MODULE_SIG_\w+|SYSTEM_TRUSTED_KEYS|RUST\w*|PAHOLE_\w+)\b")


@dataclass(frozen=True, slots=True)
class Tree:
    """A prepared source.

    Attributes:
        path: Its top directory.
        target: What it is prepared for.
        confined: Whether programs that work on it run in a sandbox.
    """

    path: Path
    target: Target
    confined: bool = True

    def sandbox(self, *write: Path) -> Sandbox:
        """Return where programs run that work on this source.

        They see it, the headers of the kernel and of klpctl, and the compiler; they may change what is in *write*.
        """
        return sandbox_for(self.target, confined=self.confined).seeing(self.path, write=write)

    def make(self, goals: Sequence[str], what: str) -> None:
        """Let the kernel's own build make *goals*, under the tree's lock.

        Raises:
            BuildError: It failed, with what it said.
        """
        with self.lock():
            done = _run(self.sandbox(self.path), self.target, goals, self.path, what)
        if done.status:
            raise BuildError(f"{what} failed:\n{done.output(20)}", kind="compile",
                             remedy="the source as it is does not compile: is it of this kernel?")

    @property
    def is_kernel(self) -> bool:
        """Whether it is the kernel's own, where a path says what a file is."""
        return True

    @property
    def label(self) -> str:
        """What to call it in a message."""
        return f"the source of {self.target.release}"

    @property
    def folders(self) -> list[str]:
        """Top directories of what this kernel is compiled of."""
        return sorted({name.partition("/")[0] for name in (*TOP, "include") if (self.path / name).is_dir()})

    @property
    def where(self) -> Path:
        """Where kbuild runs the compiler, and has its tools."""
        return self.path

    @property
    def symvers(self) -> tuple[Path, ...]:
        """The lists of what the kernel and its modules export."""
        return (self.target.headers / "Module.symvers",)

    def relocated(self, command: str, root: Path) -> tuple[str, Path]:
        """Return a command of the tree for a shadow of it, and where to run it."""
        return command, root

    @contextlib.contextmanager
    def lock(self) -> Iterator[None]:
        """Hold the tree for writing; several builds share it."""
        with cache.lock(f"trees-{self.path.name}-make"):
            yield

    def config_differences(self) -> list[str]:
        """Return what of the configuration is not as the kernel's own, because this machine's tools differ."""
        kept = _options(self.target.config.read_text())
        made = _options((self.path / ".config").read_text())
        return sorted(f"{name}={made.get(name, 'n')} instead of {kept.get(name, 'n')}"
                      for name in kept.keys() | made.keys()
                      if kept.get(name) != made.get(name) and not _HARMLESS.match(name))

    def damage(self) -> list[str]:
        """Return the files that are not as they were prepared."""
        try:
            known = json.loads((self.path / _MANIFEST).read_text())
        except (OSError, ValueError):
            return [_MANIFEST]
        found = dict(_files(self.path))
        return sorted(name for name, facts in known.items() if facts != found.get(name))

    def discard(self) -> None:
        """Remove the tree, so that it is prepared anew."""
        with self.lock():
            shutil.rmtree(self.path, ignore_errors=True)


def prepare(target: Target, *, say: Callable[[str], None] = cache.say, confined: bool = True) -> Tree:
    """Return the prepared source of *target*, made first when it is absent or broken.

    Args:
        target: The kernel.
        say: Called with a line of text when something begins that takes time.
        confined: Whether the kernel's own build, and what works on the source later, run in a sandbox.

    Raises:
        LabError: The source package of that version cannot be had, or cannot be prepared.
        UnsupportedError: This machine makes no sandbox.
    """
    source = str(target.source.resolve()) if target.source else target.version
    key = cache.digest([target.release, source, target.config.read_bytes(), target.toolchain.key,
                        _makefile(target.source)])

    def fill(into: Path) -> None:
        if target.source is None:
            _unpack(target, into)
        else:
            say(f"copying {target.source}")
            shutil.copytree(target.source, into, symlinks=True, dirs_exist_ok=True,
                            ignore=shutil.ignore_patterns(".git", "*.o", "*.ko", "*.cmd"))
        say("configuring and preparing it, once")
        shutil.copy(target.config, into / ".config")
        box = sandbox_for(target, confined=confined).seeing(write=[into])
        for goal in ("olddefconfig", "modules_prepare"):
            done = _run(box, target, [goal], into, f"make {goal}")
            if done.status:
                raise LabError(f"make {goal} failed in the source of {target.release}:\n{done.output(15)}")
        record(into)

    entry = cache.entry("trees", f"{target.release}-{key}", fill, check=(_STAMP, ".config", _MANIFEST), in_place=True)
    return Tree(entry, target, confined)


def _makefile(source: Path | None) -> str:
    """Return what tells one state of a given source from another, as far as that is cheap."""
    if source is None:
        return ""
    stat = (source / "Makefile").stat()
    return f"{stat.st_size} {stat.st_mtime_ns}"


def _make(target: Target) -> list[str]:
    return ["make", "-s", f"-j{os.cpu_count() or 1}", "ARCH=x86_64", f"CC={target.compiler}",
            f"HOSTCC={target.compiler}", f"KERNELRELEASE={target.release}", "KCFLAGS=-g0"]


def record(top: Path) -> None:
    """Note the sources of a tree as they are, so that `Tree.damage` can tell."""
    (top / _MANIFEST).write_text(json.dumps(dict(_files(top))))


def _run(box: Sandbox, target: Target, goals: Sequence[str], tree: Path, what: str) -> Done:
    return box.run([*_make(target), *goals], cwd=tree, what=what, limits=Limits(seconds=4 * 3600.0))


def sandbox_for(target: Target, *, confined: bool) -> Sandbox:
    """Return where programs run that build for *target*."""
    headers = next((path.parent for path in target.headers.parents if path.parts[-2:] == ("usr", "src")), None)
    read = {target.headers, *([headers] if headers else [])}
    if headers == Path("/usr"):
        read = {Path("/usr/src")}
    if klpctl := lab_module.klpctl_source():
        read.add(klpctl / "include")
    root = target.toolchain.root
    own = _compiler(target.compiler) if "/" in target.compiler or root == Path("/") else ()
    return Sandbox((*sorted(read), *own), root=root, programs=tuple(path.parent for path in own[:1]),
                   confined=confined)


@functools.cache
def _compiler(name: str) -> tuple[Path, ...]:
    """Return the parts of a compiler that is not the distribution's, the program first."""
    found = shutil.which(name)
    if found is None or _SYSTEM.match(os.path.realpath(found)):
        return ()
    said = subprocess.run([found, "-print-search-dirs"], capture_output=True, text=True, check=False, timeout=60)
    folders = {os.path.realpath(folder) for line in said.stdout.splitlines()
               for folder in line.partition(": ")[2].removeprefix("=").split(":") if Path(folder).is_dir()}
    return Path(found).absolute(), *(Path(folder) for folder in sorted(folders) if not _SYSTEM.match(folder))


def _unpack(target: Target, into: Path) -> None:
    """Unpack the distribution's source package of exactly the version of the kernel's."""
    name = f"linux-source-{target.series}"
    package = apt.Package(name, target.version)
    cache.say(f"fetching {package.pin}, once")
    scratch = into / ".debs"
    try:
        debs = apt.download([package], scratch, target.kernel.distribution)
    except LabError as error:
        raise LabError(f"the source of {target.release} is not to be had: {error.message}\n"
                       "build for a newer kernel, or name a directory with the source (--source)") from error
    tools.call(["dpkg-deb", "-x", debs[0], scratch / "tree"], what=f"unpacking {name}")
    balls = sorted((scratch / "tree/usr/src").glob("linux-source-*.tar.*"))
    tools.call(["tar", "-xf", balls[0], "-C", into, "--strip-components=1"], what=f"unpacking {balls[0].name}")
    if target.kernel.flavour == "rt":
        # none where the kernel has PREEMPT_RT without one
        for packed in (scratch / "tree/usr/src").glob("linux-patch-*-rt.patch.xz"):
            patch = scratch / "rt.patch"
            patch.write_bytes(tools.call(["xz", "-dc", packed], what=f"unpacking {packed.name}"))
            tools.call(["patch", "-p1", "-s", "-i", patch], what="applying the rt patch", cwd=into)
    shutil.rmtree(scratch)


def _files(top: Path) -> Iterator[tuple[str, list[int]]]:
    """Yield the sources of a tree, with size and time; not what the kernel's build adds or makes anew by itself."""
    pending = [str(top)]
    while pending:
        for item in os.scandir(pending.pop()):
            if item.is_dir(follow_symlinks=False):
                if item.name not in _REMADE and not item.name.startswith("."):
                    pending.append(item.path)
            elif item.name.endswith(_SOURCES):
                stat = item.stat(follow_symlinks=False)
                yield item.path[len(str(top)) + 1:], [stat.st_size, stat.st_mtime_ns]


def _options(text: str) -> dict[str, str]:
    return dict(re.findall(r"^(CONFIG_\w+)=(.*)$", text, re.MULTILINE))
