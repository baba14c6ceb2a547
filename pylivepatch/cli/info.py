# SPDX-License-Identifier: MIT
"""``pylivepatch info``."""

from __future__ import annotations

import dataclasses
import sys
from typing import TYPE_CHECKING

import click

from pylivepatch.cli._data import confirmation_data, objects_data, progress_data
from pylivepatch.cli._session import Session, json_option, state_words
from pylivepatch.cli.completion import patch_names_and_files
from pylivepatch.elf.file import SUFFIXES
from pylivepatch.module.info import PatchInfo
from pylivepatch.state import printable

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pylivepatch.module.verdict import Verdict

_UNKNOWN = "not known"


@click.command()
@click.argument("patch", metavar="FILE|NAME", shell_complete=patch_names_and_files)
@click.option("--diff", is_flag=True, help="Print the source diff that the patch carries, and nothing else.")
@json_option
@click.pass_obj
def info(session: Session, patch: str, diff: bool) -> None:
    """Show what is known about the module FILE, or the loaded patch NAME.

    What has a slash in it, or ends as a module's file does, is a file.
    """
    if "/" in patch or patch.endswith(SUFFIXES):
        found = PatchInfo.open(patch)
    else:
        with session.core() as core:
            found = core.info(patch)
    if diff and not session.json:
        text = found.diff or ""
        # In a pipe it is as it was; a terminal would obey what is in it.
        click.echo(printable(text, keep="\n\t") if sys.stdout.isatty() else text, nl=False)
    else:
        session.result(info_data(found), "\n".join(info_lines(found)))


def info_data(found: PatchInfo) -> dict[str, object]:
    """What is known about a patch, as the JSON output shows it."""
    file = found.file
    return {
        "name": found.name,
        "file": str(file.path) if file else None,
        "state": str(found.status.state) if found.status else None,
        "forced": found.status.forced if found.status else None,
        "progress": progress_data(found.status.progress) if found.status and found.status.progress else None,
        "confirmation": confirmation_data(found.status) if found.status else None,
        "registered": found.registered,
        "replace": found.replace,
        "objects": None if found.objects is None else objects_data(found.objects),
        "unreadable": found.unreadable,
        "stack": None
        if found.stack is None
        else [
            {"object": each.object, "func": each.func, "below": list(each.below), "above": list(each.above)}
            for each in found.stack
        ],
        "cves": None if found.cves is None else list(found.cves),
        "description": found.description,
        "version": found.version,
        "license": found.license,
        "authors": list(found.authors),
        "vermagic": file.vermagic if file else None,
        "depends": list(file.depends) if file else None,
        "signed": file.signed if file else None,
        "parameters": [
            {"name": each.name, "type": each.type, "description": each.description} for each in found.parameters
        ],
        "diff": found.diff,
        "proof": dataclasses.asdict(found.proof) if found.proof else None,
    }


def info_lines(found: PatchInfo) -> Iterator[str]:
    """What is known about a patch, for people."""
    file = found.file
    yield _line("name", found.name)
    if found.status:
        forced = ", forced: its module cannot be unloaded any more" if found.status.forced else ""
        yield _line("state", f"{state_words(found.status)}{forced}")
    yield _line("file", str(file.path) if file else _UNKNOWN)
    yield _line("kind", "registers with klpctl" if found.registered else "standalone: loading it enables it")
    yield _line("replace", {True: "yes, all patches before it", False: "no", None: _UNKNOWN}[found.replace])
    yield from (_line("description", text) for text in (found.description,) if text)
    yield from (_line("version", text) for text in (found.version,) if text)
    yield from (_line("author", text) for text in found.authors)
    yield from (_line("license", text) for text in (found.license,) if text)
    yield _line("fixes", _UNKNOWN if found.cves is None else ", ".join(found.cves) or "no CVE that it names")
    if file:
        yield _line("vermagic", file.vermagic.strip())
        yield _line("signature", "yes, not verified here" if file.signed else "none")
        yield from (_line("depends", name) for name in file.depends)
    for each in found.parameters:
        text = f"{each.name} ({each.type})" if each.type else each.name
        yield _line("parameter", f"{text}: {each.description}" if each.description else text)
    if found.diff is not None:
        yield _line("diff", f"{found.diff.count(chr(10))} lines; --diff prints them")
    if found.proof is not None:
        yield from proof_lines(found.proof)
    yield from _functions(found)


def proof_lines(proof: Verdict) -> Iterator[str]:
    """Say what was proved of a module."""
    if proof.functions:
        yield _line("proved", f"{proof.functions} functions and {proof.references} references, against the source")
    yield from (_line("against", f"{name} {build_id or 'without a build id'}") for name, build_id in
                sorted(proof.build_ids.items(), key=lambda item: (item[0] != "vmlinux", item)))
    yield from (_line("not proved", text) for text in proof.unproved)


def _functions(found: PatchInfo) -> Iterator[str]:
    if found.objects is None:
        yield _line("functions", f"not readable: {found.unreadable}")
        return
    stacked = {(each.object, each.func): each for each in found.stack or ()}
    for part in found.objects:
        yield _line("object", part.name)
        for func in part.funcs:
            text = f"{func.name},{func.sympos}" if func.sympos else func.name
            each = stacked.get((part.name, func.name))
            if each and each.below:
                text += f"  on top of {', '.join(each.below)}"
            if each and each.above:
                text += f"  beneath {', '.join(each.above)}"
            yield _line("", text)


def _line(key: str, text: str) -> str:
    return f"{key + ':' if key else '':14}{printable(text)}"
