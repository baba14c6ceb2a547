# SPDX-License-Identifier: MIT
"""Stock kernels: the newest of a series, or a certain release, from the distribution's packages and cached."""

from __future__ import annotations

import json
import platform
import re
import shutil
from dataclasses import dataclass
from pathlib import Path

from pylivepatch.errors import UnsupportedError
from pylivepatch.lab import apt, bzimage, cache, tools
from pylivepatch.lab.errors import LabError

FLAVOURS = ("standard", "cloud", "rt")

_RELEASE = re.compile(r"(\d+\.\d+)\.\d+[-+][A-Za-z0-9.+]+?(?:-(cloud|rt))?-amd64")


@dataclass(frozen=True, slots=True)
class Kernel:
    """A stock kernel in the cache.

    Attributes:
        series: For example "6.1".
        flavour: "standard", "cloud" or "rt".
        release: What ``uname -r`` says in the guest.
        version: Version of the package.
        path: The cache entry: vmlinuz, vmlinux, config, System.map, and lib/modules/RELEASE below it.
    """

    series: str
    flavour: str
    release: str
    version: str
    path: Path

    @property
    def vmlinuz(self) -> Path:
        """The compressed image as packaged; boots with KASLR."""
        return self.path / "vmlinuz"

    @property
    def vmlinux(self) -> Path:
        """The ELF image from inside it; boots faster, without KASLR."""
        return self.path / "vmlinux"

    @property
    def modules(self) -> Path:
        """The directory of the kernel's modules, with depmod's indexes."""
        return self.path / "lib/modules" / self.release


def _meta(series: str, flavour: str) -> str | None:
    """Return the image package behind the meta-package of *series* and *flavour*."""
    infix = "" if flavour == "standard" else f"-{flavour}"
    prefix = f"linux-image-{series}"
    for name in (f"linux-image-{series}{infix}-amd64", f"linux-image{infix}-amd64"):
        fields = apt.show(name)
        if fields is None:
            continue
        for dependency in re.split(r"[,|]", fields.get("Depends", "")):
            target = dependency.split("(")[0].strip()
            if target.startswith((f"{prefix}.", f"{prefix}-")) and target.endswith("-amd64"):
                return target
    return None


def newest(series: str, flavour: str) -> apt.Package:
    """Return the newest image package of *series* and *flavour* that the package lists know.

    Raises:
        LabError: There is none.
        UnsupportedError: This host has no apt, or is no amd64 machine.
    """
    memo = cache.root() / "resolved.json"
    state = apt.lists_state()
    key = f"{series} {flavour} {state}"
    try:
        known = json.loads(memo.read_text())
        name, version = known[key]
        return apt.Package(str(name), str(version))
    except (OSError, ValueError, KeyError, TypeError):
        pass
    target = _meta(series, flavour)
    if target is None:
        apt.update()
        state = apt.lists_state()
        target = _meta(series, flavour)
    if target is None:
        raise LabError(
            f"no {flavour} kernel of series {series} in the package lists: "
            "look at `apt-cache search linux-image`, or add the suite that has it to apt's sources"
        )
    fields = apt.show(target)
    if fields is None:
        raise LabError(f"the package lists name {target} but do not have it: run `apt-get update`")
    package = apt.Package(target, fields["Version"])
    with cache.lock("resolved"):
        try:
            known = {k: v for k, v in json.loads(memo.read_text()).items() if k.endswith(f" {state}")}
        except (OSError, ValueError, AttributeError):
            known = {}
        known[f"{series} {flavour} {state}"] = [package.name, package.version]
        fresh = memo.with_suffix(".new")
        fresh.write_text(json.dumps(known))
        fresh.rename(memo)
    return package


def named(release: str) -> apt.Package:
    """Return the image package of *release*, which need not be the newest of its series.

    Raises:
        LabError: The package lists do not have it.
    """
    fields = apt.show(f"linux-image-{release}")
    if fields is None:
        raise LabError(f"no kernel {release} in the package lists: the archive drops old ones")
    return apt.Package(fields["Package"], fields["Version"])


def _fill(package: apt.Package, release: str, into: Path) -> None:
    tree = into / "tree"
    apt.unpack([package], tree, into / "debs")
    for name in ("vmlinuz", "config", "System.map"):
        shutil.move(tree / "boot" / f"{name}-{release}", into / name)
    # 13 moves everything below usr/
    packed = next((tree / top for top in ("lib/modules", "usr/lib/modules") if (tree / top).is_dir()), None)
    if packed is None:
        raise LabError(f"{package.name} has no modules in it")
    (into / "lib").mkdir()
    shutil.move(packed, into / "lib/modules")
    shutil.rmtree(tree)
    for link in ("build", "source"):
        (into / "lib/modules" / release / link).unlink(missing_ok=True)
    (into / "vmlinux").write_bytes(bzimage.vmlinux((into / "vmlinuz").read_bytes()))
    tools.call(["depmod", "-b", into, release], what=f"indexing the modules of {release}")


def resolve(name: str, flavour: str = "standard") -> Kernel:
    """Return a stock kernel, fetched into the cache if need be.

    Nothing is installed on the host. When the package lists cannot tell (offline, no lists), the newest
    one in the cache is used, with a notice.

    Args:
        name: A series, for example "6.1" or "6.12", for the newest kernel of it; or a whole release, for
            example "6.1.0-54-amd64", for that one as long as the archive or the cache has it.
        flavour: One of `FLAVOURS`; that of the release when *name* is one.

    Raises:
        ValueError: *name* is neither, *flavour* is none, or not that of the release.
        LabError: No such kernel, and none in the cache.
        UnsupportedError: The host is not an amd64 machine.
    """
    if flavour not in FLAVOURS:
        raise ValueError(f"flavour {flavour!r}: expected one of {', '.join(FLAVOURS)}")
    whole = _RELEASE.fullmatch(name)
    if whole is None and not re.fullmatch(r"\d+\.\d+", name):
        raise ValueError(f"kernel {name!r}: expected MAJOR.MINOR, for example 6.1, or a release that ends in -amd64")
    if whole and flavour not in ("standard", whole[2] or "standard"):
        raise ValueError(f"{name} is not of the flavour {flavour!r}")
    if platform.machine() != "x86_64":
        raise UnsupportedError(
            f"the lab boots amd64 kernels only, and this is {platform.machine()}",
            feature="lab", remedy="run it on an amd64 host")
    series, flavour = (whole[1], whole[2] or "standard") if whole else (name, flavour)
    try:
        package = named(name) if whole else newest(series, flavour)
        release = package.name.removeprefix("linux-image-")
        path = cache.entry(
            "kernels",
            f"{release}_{package.version}",
            lambda into: _fill(package, release, into),
            check=("vmlinuz", "vmlinux", "config", f"lib/modules/{release}/modules.dep.bin"),
            notice=f"fetching kernel {release} ({package.version})",
        )
    except LabError as error:
        kept = _newest_cached(series, flavour, name if whole else None)
        if kept is None:
            raise
        cache.say(f"using the cached kernel {kept.release}: {str(error).splitlines()[0]}")
        return kept
    return Kernel(series, flavour, release, package.version, path)


def _newest_cached(series: str, flavour: str, release: str | None = None) -> Kernel | None:
    infix = "" if flavour == "standard" else f"{flavour}-"
    any_release = rf"{re.escape(series)}[.-][^-]*?(?:-\d+)?-{infix}amd64"
    pattern = re.compile(rf"({re.escape(release) if release else any_release})_(.+)")
    found = []
    for path in (cache.root() / "kernels").glob("*"):
        match = pattern.fullmatch(path.name)
        if match and (path / cache.MARKER).is_file():
            order = [int(number) for number in re.findall(r"\d+", match[2])]
            found.append((order, Kernel(series, flavour, match[1], match[2], path)))
    return max(found, key=lambda item: item[0])[1] if found else None
