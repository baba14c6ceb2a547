# SPDX-License-Identifier: MIT
"""How far a diff reaches: which sources have to be compiled, and what it concerns that is never compiled here.

The sources that a diff changes, those that include them, and those that a changed header can make other code of.
Nearly all sources include some headers. Only those are concerned that mention a name which the change declares or
defines, or one whose declaration in another header mentions such a name, and so on. Headers are read as text,
declaration by declaration. Where that cannot tell, every source is taken that includes the header.
"""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from pylivepatch.build import paths
from pylivepatch.build.declarations import COMMENT, UnclearError, declarations, names
from pylivepatch.build.diff import FileDiff
from pylivepatch.build.pastes import Pasted, pasted, words
from pylivepatch.build.tree import Tree
from pylivepatch.build.units import FORCED, Unit, Units
from pylivepatch.errors import BuildError

FEW = 10
"""Sources that include a header and are all compiled, without a question."""

_MOST_HEADERS = 1500
"""Headers that have a name in their declarations, beyond which it has no meaning of its own."""

_OUTSIDE = frozenset({"assembly", "vdso", "build-system"})
"""Rules of files that are not compiled as C of the kernel."""

_COMMENTS = re.compile(r"/\*.*?\*/|//[^\n]*|^[ \t]*#(?![ \t]*\w)[^\n]*|(?<=\s)#[ \t][^\n]*", re.DOTALL | re.MULTILINE)
"""Of assembly: `#` begins a comment, too, but for directives."""


@dataclass(slots=True)
class Reach:
    """What a diff concerns.

    Attributes:
        units: What has to be compiled, in the order of the sources.
        notes: What a person should know.
    """

    units: list[Unit]
    notes: list[str] = field(default_factory=list)


def reach(tree: Tree, known: Units, files: Sequence[FileDiff], say: Callable[[str], None]) -> Reach:
    """Find what changed files concern.

    Args:
        tree: The source.
        known: What it compiles.
        files: The files.
        say: Called with a line of text when something begins that takes time.

    Raises:
        BuildError: A file is not compiled by the kernel's configuration, or concerns assembly or code that is not the
            kernel's, or nothing is concerned.
    """
    found: set[Unit] = set()
    notes = []
    headers: list[tuple[FileDiff, list[Unit]]] = []
    for file in files:
        including = known.including(file.path)
        _judge(file, including, tree)
        is_header = not file.path.endswith(".c")
        if is_header and not including and not file.is_new:
            notes.append(f"no source that this kernel compiles includes {file.path}")
        if is_header and len(including) > FEW:
            headers.append((file, including))
        else:
            found.update(including)
    changed = [file for file in files if not file.path.endswith(".c")]
    taint = _Taint(tree, known, changed)
    others = _others(tree, known, changed)
    for path, outside in others.items():
        _check_outside(tree, taint, path, outside)  # what the diff names itself is told first
    if headers or others:
        say(f"looking for what the change of {', '.join(file.path for file in changed)} concerns")
        taint.follow({file.path: file.texts[1] for file in files})
        for path, outside in others.items():
            _check_outside(tree, taint, path, outside)
    for file, including in headers:
        concerned = [unit for unit in including if taint.is_in(unit, file.path)]
        why = "what cannot be told by its text" if file.path in taint.whole else ", ".join(sorted(taint.names)[:20])
        notes.append(f"{len(including)} sources include {file.path}, and its change concerns {len(concerned)}: {why}")
        found.update(concerned)
    if not found:
        raise BuildError("nothing that this kernel compiles is changed by the diff", kind="nothing",
                         remedy="there is nothing to patch")
    return Reach(sorted(found), notes)


def users(tree: Tree, name: str) -> list[str]:
    """Return the sources, assembly too, that have the word *name*."""
    return [file for file in _grep(tree, ["-lwF", "--include=*.[cS]", *_options({name})]) if _ours(file)]


def _judge(file: FileDiff, including: Sequence[Unit], tree: Tree) -> None:
    """Refuse a file of which nothing tells what the kernel's build makes."""
    if including or file.is_new or file.path.endswith(".h"):
        return
    if file.path.endswith(".c"):
        raise BuildError(f"{file.path} is not compiled by the configuration of {tree.target.release}", kind="not-built",
                         file=file.path, remedy="there is nothing to patch in this kernel")
    raise BuildError(f"{file.path} is not C: nothing tells what the kernel's build makes of it", kind="build-system",
                     file=file.path, remedy="leave it out of the diff")


def _others(tree: Tree, known: Units, changed: Sequence[FileDiff]) -> dict[str, list[str]]:
    """Return, for each header, what reaches it and is not compiled as C of the kernel.

    That is assembly, what makes constants for it, and what becomes code for user space, or for before or after the
    kernel.
    """
    found: dict[str, list[str]] = {}
    for file in changed:
        reaching = known.reaching(file.path) if tree.is_kernel else set()
        if reaching & FORCED:
            reaching |= set(_grep(tree, ["-l", "--include=*.S", "-e", ""]))
        rules = {name: paths.refused(name) for name in reaching if _ours(name) and not name.endswith(".h")}
        outside = sorted(name for name, rule in rules.items() if rule and rule.kind in _OUTSIDE)
        if outside:
            found[file.path] = outside
    return found


def _check_outside(tree: Tree, taint: _Taint, header: str, outside: Sequence[str]) -> None:
    """Refuse a header whose change concerns what is not compiled as C of the kernel."""
    for file in outside:
        rule = paths.refused(file)
        assert rule is not None
        text = (tree.path / file).read_text(errors="replace")
        if file.endswith(".S"):
            text = _COMMENTS.sub(" ", text)
        if header in taint.whole and taint.followed:
            words_, name = f"{header}, which {file} includes, changes in a way whose reach cannot be told", ""
        elif name := taint.mentioned(text):
            words_ = f"{header} changes {name}, which {file} has, too"
        else:
            continue
        raise BuildError(f"{words_}: {rule.reason}", kind=rule.kind, symbol=name, file=header,
                         remedy="make the change where it is used: in the .c file that needs it")


class _Taint:
    """The names that a change gives another meaning to, directly or through other declarations.

    Attributes:
        names: The names.
        whole: Headers of which every user is concerned, since it cannot be told how.
        followed: Whether `follow` has found all of that; before, it is what the diff itself declares.
    """

    def __init__(self, tree: Tree, known: Units, changed: Sequence[FileDiff]) -> None:
        self.tree, self.known = tree, known
        self.names: set[str] = set()
        self.whole: set[str] = set()
        self.followed = False
        self._pasted: list[Pasted] = []
        self._inside: set[Unit] = set()
        self._sources: set[str] = set()
        for file in changed:
            try:
                self.names |= names(*file.texts)
            except UnclearError:
                self.whole.add(file.path)
        self._mention = _any(self.names)

    def follow(self, changed: dict[str, str]) -> None:
        """Find what depends on the names, in all headers.

        Args:
            changed: The files of the diff, as they become.
        """
        sharps = _grep(self.tree, ["-lF", "--include=*.[ch]", "##"])
        odd = self.known.included()
        fresh, grown = set(self.names), False
        while fresh or grown:
            self._pasted += pasted(self.tree, sharps, fresh)
            traces = fresh.union(*(way.traces for way in self._pasted))
            mention = _any(self.names)
            files = {}
            for file in _grep(self.tree, ["-lwF", "--include=*.h", *_options(traces)]):
                text = changed.get(file) or _read(self.tree.path / file)
                if _ours(file) and (mention.search(text) or self._makes(text)):
                    files[file] = text
            if len(files) > _MOST_HEADERS:
                self.whole |= changed.keys()
                break
            before, macros = set(self.names), sum(len(way.macros) for way in self._pasted)
            for file, text in files.items():
                self._carry(file, text)
            fresh = self.names - before
            grown = macros != sum(len(way.macros) for way in self._pasted)
        self.followed = True
        self._mention = _any(self.names)
        for file in self.whole:
            self._inside.update(self.known.including(file))
        for file in odd:
            if self.mentioned(_read(self.tree.path / file)):
                self._inside.update(self.known.including(file))
        if self.names:
            self._sources = set(_grep(self.tree, ["-lwF", "--include=*.c", *_options(self.names)]))
            traces = set().union(*(way.traces for way in self._pasted))
            self._sources.update(
                file for file in _grep(self.tree, ["-lwF", "--include=*.c", *_options(traces)]) if traces
                and file not in self._sources and self._makes(_read(self.tree.path / file)))

    def _carry(self, file: str, text: str) -> None:
        """Add the names of a header whose meaning depends on those that are known."""
        for piece in declarations(text):
            has = {word for condition in piece.conditions for word in condition.split()}.union(piece.words)
            if piece.words[:2] == ("#", "define"):
                body = words(" ".join(piece.words[3:]))
                for way in self._pasted:
                    way.follow(piece.words[2], body)
            if self.names.isdisjoint(has) and not any(way.is_in(has) for way in self._pasted):
                continue
            try:
                self.names |= piece.declares()
            except UnclearError:
                self.whole.add(file)

    def mentioned(self, text: str) -> str:
        """Return a name that a text has, or may make by pasting; "" when it has none."""
        if found := self._mention.search(text):
            return found[0]
        return self._makes(text)

    def _makes(self, text: str) -> str:
        """Return a piece of which a text may make one of the names by pasting; "" when it does not."""
        if not any(way.may_be_in(text) for way in self._pasted):
            return ""
        has = words(COMMENT.sub(" ", text))
        return next((max(way.pieces[0]) for way in self._pasted if way.is_in(has)), "")

    def is_in(self, unit: Unit, header: str) -> bool:
        """Tell whether the change may make other code of a unit that includes a header."""
        return header in self.whole or unit in self._inside or unit.source in self._sources


def _any(wanted: Iterable[str]) -> re.Pattern[str]:
    """Return what finds one of some words; none when there are none."""
    return re.compile(rf"\b(?:{'|'.join(sorted(wanted))})\b" if wanted else r"(?!)")


def _read(path: Path) -> str:
    return path.read_text(errors="replace")


def _options(wanted: Iterable[str]) -> list[str]:
    return [option for word in sorted(wanted) for option in ("-e", word)]


def _ours(file: str) -> bool:
    """Tell whether a file is not of another architecture."""
    return not file.startswith("arch/") or file.startswith("arch/x86/")


def _grep(tree: Tree, options: Sequence[str]) -> list[str]:
    said = subprocess.run(["grep", "-r", "--exclude-dir=tools", *options, *tree.folders], cwd=tree.path,
                          capture_output=True, text=True, errors="surrogateescape", check=False,
                          env={"PATH": os.environ.get("PATH", ""), "LC_ALL": "C"}).stdout
    return said.splitlines()
