# SPDX-License-Identifier: MIT
"""A patch as a Debian package: installed by apt, applied by the boot store, reverted by removal."""

from __future__ import annotations

import os
import platform
import re
import shlex
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from pylivepatch.errors import BadDataError, UnsupportedError
from pylivepatch.kernel.names import patch_name
from pylivepatch.module import ModuleFile, check_params

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["contents", "image_version", "write"]

FOLDER = Path("usr/lib/pylivepatch/patches")
_NOTHING = "no package was made"
_VERSION = re.compile(r"(\d+:)?\d[A-Za-z0-9.+~-]*\Z")
_MAINTAINER = re.compile(r"[^<>\n]+ <[^<>\s]+@[^<>\s]+>\Z")
_ARCHITECTURES = {
    "EM_X86_64": "amd64",
    "EM_AARCH64": "arm64",
    "EM_PPC64": "ppc64el",
    "EM_S390": "s390x",
    "EM_LOONGARCH": "loong64",
    "EM_RISCV": "riscv64",
}

_CONTROL = """\
Package: {package}
Version: {version}
Architecture: {architecture}
Maintainer: {maintainer}
Section: kernel
Priority: optional
Depends: pylivepatch, linux-image-{release} (= {image}) | linux-image-{release}-unsigned (= {image})
Provides: livepatch-{slug}
Description: kernel live patch {name} for {release}
 {description}
 .
 Installing it applies the patch to the running kernel if that is {release},
 and to that kernel at each boot; removing it reverts the patch.
{cves}"""

_HEAD = """\
#!/bin/sh
set -e
name={name}
release={release}
file={file}

# Whether the patch's kernel is the one that runs, and this is not a container or a chroot on it.
here() {{
	[ "$(uname -r)" = "$release" ] && [ -d /sys/kernel/livepatch ] && ! ischroot 2>/dev/null &&
		! {{ command -v systemd-detect-virt >/dev/null && systemd-detect-virt --quiet --container; }}
}}

enabled() {{
	[ "$(cat "/sys/kernel/livepatch/$name/enabled" 2>/dev/null)" = 1 ]
}}
"""

_AFTER_INSTALLATION = (
    _HEAD
    + """
[ "$1" = configure ] || exit 0
{check}pylivepatch install "$file"{params} >/dev/null
if here && ! enabled; then
	# With its deadline, after which it is reversed, and as at boot: if the machine crashes in the
	# next minute, the patch is left out when it boots.
	if [ -d /run/systemd/system ]; then
		systemctl restart pylivepatch.service || :
	else
		pylivepatch boot --settle 0 || :
	fi
	if ! enabled; then
		echo "$name was not applied to the running kernel, which is as it was; it is tried again at the next boot," >&2
		echo "and by: dpkg --configure {package}" >&2
		exit 1
	fi
fi
exit 0
"""
)

_CHECK = """\
if here && ! enabled; then
	# Its kernel reverts the patch unless the check succeeds, also when this is killed. It is not in the
	# store before that: what crashes the machine is not applied when it boots.
	pylivepatch load "$file"{params} --if-needed >/dev/null
	if ! pylivepatch enable "$name" --check {command} >/dev/null; then
		pylivepatch unload "$name" --if-needed >/dev/null || :
		echo "$name was not applied: its check failed, or it could not be enabled; the kernel is as it was." >&2
		echo "It is tried again by: dpkg --configure {package}" >&2
		exit 1
	fi
fi
"""

_BEFORE_REMOVAL = (
    _HEAD
    + """
case $1 in
remove | upgrade | deconfigure) ;;
*) exit 0 ;;
esac
if here; then
	if enabled; then pylivepatch revert "$name" >/dev/null; fi
	if [ -d "/sys/module/$name" ]; then pylivepatch unload "$name" >/dev/null; fi
fi
# 4: somebody has done so already.
pylivepatch uninstall "$name" --release "$release" >/dev/null || [ $? = 4 ]
"""
)


def write(
    path: str | os.PathLike[str],
    output: str | os.PathLike[str] | None = None,
    *,
    image: str | None = None,
    version: str = "1",
    maintainer: str = "root <root@localhost>",
    params: Mapping[str, str | int | bool] | None = None,
    check: str = "",
) -> Path:
    """Make a Debian package of a patch module.

    It depends on the exact version of the kernel image that the patch is for. Installing it
    puts the patch into the store of `Store`, and applies it if that kernel runs; removing it
    reverts and unloads it. The same module and arguments make the same bytes.

    Args:
        path: The module file: plain, or compressed as .xz, .zst or .gz.
        output: The package to write; None for its usual name in the current directory.
        image: Version of the kernel's package; None for `image_version`.
        version: Of the package itself.
        maintainer: Who is responsible for it: ``Name <address>``.
        params: Module parameters that the patch is loaded with.
        check: A shell command that confirms the patch when it is installed: if it fails, the patch is reverted, and
            the installation fails. Without it nobody has to confirm.

    Returns:
        The package.

    Raises:
        PatchNotFoundError: There is no such file.
        ModuleFileError: It is not a live patch module.
        BadDataError: A version or the maintainer is not one, or the kernel's version cannot be found.
        UnsupportedError: dpkg-deb is not installed, or Debian has no such architecture.
    """
    module = ModuleFile.open(path)
    module.check(module.release, platform.machine())
    if not _VERSION.match(version):
        raise BadDataError(f"{version!r} is not a version", after=_NOTHING, remedy="begin with a digit: 1.2, 2:1.0-3")
    if not _MAINTAINER.match(maintainer):
        raise BadDataError(f"{maintainer!r} is not a maintainer", after=_NOTHING, remedy="give it as Name <address>")
    image = image_version(module.release) if image is None else image
    if not _VERSION.match(image):
        raise BadDataError(
            f"{image!r} is not a version of a kernel image", after=_NOTHING, remedy="as in: dpkg -l 'linux-image-*'"
        )
    package = _package(module)
    fields = {
        "package": package,
        "slug": _spelled(module.name),
        "version": version,
        "architecture": _architecture(module),
        "maintainer": maintainer,
        "release": module.release,
        "image": image,
        "name": patch_name(module.name),
        "description": " ".join((module.values("description") or ("A live patch.",))[0].split()) or "A live patch.",
        "cves": "".join(f" Fixes {cve}.\n" for cve in re.findall(r"CVE-\d+-\d+", " ".join(module.values("cve")))),
    }
    target = Path(output) if output is not None else Path(f"{package}_{version}_{fields['architecture']}.deb")
    with tempfile.TemporaryDirectory() as scratch:
        tree = Path(scratch)
        _fill(tree, {"DEBIAN/control": _CONTROL.format_map(fields).encode(), **contents(module, params or {}, check)})
        _pack(tree, target, int(module.path.stat().st_mtime))
    return target


def contents(module: ModuleFile, params: Mapping[str, str | int | bool], check: str = "") -> dict[str, bytes]:
    """What a package holds, but for its control file: the module, and the scripts that apply and revert its patch.

    Raises:
        BadDataError: A parameter is unknown or cannot be passed, or a standalone patch is to be checked.
    """
    check_params(module, params)
    if check and not module.payload:
        raise BadDataError(
            f"{module.name} is a standalone patch: it is enabled by being loaded, and cannot be confirmed",
            after=_NOTHING,
            remedy="do without the check, or build one that registers with klpctl",
        )
    name = patch_name(module.name)
    stored = FOLDER / module.release / (name + _suffix(module.path))
    spelled = (
        f"{key}={('Y' if value else 'N') if isinstance(value, bool) else value}" for key, value in params.items()
    )
    words = {
        "name": shlex.quote(name),
        "release": shlex.quote(module.release),
        "file": shlex.quote(f"/{stored}"),
        "params": "".join(f" {shlex.quote(word)}" for word in spelled),
        "package": _package(module),
    }
    words["check"] = _CHECK.format_map({**words, "command": shlex.quote(check)}) if check else ""
    return {
        str(stored): module.path.read_bytes(),
        "DEBIAN/postinst": _AFTER_INSTALLATION.format_map(words).encode(),
        "DEBIAN/prerm": _BEFORE_REMOVAL.format_map(words).encode(),
    }


def image_version(release: str) -> str:
    """Find the version of the kernel package that is installed for a release.

    Raises:
        BadDataError: None is installed.

    Source: dpkg's database.
    """
    for package in (f"linux-image-{release}", f"linux-image-{release}-unsigned"):
        try:
            query = ["dpkg-query", "--show", "--showformat=${db:Status-Status} ${Version}", package]
            done = subprocess.run(query, capture_output=True, text=True, check=False)
        except FileNotFoundError:
            break
        state, _, version = done.stdout.partition(" ")
        if done.returncode == 0 and state == "installed":
            return version
    raise BadDataError(
        f"the version of linux-image-{release} is not known: it is not installed here",
        after=_NOTHING,
        remedy=f"give it as apt-cache policy linux-image-{release} shows it where the patch is for",
    )


def _spelled(name: str) -> str:
    """Spell a name as those of packages are."""
    return name.lower().replace("_", "-")


def _package(module: ModuleFile) -> str:
    return _spelled(f"livepatch-{module.name}-{module.release}")


def _suffix(path: Path) -> str:
    return next((f".ko{end}" for end in (".xz", ".zst", ".gz") if path.name.endswith(end)), ".ko")


def _architecture(module: ModuleFile) -> str:
    if module.machine not in _ARCHITECTURES:
        raise UnsupportedError(
            f"Debian has no architecture for {module.machine}",
            feature="package",
            remedy="install the file itself: pylivepatch install",
        )
    return _ARCHITECTURES[module.machine]


def _fill(tree: Path, files: Mapping[str, bytes]) -> None:
    for name, data in files.items():
        path = tree / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        path.chmod(0o755 if data.startswith(b"#!") else 0o644)
    for folder in (tree, *(path for path in tree.rglob("*") if path.is_dir())):
        folder.chmod(0o755)


def _pack(tree: Path, target: Path, moment: int) -> None:
    program = shutil.which("dpkg-deb")
    if program is None:
        raise UnsupportedError("dpkg-deb is not installed", feature="package", remedy="apt-get install dpkg")
    done = subprocess.run(
        [program, "--root-owner-group", "--build", str(tree), str(target)],
        env={**os.environ, "SOURCE_DATE_EPOCH": str(moment)},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise BadDataError(f"dpkg-deb failed: {done.stderr.strip()}", after=_NOTHING, remedy="see what it says")
