# SPDX-License-Identifier: MIT
"""How far a changed header reaches: which of the sources that include it can become other code by the change.

Too many sources include some headers. Only those are concerned that mention a name which the change declares or
defines, or one whose definition in another header mentions such a name, and so on. Headers are read as text,
declaration by declaration; what this cannot tell makes every source concerned that includes the header.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
from collections.abc import Iterable, Mapping, Sequence, Set

from pylivepatch.build import paths
from pylivepatch.build.declarations import HARMLESS, UNFINISHED, UnclearError, declarations, names
from pylivepatch.build.tree import Tree
from pylivepatch.build.units import Unit, Units

MOST_HEADERS = 500
"""Headers that are read in search of a name; one that more of them mention has no meaning of its own."""

_PASTES = ".pastes.json"
_PASTE = re.compile(r"(\w+)\s*##|##\s*(\w+)")
_DEFINE = re.compile(r"^[ \t]*#[ \t]*define[ \t]+\w+\(([^)]*)\)([^\n]*##[^\n]*)", re.MULTILINE)


def concerned(
    tree: Tree, known: Units, path: str, texts: tuple[str, str], changed: Mapping[str, str],
) -> tuple[list[Unit], set[str]] | None:
    """Return the units that a change of a header concerns, and the names by which it does; None when it cannot be told.

    Args:
        tree: The source.
        known: What it compiles.
        path: The header.
        texts: The header as it is, and as it becomes.
        changed: All files of the diff, as they become.
    """
    try:
        found = names(*texts)
    except UnclearError:
        return None
    every = known.including(path)
    whole: set[str] = set()
    fresh = found
    while fresh:
        more: set[str] = set()
        spelled = _spelled(tree, fresh)
        files = _mentioning(tree, spelled)
        if len(files) > MOST_HEADERS:
            return None
        for file in files:
            try:
                more |= _carried(changed.get(file) or (tree.path / file).read_text(errors="replace"), spelled)
            except UnclearError:
                whole.add(file)
        fresh = more - found
        found |= fresh
    if not found:
        return [], found
    mention = re.compile(rb"\b(?:%s)\b" % "|".join(sorted(_spelled(tree, found))).encode())
    inside = {unit for file in whole for unit in known.including(file)}
    for file in known.included():
        if mention.search((tree.path / file).read_bytes()):
            inside.update(known.including(file))
    return [unit for unit in every if unit in inside or mention.search((tree.path / unit.source).read_bytes())], found


def users(tree: Tree, name: str) -> list[str]:
    """Return the sources, assembly too, that have the word *name*."""
    return [file for file in _grep(tree, ["-lwF", "--include=*.[cS]", *_words({name})]) if _ours(file)]


def beyond(tree: Tree, texts: tuple[str, str]) -> tuple[str, str] | None:
    """Return a name that a header gives another meaning to, and a file that has it and is never compiled here.

    That is assembly, and what becomes code for user space, or for before or after the kernel.
    """
    try:
        found = names(*texts)
    except UnclearError:
        return None
    for file in _grep(tree, ["-lwF", "--include=*.[chS]", *_words(found)]) if found else ():
        rule = paths.refused(file)
        if rule is not None and rule.kind in ("assembly", "vdso") and _ours(file):
            return next(name for name in sorted(found) if re.search(
                rf"\b{name}\b", (tree.path / file).read_text(errors="replace"))), file
    return None


def _carried(text: str, wanted: set[str]) -> set[str]:
    """Return the names in a header whose meaning depends on those that are *wanted*.

    Raises:
        UnclearError: That cannot be told.
    """
    found: set[str] = set()
    for piece in declarations(text):
        words = piece.words
        if any(wanted.intersection(condition.split()) for condition in piece.conditions):
            raise UnclearError
        if not wanted.intersection(words):
            continue
        if words[:2] == ("#", "define"):
            found |= {words[2]} if wanted.intersection(words[3:]) else set()
        elif piece.is_function:
            found |= piece.declares() if wanted.intersection(words[len(piece.head):]) else set()
        elif words[0] not in HARMLESS:
            value = words[words.index("="):] if "=" in words else ()
            if words[-1] == UNFINISHED or words[1:2] == ("(",) or wanted.intersection((*value, *_sizes(words))):
                raise UnclearError
    return found


def _sizes(words: Sequence[str]) -> set[str]:
    """Return the names in array bounds and widths of bit fields."""
    found: set[str] = set()
    depth = 0
    for before, word in zip(("", *words), words, strict=False):
        depth += (word == "[") - (word == "]")
        if depth or before == ":":
            found.add(word)
    return found


def _spelled(tree: Tree, found: Set[str]) -> set[str]:
    """Return *found* with what of each name a macro that pastes leaves in the source."""
    pastes = _pastes(tree)
    spelled = set(found)
    for name in found:
        for cut in range(1, len(name)):
            spelled |= {name[cut:]} if name[:cut] in pastes else set()
            spelled |= {name[:-cut]} if name[-cut:] in pastes else set()
    return spelled


def _pastes(tree: Tree) -> set[str]:
    """Return the pieces that macros of the tree put before or after an argument of theirs."""
    memo = tree.path / _PASTES
    try:
        return set(json.loads(memo.read_text()))
    except (OSError, ValueError):
        pass
    found: set[str] = set()
    for file in _grep(tree, ["-lF", "--include=*.[ch]", "##"]):
        for parameters, body in _DEFINE.findall((tree.path / file).read_text(errors="replace").replace("\\\n", " ")):
            own = {name.strip() for name in parameters.split(",")}
            found |= {piece for pair in _PASTE.findall(body) for piece in pair if piece and piece not in own}
    with tree.lock():
        fresh = memo.with_suffix(".new")
        fresh.write_text(json.dumps(sorted(found)))
        fresh.rename(memo)
    return found


def _mentioning(tree: Tree, wanted: Iterable[str]) -> list[str]:
    """Return the headers that have one of these words."""
    return [file for file in _grep(tree, ["-lwF", "--include=*.h", *_words(wanted)]) if _ours(file)]


def _words(wanted: Iterable[str]) -> list[str]:
    return [option for word in sorted(wanted) for option in ("-e", word)]


def _ours(file: str) -> bool:
    """Tell whether a file is not of another architecture."""
    return not file.startswith("arch/") or file.startswith("arch/x86/")


def _grep(tree: Tree, options: Sequence[str]) -> list[str]:
    said = subprocess.run(["grep", "-r", "--exclude-dir=tools", *options, *tree.folders], cwd=tree.path,
                          capture_output=True, text=True, errors="surrogateescape", check=False,
                          env={"PATH": os.environ.get("PATH", ""), "LC_ALL": "C"}).stdout
    return said.splitlines()
