# SPDX-License-Identifier: MIT
"""Stock kernels: the newest of a series, or a certain release, from the distribution's packages and cached."""

from __future__ import annotations

import json
import platform
import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from pylivepatch.errors import BadDataError, UnsupportedError
from pylivepatch.lab import apt, archive, bzimage, cache, lists, tools
from pylivepatch.lab.errors import LabError

FLAVOURS = ("standard", "cloud", "rt")

_RELEASE = re.compile(r"(\d+\.\d+)\.\d+[-+][A-Za-z0-9.+]+?(?:-(cloud|rt))?-amd64")
_IMAGE = re.compile(rf"linux-image-({_RELEASE.pattern})")


@dataclass(frozen=True, slots=True)
class Kernel:
    """A stock kernel in the cache.

    Attributes:
        series: For example "6.1".
        flavour: "standard", "cloud" or "rt".
        release: What ``uname -r`` says in the guest.
        version: Version of the package.
        path: The cache entry: vmlinuz, vmlinux, config, System.map, and lib/modules/RELEASE below it.
        suite: The suite of the archive that it is from; "" for a kernel of this machine.
        distribution: The distribution whose tools it was built with: "bookworm", "trixie", "sid", or "".
    """

    series: str
    flavour: str
    release: str
    version: str
    path: Path
    suite: str = ""
    distribution: str = ""

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


def available() -> Iterator[tuple[str, str, lists.Listed]]:
    """Yield series, flavour and image package of each stock kernel that the archive has, newest first.

    Of an old one it may have the image package, which is empty, and no longer those that it is split into.
    """
    every = archive.state().kernels()
    have = {(item.name, item.version) for item in every}
    listed = [(match, item) for item in every if (match := _IMAGE.fullmatch(item.name))
              and all((package.name, package.version) in have for package in _packages(item))]  # fmt: skip
    for match, item in sorted(listed, key=lambda pair: lists.version_key(pair[1].version), reverse=True):
        yield match[2], match[3] or "standard", item


def release_of(image: lists.Listed) -> str:
    """Return the release of the kernel in the package *image*."""
    return image.name.removeprefix("linux-image-")


def find(name: str, flavour: str = "standard", suite: str = "") -> lists.Listed:
    """Return the image package of a kernel in the archive.

    Args:
        name: A series, for the newest kernel of it, or a release.
        flavour: The flavour of a series' kernel.
        suite: Where to look: a suite, or a distribution for all of its suites; everywhere by default.

    Raises:
        LabError: There is none.
    """
    for series, kind, image in available():
        wanted = name == release_of(image) or (name == series and flavour == kind)
        if wanted and suite in ("", image.suite, image.distribution):
            return image
    state = archive.state()
    what = f"no kernel {name}" if _RELEASE.fullmatch(name) else f"no {flavour} kernel of series {name}"
    where = f"the suite {suite}" if suite else "the archive"
    lacking = "".join(f"; {suite}: {reason} ({state.mirror})" for suite, reason in state.lacking.items())
    raise LabError(f"{what} in {where}, which drops old ones{lacking}: `pylivepatch lab kernels` lists what it has")


def _packages(image: lists.Listed) -> list[apt.Package]:
    """Return the packages that have the files of the kernel behind *image*.

    From 6.19 on (Debian's packaging) the image package is empty, and depends on those that have something in them.
    """
    parts = re.findall(rf"\b(linux-(?:base|binary|modules)-{re.escape(release_of(image))})\b", image.depends)
    return [apt.Package(name, image.version) for name in (image.name, *parts)]


def _fill(image: lists.Listed, into: Path) -> None:
    release = release_of(image)
    tree = into / "tree"
    apt.unpack(_packages(image), tree, into / "debs", image.distribution)
    # Debian 13 moves the modules below usr/; with the split packages the rest is there, too
    packed = next((tree / top for top in ("lib/modules", "usr/lib/modules") if (tree / top).is_dir()), None)
    if packed is None:
        raise LabError(f"{image.name} has no modules in it")
    for name in ("vmlinuz", "config", "System.map"):
        places = (tree / "boot" / f"{name}-{release}", packed / release / name)
        found = next((place for place in places if place.is_file()), None)
        if found is None:
            raise LabError(f"{image.name} {image.version} has no {name}: its packages are laid out in a new way")
        shutil.move(found, into / name)
    (into / "lib").mkdir()
    shutil.move(packed, into / "lib/modules")
    shutil.rmtree(tree)
    for link in ("build", "source"):
        (into / "lib/modules" / release / link).unlink(missing_ok=True)
    (into / "vmlinux").write_bytes(bzimage.vmlinux((into / "vmlinuz").read_bytes()))
    tools.call(["depmod", "-b", into, release], what=f"indexing the modules of {release}")
    (into / FACTS).write_text(json.dumps([image.version, image.suite, image.distribution]))


FACTS = "package.json"
"""File of an entry: version, suite and distribution of the package."""


def _check(release: str) -> tuple[str, ...]:
    return ("vmlinuz", "vmlinux", "config", f"lib/modules/{release}/modules.dep.bin", FACTS)


def resolve(name: str, flavour: str = "standard", suite: str = "") -> Kernel:
    """Return a stock kernel, fetched into the cache if need be.

    Nothing is installed on the host. When the archive cannot be reached, the newest one in the cache is used, with
    a notice.

    Args:
        name: A series, for example "6.1" or "6.12", for the newest kernel of it; or a whole release, for
            example "6.1.0-54-amd64", for that one as long as the archive or the cache has it.
        flavour: One of `FLAVOURS`; that of the release when *name* is one.
        suite: The suite that it shall come from, for example "trixie-backports", or a distribution, for example
            "bookworm"; wherever the newest one is by default.

    Raises:
        BadDataError: *name* is neither, *flavour* or *suite* is unknown, or *flavour* is not that of the release.
        LabError: No such kernel, and none in the cache.
        UnsupportedError: The host is not an amd64 machine.
    """
    if flavour not in FLAVOURS:
        raise BadDataError(f"flavour {flavour!r}: expected one of {', '.join(FLAVOURS)}")
    whole = _RELEASE.fullmatch(name)
    if whole is None and not re.fullmatch(r"\d+\.\d+", name):
        raise BadDataError(f"kernel {name!r}: expected MAJOR.MINOR, for example 6.1, or a release that ends in -amd64")
    if whole and flavour not in ("standard", whole[2] or "standard"):
        raise BadDataError(f"{name} is not of the flavour {flavour!r}")
    known = [each for distribution, suites in lists.DISTRIBUTIONS.items() for each in {distribution, *suites}]
    if suite and suite not in known:
        raise BadDataError(f"suite {suite!r}: expected one of {', '.join(sorted(set(known)))}")
    if platform.machine() != "x86_64":
        raise UnsupportedError(
            f"the lab boots amd64 kernels only, and this is {platform.machine()}",
            feature="lab", remedy="run it on an amd64 host")
    series, flavour = (whole[1], whole[2] or "standard") if whole else (name, flavour)
    try:
        try:
            return _fetched(find(name, flavour, suite), series, flavour)
        except archive.OutdatedError:
            if not archive.follow():
                raise
            return _fetched(find(name, flavour, suite), series, flavour)
    except LabError as error:
        kept = _newest_cached(series, flavour, name if whole else None, suite)
        if kept is None:
            raise
        cache.say(f"using the cached kernel {kept.release}: {str(error).splitlines()[0]}")
        return kept


def _fetched(image: lists.Listed, series: str, flavour: str) -> Kernel:
    release = release_of(image)
    path = cache.entry("stock", f"{release}_{image.version}", lambda into: _fill(image, into), check=_check(release),
                       notice=f"fetching kernel {release} ({image.version}, {image.suite})")
    return Kernel(series, flavour, release, image.version, path, image.suite, image.distribution)


def cached() -> Iterator[Kernel]:
    """Yield the stock kernels in the cache, newest first."""
    found = []
    for marker in (cache.root() / "stock").glob(f"*/{cache.MARKER}"):
        release = marker.parent.name.partition("_")[0]
        match = _RELEASE.fullmatch(release)
        try:
            version, suite, distribution = json.loads((marker.parent / FACTS).read_text())
        except (OSError, ValueError):
            continue
        if match:
            found.append(Kernel(match[1], match[2] or "standard", release, version, marker.parent, suite, distribution))
    yield from sorted(found, key=lambda kernel: lists.version_key(kernel.version), reverse=True)


def _newest_cached(series: str, flavour: str, release: str | None, suite: str) -> Kernel | None:
    for kernel in cached():
        if ((kernel.series, kernel.flavour) == (series, flavour) and release in (None, kernel.release)
                and suite in ("", kernel.suite, kernel.distribution)):  # fmt: skip
            return kernel
    return None
