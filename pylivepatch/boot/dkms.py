# SPDX-License-Identifier: MIT
"""klpctl by DKMS, from the sources that this package carries: built for each kernel, those that come later, too."""

from __future__ import annotations

import errno
import os
import re
import shlex
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pylivepatch.boot import files
from pylivepatch.elf.file import SUFFIXES
from pylivepatch.errors import AccessError, AlreadyError, BadDataError, LivepatchError, UnsupportedError
from pylivepatch.module import ModuleFile

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from pylivepatch.module.sign import Signer

__all__ = ["Built", "install", "remove", "status", "version"]

SOURCES = Path(__file__).parents[1] / "_kmod"
LOAD = Path("etc/modules-load.d/klpctl.conf")
KEY = Path("etc/dkms/framework.conf.d/pylivepatch.conf")
_FRAMEWORK = Path("etc/dkms/framework.conf")
_TREE = Path("var/lib/dkms/klpctl")
_NAME = "klpctl"
_PACKAGE = "klpctl-dkms"
_MADE = shutil.ignore_patterns("*.o", "*.ko", "*.mod", "*.mod.c", ".*", "*.symvers", "*.order")
_LINES = 15
"""Of what DKMS said that an error has."""


@dataclass(frozen=True, slots=True)
class Built:
    """A kernel of this machine, and klpctl for it.

    Attributes:
        release: The kernel's release.
        running: Whether it is the running one.
        headers: Whether its headers are installed, which klpctl is compiled with.
        path: klpctl's module for it; None when there is none.
        signed: Whether that is signed. Whether the kernel trusts the key only the kernel can say.
    """

    release: str
    running: bool
    headers: bool
    path: Path | None
    signed: bool


def version() -> str:
    """The version of klpctl whose sources this package has.

    Source: dkms.conf beside them.
    """
    found = re.search(r'^PACKAGE_VERSION="(.+)"', (SOURCES / "dkms.conf").read_text(), re.MULTILINE)
    assert found is not None
    return found[1]


def status(root: Path = Path("/")) -> list[Built]:
    """List the kernels of this machine with klpctl's module for each.

    Source: /lib/modules.
    """
    running = (root / "proc/sys/kernel/osrelease").read_text().strip()
    return [_built(folder, running) for folder in sorted((root / "lib/modules").glob("*")) if folder.is_dir()]


def install(*, sign: Signer | None = None, say: Callable[[str], None] = lambda _: None) -> list[Built]:
    """Have DKMS build klpctl for each kernel whose headers are installed, and load it at boot.

    Kernels that are installed later get it by themselves. A version of before is removed. Nothing is loaded now.

    Args:
        sign: What DKMS signs with from now on, klpctl and all else that it builds; None for DKMS' own key.
        say: Called with a line of text at the beginning of each step.

    Returns:
        As `status`.

    Raises:
        AccessError: The caller is not root.
        AlreadyError: It is installed as a Debian package, which does the same.
        UnsupportedError: DKMS is not installed, or the headers of no kernel are. Nothing was changed.
        LivepatchError: DKMS failed; what it did for other kernels stays.
        BadDataError: DKMS cannot sign with that key. Nothing was changed.
    """
    _root_only("installs klpctl")
    program = _dkms()
    _refuse_package()
    wanted = [built for built in status() if built.headers]
    if not wanted:
        raise UnsupportedError(
            "no kernel's headers are installed, which klpctl is compiled with",
            feature="dkms",
            remedy=f"apt-get install linux-headers-{os.uname().release}",
        )
    if sign is not None:
        _use_key(sign)
    this = f"{_NAME}/{version()}"
    for old in _versions():
        if old != version() or not _same(Path("/usr/src", f"{_NAME}-{old}")):
            say(f"removing {_NAME} {old}")
            _forget(program, old)
    if version() not in _versions():
        _copy_sources()
        _run([program, "add", this], f"DKMS did not take {this}")
    for built in wanted:
        say(f"building {this} for {built.release}")
        problem = f"DKMS did not build {this} for {built.release}"
        if sign is not None:
            # What is built already is signed with the key of before.
            _run([program, "build", this, "-k", built.release, "--force"], problem)
        _run([program, "install", this, "-k", built.release, *(["--force"] if sign is not None else [])], problem)
    with files.translate_errors("what is loaded at boot", Path("/", LOAD)):
        files.make_directory(Path("/", LOAD).parent)
        files.write(Path("/", LOAD), f"{_NAME}\n".encode())
    return status()


def remove(*, say: Callable[[str], None] = lambda _: None) -> list[str]:
    """Remove what `install` has installed, for all kernels. klpctl stays loaded, if it is, until the next boot.

    Returns:
        The versions that were removed.

    Raises:
        AccessError: The caller is not root.
        AlreadyError: It is installed as a Debian package, and for apt to remove.
        LivepatchError: DKMS failed.
    """
    _root_only("removes klpctl")
    _refuse_package()
    removed = _versions()
    if removed:
        program = _dkms()
        for old in removed:
            say(f"removing {_NAME} {old}")
            _forget(program, old)
    with files.translate_errors("what is loaded at boot", Path("/", LOAD)):
        for path in (LOAD, KEY):
            files.remove(Path("/", path))
    return removed


def _built(folder: Path, running: str) -> Built:
    found = next(_modules(folder), None)
    return Built(
        release=folder.name,
        running=folder.name == running,
        headers=(folder / "build/Makefile").is_file(),
        path=found,
        signed=found is not None and _signed(found),
    )


def _modules(folder: Path) -> Iterator[Path]:
    for place in ("updates/dkms", "updates", "extra", "weak-updates"):
        yield from (path for end in SUFFIXES if (path := folder / place / f"{_NAME}{end}").is_file())


def _signed(path: Path) -> bool:
    try:
        return ModuleFile.open(path).signed
    except LivepatchError:
        return False


def _root_only(what: str) -> None:
    if os.geteuid() != 0:
        raise AccessError(f"only root {what}", errno=errno.EPERM, after="nothing has changed", remedy="run it as root")


def _dkms() -> str:
    program = shutil.which("dkms", path=os.pathsep.join((os.environ.get("PATH", os.defpath), "/usr/sbin", "/sbin")))
    if program is None:
        raise UnsupportedError("dkms is not installed", feature="dkms", remedy="apt-get install dkms")
    return program


def _refuse_package() -> None:
    words = ["dpkg-query", "--show", "--showformat=${db:Status-Status}", _PACKAGE]
    try:
        done = subprocess.run(words, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        return
    if done.stdout == "installed":
        raise AlreadyError(
            f"klpctl is installed as the Debian package {_PACKAGE}",
            errno=errno.EEXIST,
            after="nothing has changed",
            remedy=f"keep that, or apt-get remove {_PACKAGE} first",
        )


def _versions() -> list[str]:
    """The versions of klpctl that DKMS has."""
    return sorted(path.name for path in Path("/", _TREE).glob("*") if (path / "source").exists())


def _same(place: Path) -> bool:
    """Whether sources are those of this package."""
    names = {path.relative_to(SOURCES) for path in SOURCES.rglob("*.[chKM]*") if path.is_file()}
    try:
        return all((place / name).read_bytes() == (SOURCES / name).read_bytes() for name in names)
    except OSError:
        return False


def _copy_sources() -> None:
    place = Path("/usr/src", f"{_NAME}-{version()}")
    with files.translate_errors("klpctl's sources", place):
        shutil.rmtree(place, ignore_errors=True)
        shutil.copytree(SOURCES, place, ignore=_MADE)


def _forget(program: str, old: str) -> None:
    _run([program, "remove", f"{_NAME}/{old}", "--all"], f"DKMS did not remove {_NAME}/{old}")
    shutil.rmtree(Path("/usr/src", f"{_NAME}-{old}"), ignore_errors=True)


def _use_key(sign: Signer) -> None:
    """Have DKMS sign with a key.

    Source: dkms(8), framework.conf.
    """
    if sign.encrypted:
        raise BadDataError(
            f"{sign.key} is encrypted, and DKMS signs without anybody there, at each kernel upgrade",
            after="nothing has changed",
            remedy="give a key without a passphrase, which root alone can read, or do without --sign: DKMS has one",
        )
    key, certificate = sign.key.resolve(), sign.certificate.resolve()
    for path in (Path("/", _FRAMEWORK), *Path("/", KEY).parent.glob("*.conf")):
        if path != Path("/", KEY) and path.is_file() and re.search(r"^\s*mok_signing_key=", path.read_text(), re.M):
            raise BadDataError(
                f"{path} already names the key that DKMS signs with",
                after="nothing has changed",
                remedy="change it there, or do without --sign",
            )
    text = (
        "# Written by pylivepatch klpctl install --sign.\n"
        f"mok_signing_key={shlex.quote(str(key))}\nmok_certificate={shlex.quote(str(certificate))}\n"
    )
    with files.translate_errors("DKMS' key", Path("/", KEY)):
        files.make_directory(Path("/", KEY).parent)
        files.write(Path("/", KEY), text.encode())


def _run(words: list[str], problem: str) -> None:
    done = subprocess.run(words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    if done.returncode:
        said = [line for line in done.stdout.splitlines() if line.strip()][-_LINES:]
        raise LivepatchError(
            f"{problem}: {'; '.join(said)}",
            after="what it did for other kernels stays",
            remedy=f"see /{_TREE}/{version()}/build/make.log",
        )
