# SPDX-License-Identifier: MIT
"""A case: an edit of the kernel's source, with what it must come to.

An edit replaces one piece of text by another, so that the same case is good for every version of the source that has
that text; the test makes a unified diff of it, with `diff`'s own context.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Edit:
    """A piece of text of a source file, and what comes in its place."""

    file: str
    old: str
    new: str


@dataclass(frozen=True)
class Case:
    """A change that becomes a patch.

    Attributes:
        name: Its name, which becomes the patch's.
        covers: What it shows.
        edits: The change; each element is a diff of its own.
        funcs: What the patch must replace, and nothing else; not said when there is none.
        check: A shell command, run in the guest.
        after: What it prints when the patch is enabled, and does not print otherwise.
        modules: Modules to load before the patch, with their parameters: systemd has dummy make no device.
        below: Cases whose patches are enabled before this one.
        bypassed: The function for which it is refused then: what is enabled has code of its own of it.
        late: Modules to load when the patch is enabled already.
        log: What the kernel may say meanwhile.
        warning: What the warning says that the new code makes the kernel print, with a stack that leads through it.
        foreign: Whether it is built as an ordinary livepatch module.
        replace: Whether it replaces all patches before it.
        sympos: Whether a function's name must not be unique.
        called: Whether it replaces nothing, and has callbacks.
    """

    name: str
    covers: str
    edits: tuple[Edit, ...]
    funcs: frozenset[str]
    check: str
    after: str
    modules: tuple[str, ...] = ()
    below: tuple[str, ...] = ()
    bypassed: str = ""
    late: tuple[str, ...] = ()
    log: str = ""
    warning: str = ""
    foreign: bool = False
    replace: bool = False
    sympos: bool = False
    called: bool = False


@dataclass(frozen=True)
class Refused:
    """A change that must not become a patch.

    Attributes:
        name: Its name.
        edits: The change, or the text of a diff.
        kind: `BuildError.kind`.
        symbol: `BuildError.symbol`, or "".
        words: What the message says.
    """

    name: str
    edits: tuple[Edit, ...] | str
    kind: str
    symbol: str = ""
    words: str = ""


def one(file: str, old: str, new: str) -> tuple[Edit, ...]:
    """Return a change of one place."""
    return (Edit(file, old, new),)
