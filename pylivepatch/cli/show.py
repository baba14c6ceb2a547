# SPDX-License-Identifier: MIT
"""``pylivepatch list``, ``status`` and ``blockers``."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import click

from pylivepatch.boot.store import Store
from pylivepatch.boot.upgrade import missing
from pylivepatch.cli._data import blocker_data, missing_data, patch_data
from pylivepatch.cli._session import Session, json_option, state_words
from pylivepatch.cli.completion import patch_names
from pylivepatch.cli.fixes import fixes
from pylivepatch.errors import AccessError, BadDataError
from pylivepatch.kernel.names import patch_name

if TYPE_CHECKING:
    from pylivepatch.boot.upgrade import Missing
    from pylivepatch.core import Core
    from pylivepatch.state import Blocker, PatchStatus

_LONGEST_LINE = 4096


@click.command("list")
@click.option("--cve", metavar="CVE-…", help="Only enabled patches that fix it; exits with 4 when there is none.")
@json_option
@click.pass_obj
def list_(session: Session, cve: str | None) -> None:
    """List the patches, one on a line: name, state, kind."""
    with session.core() as core:
        patches = core.status() if cve is None else fixes(core, cve)
    width = max((len(status.name) for status in patches), default=0)
    lines = [f"{status.name:{width}}  {state_words(status):10}  {_kind(status)}".rstrip() for status in patches]
    session.result({"patches": [patch_data(status) for status in patches]}, "\n".join(lines))


@click.command()
@click.argument("name", required=False, shell_complete=patch_names)
@json_option
@click.pass_obj
def status(session: Session, name: str | None) -> None:
    """Show the kernel and all patches, or the patch NAME, with all they change, and what a transition waits for.

    After a kernel upgrade it names the patches that are installed for another kernel
    and not for the running one, or for a newer one, with the commands that build them.
    """
    with session.core() as core:
        patches = core.status() if name is None else [core.patch(name).status()]
        running = any(status.progress for status in patches)
        blockers = _blockers(core) if running else []
        lacking = _missing(session, name)
        data = {
            "kernel": core.release,
            "backend": core.backend,
            "patches": [patch_data(status) for status in patches],
            "blockers": None if blockers is None else [blocker_data(blocker) for blocker in blockers],
            "missing": None if lacking is None else [missing_data(each) for each in lacking],
        }
        if session.json:
            session.result(data, "")
        else:
            _show(core, patches, blockers, lacking or [])


@click.command()
@json_option
@click.pass_obj
def blockers(session: Session) -> None:
    """Show the tasks that the running transition waits for, and why."""
    with session.core() as core:
        found = core.blockers()
    lines = []
    for blocker in found:
        lines.append(str(blocker))
        lines += [f"    {line}" for line in blocker.stack]
    session.result({"blockers": [blocker_data(blocker) for blocker in found]}, "\n".join(lines))


def _blockers(core: Core) -> list[Blocker] | None:
    """The tasks that the running transition waits for; None for those who may not know."""
    try:
        return core.blockers()
    except AccessError:
        return None


def _missing(session: Session, name: str | None) -> list[Missing] | None:
    """The installed patches that a kernel does not have; None where the store cannot be read."""
    try:
        return [each for each in missing(Store(root=session.root)) if name is None or each.name == patch_name(name)]
    except (AccessError, BadDataError):
        return None


def _kind(status: PatchStatus) -> str:
    return ", ".join(
        word
        for word, there in (
            ("standalone", not status.registered),
            ("replace", status.replace),
            ("forced", status.forced),
        )
        if there
    )


def _show(core: Core, patches: list[PatchStatus], blockers: list[Blocker] | None, lacking: list[Missing]) -> None:
    from rich.console import Console
    from rich.text import Text
    from rich.tree import Tree

    tree = Tree(Text(f"kernel {core.release}, by {core.backend}"))
    for status in patches:
        words = [state_words(status), _kind(status)]
        if (progress := status.progress) is not None:
            counts = "tasks are counted for root only"
            if progress.total:
                counts = f"{progress.done} of {progress.total} tasks {progress.target}"
            words.append(counts)
            if progress.elapsed:
                words.append(f"for {progress.elapsed:.1f} s")
        line = Text(status.name, style="bold")
        line.append(f"  {', '.join(word for word in words if word)}", style="default")
        branch = tree.add(line)
        for obj in status.objects:
            funcs = branch.add(Text(obj.name))
            for func in obj.funcs:
                sympos = f",{func.sympos}" if func.sympos > 1 else ""
                funcs.add(Text(f"{func.name}{sympos}"))
        if progress is not None:
            waits = branch.add(Text("waits for")) if blockers else branch
            for blocker in blockers or ():
                waits.add(Text(str(blocker)))
            if blockers is None:
                waits.add(Text("what it waits for is for root to know", style="dim"))
    if not patches:
        tree.add(Text("no patches", style="dim"))
    for each in lacking:
        which = "this kernel" if each.running else f"{each.release}, which can be booted next"
        line = Text(each.name, style="bold")
        line.append(f"  installed for {', '.join(each.installed_for)}, and not for {which}", style="default")
        branch = tree.add(line)
        branch.add(Text("unless that kernel has the fix itself, build it:"))
        for command in each.build:
            branch.add(Text(f"  {command}"))
    # In a pipe or a file a line is a line, however long.
    Console(width=None if sys.stdout.isatty() else _LONGEST_LINE).print(tree)
