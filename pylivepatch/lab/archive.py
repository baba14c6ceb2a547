# SPDX-License-Identifier: MIT
"""The lab's own view of the distribution's archive: package lists in the cache, of all suites that have kernels.

The host's package lists are neither read nor changed, and nothing here needs root. Of the host's apt only its
mirror, its proxies and its credentials are used.

A *state* is what the archive offered at one time: lists that are never changed once they are made. A command
works with one state from its start to its end; the environment variable `PYLIVEPATCH_ARCHIVE` names it for the
processes that belong to the same command.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache as remembered
from pathlib import Path

from pylivepatch.lab import cache, tools
from pylivepatch.lab.errors import LabError

VARIABLE = "PYLIVEPATCH_ARCHIVE"
"""Environment variable that names the state of the archive to work with."""

DISTRIBUTIONS: Mapping[str, tuple[str, ...]] = {
    "bookworm": ("bookworm", "bookworm-security", "bookworm-backports"),
    "trixie": ("trixie", "trixie-security", "trixie-backports"),
    "sid": ("sid",),
}
"""Distribution to its suites, oldest first. What is in one of the suites is built by the distribution's tools."""

AGE = 24 * 3600.0
"""Seconds after which the lists are looked at anew."""

KEYRINGS = (
    Path("/usr/share/keyrings/debian-archive-keyring.gpg"),
    Path("/usr/share/keyrings/debian-archive-keyring.pgp"),
)
"""Where the keys are that sign the archive."""

FORMAT = 2
"""Raised when the making of a state changes."""

KEPT = 3
"""States that are kept; what changed little between two of them is there once."""

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


@dataclass(frozen=True, slots=True)
class State:
    """One state of the archive.

    Attributes:
        path: Its directory.
    """

    path: Path

    @property
    def name(self) -> str:
        """What `VARIABLE` has for it."""
        return self.path.name

    @property
    def lacking(self) -> Mapping[str, str]:
        """The suites that could not be had from the mirror, each with the reason."""
        facts = json.loads((self.path / "facts.json").read_text())
        return {str(suite): str(reason) for suite, reason in facts["lacking"].items()}

    @property
    def mirror(self) -> str:
        """The mirror that it came from."""
        return str(json.loads((self.path / "facts.json").read_text())["mirror"])

    def options(self, distribution: str) -> list[str]:
        """Return the arguments that make a program of apt see the suites of one distribution, and them alone."""
        return _options(self.path, distribution)

    def libraries(self) -> Mapping[str, str]:
        """Return distribution to the version of its C library."""
        facts = json.loads((self.path / "facts.json").read_text())
        return {str(name): str(version) for name, version in facts["libc"].items()}

    def kernels(self) -> list[Listed]:
        """Return the packages that have kernels, their headers and their sources, in all suites."""
        return _kernels(self.path / "kernels.json")


@remembered
def _kernels(path: Path) -> list[Listed]:
    return [Listed(*fields) for fields in json.loads(path.read_text())]


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


def state() -> State:
    """Return the state of the archive that this command works with.

    The first call decides: lists that are older than `AGE` are refreshed, by one process at a time. Without a
    network those in the cache are used, with a notice. From then on `VARIABLE` names it, for this process and
    those that it starts.

    Raises:
        LabError: There are no lists, and they cannot be fetched.
    """
    if named := os.environ.get(VARIABLE):
        path = _folder() / named
        if "/" in named or not (path / "facts.json").is_file():
            raise LabError(f"{VARIABLE} names {named!r}, a state of the archive that is not in {_folder()}: unset it")
        return State(path)
    with cache.lock("archive"):
        current = _current()
        if current is None or _age(current) > AGE:
            current = _renewed(current)
    _choose(current)
    return current


class OutdatedError(LabError):
    """The archive no longer has what the lists name; newer lists have been fetched for the next command."""


def refresh(reason: LabError) -> LabError:
    """Look at the archive again, after a download from it failed, and return the error to raise.

    Args:
        reason: Why the download failed.

    Returns:
        An `OutdatedError` when the archive has changed, otherwise *reason*.
    """
    used = state()
    with cache.lock("archive"):
        current = _current()
        if current is None or current.name == used.name:
            current = _renewed(current)
    if current.name == used.name:
        return reason
    return OutdatedError(f"{reason}\nthe archive has changed since its lists were fetched; they have been refreshed: "
                         "run the command again")


def follow() -> bool:
    """Work with the newest state from now on, unless the command was told which one to use; tell whether it is so."""
    current = _current()
    if current is None or os.environ.get(VARIABLE) != _chosen or current.name == _chosen:
        return False
    _choose(current)
    return True


_chosen = ""
"""The state that this process has chosen itself."""


def _choose(current: State) -> None:
    global _chosen
    os.environ[VARIABLE] = _chosen = current.name


def _folder() -> Path:
    return cache.root() / "archive"


def _current() -> State | None:
    path = _folder() / "current"
    return State(path.resolve()) if (path / "facts.json").is_file() else None


def _age(current: State) -> float:
    return abs(time.time() - (current.path / "facts.json").stat().st_mtime)


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


def _options(path: Path, distribution: str) -> list[str]:
    options = ["-c", str(path / "apt.conf")]
    for name, value in (("Dir::State", path), ("Dir::State::status", path / "status"),
                        ("Dir::Cache", path / "cache" / distribution),
                        ("Dir::Etc::sourceparts", path / "parts" / distribution)):  # fmt: skip
        options += ["-o", f"{name}={value}"]
    return options


def _renewed(current: State | None) -> State:
    """Return the newest state, or *current* with a notice when the mirror cannot be reached."""
    cache.say("refreshing the package lists of the lab")
    folder = _folder()
    folder.mkdir(exist_ok=True)
    for stale in folder.glob(".new-*"):
        shutil.rmtree(stale, ignore_errors=True)
    fresh = Path(tempfile.mkdtemp(prefix=".new-", dir=folder))
    try:
        found = _fetch(fresh, current)
        if found.exists():
            shutil.rmtree(fresh)
        else:
            fresh.rename(found)
        os.utime(found / "facts.json")
        _switch(found)
    except LabError as error:
        shutil.rmtree(fresh, ignore_errors=True)
        if current is None:
            raise
        cache.say(f"using package lists that are {_age(current) / 86400:.0f} days old: "
                  f"{str(error).splitlines()[-1]}")
        return current
    except BaseException:
        shutil.rmtree(fresh, ignore_errors=True)
        raise
    return State(found)


def _switch(found: Path) -> None:
    """Make *found* the current state, and forget old ones."""
    link = _folder() / f".current-{os.getpid()}"
    link.symlink_to(found.name)
    link.rename(_folder() / "current")
    old = sorted((path for path in _folder().glob("[!.]*/facts.json") if path.parent.name != "current"),
                 key=lambda path: path.stat().st_mtime, reverse=True)
    for path in old[KEPT:]:
        if path.parent != found and time.time() - path.stat().st_mtime > AGE:
            shutil.rmtree(path.parent, ignore_errors=True)


def _fetch(fresh: Path, current: State | None) -> Path:
    """Fetch lists into *fresh*, and return the directory that it is to become."""
    (fresh / "apt.conf").write_text(_OPTIONS)
    (fresh / "status").touch()
    if current is not None:  # what has not changed is not fetched again
        shutil.copytree(current.path / "lists", fresh / "lists", copy_function=os.link,
                        ignore=shutil.ignore_patterns("partial", "lock", "auxfiles"))
    (fresh / "lists/partial").mkdir(parents=True, exist_ok=True)
    mirror, security = mirrors()
    suites = [suite for some in DISTRIBUTIONS.values() for suite in some]
    lacking: dict[str, str] = {}
    while True:
        text = _sources(mirror, security, [suite for suite in suites if suite not in lacking])
        _write(fresh, "all", text)
        try:
            tools.call(["apt-get", *_options(fresh, "all"), "update", "--quiet=2", "--error-on=any"],
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
    (fresh / "facts.json").write_text(json.dumps({"mirror": mirror, "lacking": lacking, "libc": libc}))
    return _folder() / key


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
        text = tools.call(["apt-get", *_options(fresh, distribution), "indextargets", "--format",
                           "$(RELEASE) $(FILENAME)", "Created-By: Packages"],
                          what="reading the package lists").decode()  # fmt: skip
        files = dict(line.split(" ", 1) for line in text.splitlines() if " " in line)
        for suite in suites:
            if suite not in files:
                continue
            lists = tools.call(["/usr/lib/apt/apt-helper", *_options(fresh, distribution), "cat-file", files[suite]],
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
