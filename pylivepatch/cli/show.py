# SPDX-License-Identifier: MIT
"""``pylivepatch list`` and ``status``."""

from __future__ import annotations

import dataclasses
import sys
from typing import TYPE_CHECKING

import click

from pylivepatch.cli._session import Session, json_option, patch_data
from pylivepatch.cli.completion import patch_names
from pylivepatch.cli.fixes import fixes

if TYPE_CHECKING:
    from pylivepatch.core import Core
    from pylivepatch.state import Missing, PatchStatus

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
    lines = [f"{status.name:{width}}  {status.state:10}  {_kind(status)}".rstrip() for status in patches]
    if session.json or lines:
        session.result({"patches": [patch_data(status) for status in patches]}, "\n".join(lines))


@click.command()
@click.argument("name", required=False, shell_complete=patch_names)
@json_option
@click.pass_obj
def status(session: Session, name: str | None) -> None:
    """Show the kernel and all patches, or the patch NAME, with all they change."""
    with session.core() as core:
        patches = core.status() if name is None else [core.patch(name).status()]
        if session.json:
            data = {
                "kernel": core.release,
                "backend": core.backend,
                "patches": [patch_data(status) for status in patches],
            }
            session.result(data, "")
        else:
            _show(core, patches)


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
    if session.json or lines:
        session.result({"blockers": [dataclasses.asdict(blocker) for blocker in found]}, "\n".join(lines))


def _kind(status: PatchStatus) -> str:
    return ", ".join(
        word
        for word, there in (
            ("foreign", not status.registered),
            ("replace", status.replace),
            ("forced", status.forced),
        )
        if there
    )


def _show(core: Core, patches: list[PatchStatus]) -> None:
    from rich.console import Console
    from rich.text import Text
    from rich.tree import Tree

    tree = Tree(Text(f"kernel {core.release}, by {core.backend}"))
    for status in patches:
        words = [str(status.state), _kind(status)]
        if (progress := status.progress) is not None:
            counts = "tasks are counted for root only"
            if progress.total:
                counts = f"{progress.done} of {progress.total} tasks {progress.target}"
            words.append(counts)
        line = Text(status.name, style="bold")
        line.append(f"  {', '.join(word for word in words if word)}", style="default")
        branch = tree.add(line)
        for part in status.objects:
            funcs = branch.add(Text(part.name))
            for func in part.funcs:
                sympos = f",{func.sympos}" if func.sympos > 1 else ""
                funcs.add(Text(f"{func.name}{sympos}"))
    if not patches:
        tree.add(Text("no patches", style="dim"))
    absent: dict[Missing, list[str]] = {}
    for feature, why in core.features.missing.items():
        absent.setdefault(why, []).append(feature)
    for why, features in absent.items():
        remedy = f" ({why.remedy})" if why.remedy else ""
        tree.add(Text(f"without {', '.join(features)}: {why.reason}{remedy}", style="dim"))
    # In a pipe or a file a line is a line, however long.
    Console(width=None if sys.stdout.isatty() else _LONGEST_LINE).print(tree)
