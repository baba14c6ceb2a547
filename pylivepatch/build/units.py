# SPDX-License-Identifier: MIT
"""Units: the source files that a configuration compiles, the object that each goes into, and who includes what.

Nothing is built for that. make itself evaluates the kernel's Kbuild files, directory by directory (walk.mk), and
the #include lines are searched as text; that finds at least those that the compiler would.
"""

from __future__ import annotations

import json
import os
import posixpath
import re
import subprocess
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from pylivepatch.build.image import VMLINUX
from pylivepatch.build.tree import TOP, Tree

_WALK = Path(__file__).with_name("walk.mk")
OWNERS, _INCLUDES = ".owners.json", ".included.json"
_ROOTS = ("include/", "include/uapi/", "arch/x86/include/", "arch/x86/include/uapi/", "include/generated/",
          "arch/x86/include/generated/", "arch/x86/include/generated/uapi/", "include/generated/uapi/")
_ENVIRONMENT = {"PATH": os.environ.get("PATH", ""), "LC_ALL": "C"}
_INCLUDE = r'^[[:space:]]*#[[:space:]]*include[[:space:]]*["<][^">]+[">]'


FORCED = frozenset({f"include/linux/{name}.h" for name in ("compiler-version", "kconfig", "compiler_types")})
"""What make tells the compiler to include first, in each source."""

_FOLDER = re.compile(r"(?:^|[\s=])-I *(\S+)")


_Words = dict[tuple[str, str], list[str]]


@dataclass(frozen=True, slots=True, order=True)
class Unit:
    """A source file that is compiled.

    Attributes:
        source: From the top of the tree: "net/ipv4/tcp_input.c".
        object: What its code becomes a part of: "vmlinux", or the name of a module.
        goal: What make is asked for: the object file.
    """

    source: str
    object: str
    goal: str


class Units:
    """What a tree's configuration compiles."""

    def __init__(self, tree: Tree, found: Mapping[str, Sequence[Sequence[str]]]) -> None:
        self._tree = tree
        self._units = {source: [Unit(source, object_, goal) for object_, goal in each]
                       for source, each in found.items()}

    def get(self, source: str) -> list[Unit]:
        """Return the units of a source file, one for each object; none when this configuration does not compile it."""
        return self._units.get(source, [])

    def all(self) -> list[Unit]:
        """Return all units, in the order of their sources."""
        return sorted(unit for each in self._units.values() for unit in each)

    def including(self, path: str) -> list[Unit]:
        """Return the units that are *path*, or reach it through #include lines.

        Some of them may not, under this configuration.
        """
        seen = self.reaching(path)
        return self.all() if seen & FORCED else sorted(unit for name in seen for unit in self.get(name))

    def reaching(self, path: str) -> set[str]:
        """Return the files that are *path*, or reach it through #include lines: headers and assembly, too."""
        seen, pending = {path}, [path]
        while pending:
            for name in self._includes.including(pending.pop()):
                if name not in seen:
                    seen.add(name)
                    pending.append(name)
        return seen

    def included(self) -> list[str]:
        """Return the files that others include and that are no headers by their names."""
        return self._includes.sources(self._tree.path)

    @cached_property
    def _includes(self) -> _Includes:
        return _Includes.of(self._tree)


def units(tree: Tree) -> Units:
    """Return the units of *tree*: evaluated when asked for the first time, and kept in the tree."""
    memo = tree.path / OWNERS
    try:
        known = json.loads(memo.read_text())
    except (OSError, ValueError):
        with tree.lock():
            known = _walk(tree)
            _write(memo, known)
    return Units(tree, known)


def remember(top: Path, found: Mapping[str, Sequence[Sequence[str]]], lines: Mapping[str, Sequence[str]]) -> None:
    """Keep what is known in another way of what a tree's build makes.

    Args:
        top: The tree.
        found: For each source, what it becomes a part of, and the object.
        lines: For each header, as a path from the source's directory, the sources that have it.
    """
    _write(top / OWNERS, found)
    _write(top / _INCLUDES, {"lines": lines, "folders": {}})


def _write(memo: Path, data: object) -> None:
    fresh = memo.with_suffix(".new")
    fresh.write_text(json.dumps(data))
    fresh.rename(memo)


def _walk(tree: Tree) -> dict[str, list[tuple[str, str]]]:
    """Evaluate the Kbuild files, level by level, and return objects and goals by source."""
    top = tree.path
    found: dict[str, list[tuple[str, str]]] = {}
    pending = [(name, True) for name in TOP if (top / name).is_dir()]
    seen = {name for name, _ in pending}
    while pending:
        built_in = dict(pending)
        lists, parts = _evaluate(tree, list(built_in))
        pending = []
        for (folder, kind), words in lists.items():
            linked = built_in[folder] and kind in ("obj-y", "lib-y")
            for word in words:
                if word.endswith("/") or kind == "subdirs":
                    name = posixpath.normpath(f"{folder}/{word}")
                    if name not in seen and (top / name).is_dir():
                        seen.add(name)
                        pending.append((name, linked))
                elif word.endswith(".o") and (linked or kind in ("obj-m", "lib-m")):
                    if not linked and built_in[folder] and word in lists.get((folder, "obj-y"), ()):
                        continue  # as kbuild does
                    owner = VMLINUX if linked else posixpath.basename(word)[:-2].replace("-", "_")
                    _object(top, folder, word, owner, parts, found)
    return found


def _object(
    top: Path, folder: str, word: str, owner: str, parts: dict[tuple[str, str], list[str]],
    found: dict[str, list[tuple[str, str]]],
) -> None:
    """Add the sources of the object *word* of *folder*, which may be linked of others."""
    for part in parts.get((folder, word), [word]):
        if part != word and (folder, part) in parts:
            _object(top, folder, part, owner, parts, found)
            continue
        goal = f"{folder}/{part}"
        source = posixpath.normpath(goal)[:-2] + ".c"
        if (top / source).is_file() and owner not in (known for known, _ in found.setdefault(source, [])):
            found[source].append((owner, goal))


def _evaluate(tree: Tree, folders: list[str]) -> tuple[_Words, _Words]:
    box = tree.sandbox().seeing(_WALK)
    argv = ["make", "-rR", "-s", "-f", str(_WALK), f"walk={' '.join(folders)}"]
    said = box.run(argv, cwd=tree.path, what="reading the kernel's Makefiles").stdout.decode(errors="replace")
    lists: _Words = {}
    parts: _Words = {}
    for line in said.splitlines():
        what, _, rest = line.partition(" ")
        words = rest.split()
        if what == "dir":
            lists[words[0], words[1]] = words[2:]
        elif what == "part":
            parts[words[0], words[1]] = words[2:]
    return lists, parts


class _Includes:
    """Who includes what, by the text that stands in the #include line."""

    def __init__(self, lines: dict[str, list[str]], folders: dict[str, list[str]]) -> None:
        self._by_text, self._folders = lines, folders
        self._ending: dict[str, list[str]] = defaultdict(list)
        for text in lines:
            self._ending[posixpath.basename(text)].append(text)

    @classmethod
    def of(cls, tree: Tree) -> _Includes:
        memo = tree.path / _INCLUDES
        try:
            return cls(**json.loads(memo.read_text()))
        except (OSError, ValueError):
            pass
        folders = {name for name in (*(name.partition("/")[0] for name in TOP), "include")
                   if (tree.path / name).is_dir()}
        said = subprocess.run(
            ["grep", "-rE", "--include=*.[chS]", "--exclude-dir=tools", _INCLUDE, *sorted(folders)], cwd=tree.path,
            capture_output=True, text=True, errors="surrogateescape", check=False, env=_ENVIRONMENT).stdout
        options = subprocess.run(
            ["grep", "-rF", "--include=Makefile", "--include=Kbuild", "--exclude-dir=tools", "-e", "-I",
             *sorted(folders)], cwd=tree.path,
            capture_output=True, text=True, errors="surrogateescape", check=False, env=_ENVIRONMENT).stdout
        lines: dict[str, list[str]] = defaultdict(list)
        for line in said.splitlines():
            file, _, rest = line.partition(":")
            if file.startswith("arch/") and not file.startswith("arch/x86/"):
                continue
            text = re.search(r'["<]([^">]+)[">]', rest)
            if text:
                lines[text[1]].append(file)
        with tree.lock():
            _write(memo, {"lines": lines, "folders": _searched(options)})
        return cls(lines, _searched(options))

    def including(self, path: str) -> list[str]:
        """Return the files with an #include line that may mean *path*."""
        found: set[str] = set()
        for text in self._ending.get(posixpath.basename(path), ()):
            rooted = any(path == root + text for root in _ROOTS)
            for file in self._by_text[text]:
                near = posixpath.normpath(posixpath.join(posixpath.dirname(file), text))
                if rooted or near == path or (path.endswith("/" + text.lstrip("./")) and not self._is_root(path)
                                              and (_related(file, path) or self._searches(file, path, text))):
                    found.add(file)
        return sorted(found)

    def sources(self, top: Path) -> list[str]:
        """Return the files that others include and that are no headers by their names."""
        near = {posixpath.normpath(posixpath.join(posixpath.dirname(file), text))
                for text, files in self._by_text.items() if not text.endswith(".h") for file in files}
        return sorted(name for name in near if (top / name).is_file())

    def _searches(self, file: str, path: str, text: str) -> bool:
        """Tell whether a Makefile has the compiler look for the headers of *file* where *path* is."""
        above = posixpath.dirname(file)
        while above:
            if any(posixpath.join(folder, text) == path for folder in self._folders.get(above, ())):
                return True
            above = posixpath.dirname(above)
        return False

    def _is_root(self, path: str) -> bool:
        return path.startswith(_ROOTS)


def _searched(lines: str) -> dict[str, list[str]]:
    """Return what Makefiles, by their directories, give to the compiler with -I."""
    folders: dict[str, set[str]] = defaultdict(set)
    for line in lines.splitlines():
        file, _, rest = line.partition(":")
        own = posixpath.dirname(file)
        for word in _FOLDER.findall(rest):
            word = re.sub(r"\$[({](?:srctree|objtree)[)}]/+", "", word)
            word = re.sub(r"\$[({](?:src|obj)[)}]", own, word)
            folders[own].add(posixpath.normpath(word))
    return {own: sorted(names) for own, names in folders.items()}


def _related(file: str, path: str) -> bool:
    """Tell whether a private header may be found through an -I option: when both are below one directory."""
    return file.split("/")[:2] == path.split("/")[:2]
