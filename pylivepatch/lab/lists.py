# SPDX-License-Identifier: MIT
"""Package lists of all suites that have kernels, fetched from the host's mirror into a directory of the lab's own.

Of the host's apt only its mirror, its proxies and its credentials are used.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from pylivepatch.lab import cache, tools
from pylivepatch.lab.errors import LabError

DISTRIBUTIONS: Mapping[str, tuple[str, ...]] = {
    "bookworm": ("bookworm", "bookworm-security", "bookworm-backports"),
    "trixie": ("trixie", "trixie-security", "trixie-backports"),
    "sid": ("sid",),
}
"""Distribution to its suites, oldest first. What is in one of the suites is built by the distribution's tools."""

KEYRINGS = (
    Path("/usr/share/keyrings/debian-archive-keyring.gpg"),
    Path("/usr/share/keyrings/debian-archive-keyring.pgp"),
)
"""Where the keys are that sign the archive."""

FORMAT = 2
"""Raised when the making of a state changes."""

_MIRROR = "http://deb.debian.org/debian/"
_SECURITY = "http://deb.debian.org/debian-security/"
_CODENAMES = re.compile(
    r"(?:bullseye|bookworm|trixie|forky|sid|oldstable|stable|testing|unstable)(-security|[-/]updates|-backports)?\Z")
_WANTED = re.compile(r"linux-(?:image|binary|modules|base|headers|source|kbuild)-(?!.*-dbg\Z)|libc6\Z")
_OPTIONS = """// Written by pylivepatch: the host's hooks and targets are not for these lists.
#clear APT::Update;
#clear DPkg;
#clear APT::Architectures;
APT::Architecture "amd64";
APT::Architectures { "amd64"; };
APT::Sandbox::User "root";
APT::Get::List-Cleanup "true";
Acquire::Languages "none";
Acquire::GzipIndexes "true";
Dir::Etc::sourcelist "/dev/null";
Dir::Etc::preferences "/dev/null";
Dir::Etc::preferencesparts "/dev/null";
Dir::Etc::trusted "/dev/null";
Dir::Etc::trustedparts "/dev/null";
Dir::Cache::pkgcache "pkgcache.bin";
Dir::Cache::srcpkgcache "";
"""


@dataclass(frozen=True, slots=True)
class Listed:
    """A package of the kernel's as the lists have it.

    Attributes:
        name: The package.
        version: Its version.
        suite: The suite that has it; the first one when several have.
        distribution: The distribution that the suite belongs to.
        depends: The text of its dependencies.
    """

    name: str
    version: str
    suite: str
    distribution: str
    depends: str


def version_key(version: str) -> tuple[tuple[object, ...], ...]:
    """Return a key that sorts package versions as dpkg does (deb-version(7))."""
    epoch, colon, rest = version.partition(":")
    if not colon:
        epoch, rest = "0", version
    upstream, _, revision = rest.rpartition("-") if "-" in rest else (rest, "", "0")
    return ((int(epoch),), _part_key(upstream), _part_key(revision))


def _part_key(text: str) -> tuple[object, ...]:
    key: list[object] = []
    for letters, digits in re.findall(r"([^0-9]*)([0-9]*)", text):
        order = [-1 if c == "~" else ord(c) if c.isalpha() else ord(c) + 256 for c in letters]
        key += [(*order, 0), int(digits or 0)]
    return tuple(key)


def mirrors() -> tuple[str, str]:
    """Return the mirror of the archive, and that of its security updates, that the host's apt uses.

    apt itself reads its sources, in whatever format they are.
    """
    text = tools.call(["apt-get", "indextargets", "--no-release-info", "--format", "$(REPO_URI) $(RELEASE)"],
                      what="reading the host's apt sources").decode(errors="replace")
    found = {"": _MIRROR, "-security": _SECURITY}
    for line in reversed(text.splitlines()):
        uri, _, suite = line.strip().partition(" ")
        if (match := _CODENAMES.match(suite)) and not uri.startswith(("cdrom:", "file:", "copy:")):
            found["-security" if match[1] == "-security" else ""] = uri
    return found[""], found["-security"]


def keyring() -> Path:
    """Return the file of the keys that sign the archive.

    Raises:
        LabError: This host does not have them.
    """
    for path in KEYRINGS:
        if path.is_file():
            return path
    raise LabError(f"{KEYRINGS[0]} is missing, with which the archive is verified: apt-get install "
                   "debian-archive-keyring")


def _sources(mirror: str, security: str, suites: list[str]) -> str:
    stanzas = []
    for uri, some in ((mirror, [name for name in suites if not name.endswith("-security")]),
                      (security, [name for name in suites if name.endswith("-security")])):
        if some:
            stanzas.append(f"Types: deb\nURIs: {uri}\nSuites: {' '.join(some)}\nComponents: main\n"
                           f"Targets: Packages\nArchitectures: amd64\nSigned-By: {keyring()}\n")
    return "\n".join(stanzas)


def options(path: Path, distribution: str) -> list[str]:
    """Return the arguments by which a program of apt sees the lists in *path*, of one distribution."""
    options = ["-c", str(path / "apt.conf")]
    for name, value in (("Dir::State", path), ("Dir::State::status", path / "status"),
                        ("Dir::Cache", path / "cache" / distribution),
                        ("Dir::Etc::sourceparts", path / "parts" / distribution)):  # fmt: skip
        options += ["-o", f"{name}={value}"]
    return options


def fetch(fresh: Path, old: Path | None) -> str:
    """Fetch lists into the directory *fresh*, and return what tells them from others.

    Args:
        fresh: An empty directory.
        old: One with older lists; what has not changed is not fetched again.

    Raises:
        LabError: They cannot be had.
    """
    (fresh / "apt.conf").write_text(_OPTIONS)
    (fresh / "status").touch()
    if old is not None:
        shutil.copytree(old / "lists", fresh / "lists", copy_function=os.link,
                        ignore=shutil.ignore_patterns("partial", "lock", "auxfiles"))
    (fresh / "lists/partial").mkdir(parents=True, exist_ok=True)
    mirror, security = mirrors()
    suites = [suite for some in DISTRIBUTIONS.values() for suite in some]
    lacking: dict[str, str] = {}
    while True:
        text = _sources(mirror, security, [suite for suite in suites if suite not in lacking])
        _write(fresh, "all", text)
        try:
            tools.call(["apt-get", *options(fresh, "all"), "update", "--quiet=2", "--error-on=any"],
                       what="refreshing the package lists")
            break
        except LabError as error:
            found = {suite: reason for suite in suites if suite not in lacking
                     and (reason := _why_missing(suite, str(error)))}  # fmt: skip
            if not found or len(lacking) + len(found) == len(suites):
                raise
            lacking |= found
    for suite, reason in lacking.items():
        cache.say(f"no kernels of {suite} can be had: {reason} ({mirror})")
    for distribution, some in DISTRIBUTIONS.items():
        _write(fresh, distribution, _sources(mirror, security, [suite for suite in some if suite not in lacking]))
    releases = sorted((fresh / "lists").glob("*Release"))
    key = cache.digest([str(FORMAT), text, *(path.read_bytes() for path in releases)])
    listed = list(_scan(fresh))
    kernels = [[item.name, item.version, item.suite, item.distribution, item.depends]
               for item in listed if item.name != "libc6"]
    libc = {item.distribution: item.version for item in listed if item.name == "libc6"}
    (fresh / "kernels.json").write_text(json.dumps(kernels))
    (fresh / "facts.json").write_text(json.dumps(
        {"format": FORMAT, "mirror": mirror, "lacking": lacking, "libc": libc}))
    return key


def _why_missing(suite: str, words: str) -> str:
    """Return why apt, by its *words*, could not take the lists of one suite, or "" when it took them."""
    name = re.escape(suite)
    if re.search(rf"repository '\S+ {name} Release' (?:does not have|no longer has) a Release file", words):
        return "the mirror does not have it"
    if re.search(rf"/dists/{name}/(?:In)?Release is expired", words):
        return "what the mirror has of it is out of date (Acquire::Check-Valid-Until of apt decides)"
    return ""


def _write(fresh: Path, distribution: str, text: str) -> None:
    parts = fresh / "parts" / distribution
    parts.mkdir(parents=True, exist_ok=True)
    (parts / "lab.sources").write_text(text)
    (fresh / "cache" / distribution / "archives/partial").mkdir(parents=True, exist_ok=True)


def _scan(fresh: Path) -> Iterator[Listed]:
    """Yield the kernel's packages of all lists."""
    seen = set()
    for distribution, suites in DISTRIBUTIONS.items():
        text = tools.call(["apt-get", *options(fresh, distribution), "indextargets", "--format",
                           "$(RELEASE) $(FILENAME)", "Created-By: Packages"],
                          what="reading the package lists").decode()  # fmt: skip
        files = dict(line.split(" ", 1) for line in text.splitlines() if " " in line)
        for suite in suites:
            if suite not in files:
                continue
            lists = tools.call(["/usr/lib/apt/apt-helper", *options(fresh, distribution), "cat-file", files[suite]],
                               what=f"reading the package list of {suite}").decode(errors="replace")  # fmt: skip
            for item in _parse(lists, suite, distribution):
                if (item.name, item.version) not in seen:
                    seen.add((item.name, item.version))
                    yield item


def _parse(lists: str, suite: str, distribution: str) -> Iterator[Listed]:
    for stanza in re.split(r"\n\n", lists):
        match = re.match(r"Package: (\S+)", stanza)
        if match and _WANTED.match(match[1]):
            fields = dict(re.findall(r"^(Version|Depends): (.*)$", stanza, re.MULTILINE))
            yield Listed(match[1], fields["Version"], suite, distribution, fields.get("Depends", ""))
