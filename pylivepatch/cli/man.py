# SPDX-License-Identifier: MIT
"""The man page, made of what ``--help`` is made of: ``python -m pylivepatch.cli.man``."""

from __future__ import annotations

import importlib.metadata
import inspect
import re
from typing import TYPE_CHECKING

import click

from pylivepatch.cli._main import group

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

_VERBATIM = "\b"
_SPELLED = str.maketrans({"\\": "\\e", "-": "\\-", "'": "\\(aq", "^": "\\(ha", "~": "\\(ti"})
_FILES = (
    ("/var/lib/pylivepatch/RELEASE/", "Installed patches of a kernel, and the crash memory."),
    ("/etc/pylivepatch/hooks.d/", "Programs that udev runs at each event of a patch, in the order of their names."),
    ("/sys/kernel/livepatch/", "The livepatch core of the kernel."),
    ("/sys/class/livepatch/", "A device for each patch, with klpctl."),
)
_KERNEL = (("pylivepatch.enable=0", "Apply no installed patch at this boot."),)


def page() -> str:
    """Return the man page pylivepatch(1)."""
    version = importlib.metadata.version("pylivepatch")
    context = click.Context(group, info_name="pylivepatch", **group.context_settings)
    summary = _escape(group.get_short_help_str(limit=200).rstrip("."))
    lines = [
        '.\\" SPDX-License-Identifier: MIT',
        f'.TH PYLIVEPATCH 1 "" "pylivepatch {version}" "User Commands"',
        ".SH NAME",
        f"pylivepatch \\- {summary[0].lower()}{summary[1:]}",
        ".SH SYNOPSIS",
        *_synopsis(context),
        ".SH DESCRIPTION",
        *_prose(group.help or ""),
        ".SH OPTIONS",
        *_options(context),
        ".SH COMMANDS",
    ]
    for each in commands(context):
        lines += [".SS " + _escape(_words(each)), *_synopsis(each), *_prose(each.command.help or ""), *_options(each)]
    heading, _, rows = (group.epilog or "").replace(_VERBATIM, "").strip().partition("\n")
    lines += [f".SH {heading.rstrip(':').upper()}", ".nf", *map(_line, rows.splitlines()), ".fi"]
    lines += [".SH FILES", *_list(_FILES), ".SH KERNEL COMMAND LINE", *_list(_KERNEL)]
    return "\n".join(lines) + "\n"


def commands(context: click.Context) -> Iterator[click.Context]:
    """Yield a context for each command, those of groups in groups too, in the order of ``--help``."""
    command = context.command
    assert isinstance(command, click.Group)
    for name in command.list_commands(context):
        found = command.get_command(context, name)
        if found is None or found.hidden:
            continue
        inner = click.Context(found, context, name)
        if isinstance(found, click.Group):
            yield from commands(inner)
        else:
            yield inner


def _words(context: click.Context) -> str:
    return context.command_path.partition(" ")[2]


def _synopsis(context: click.Context) -> list[str]:
    usage = " ".join(context.command.collect_usage_pieces(context))
    return [f".B {_escape(context.command_path)}", _line(usage), ".PP"]


def _options(context: click.Context) -> list[str]:
    records = [record for each in context.command.get_params(context) if (record := each.get_help_record(context))]
    return _list([record for record in records if record[1]])


def _list(rows: Iterable[tuple[str, str]]) -> list[str]:
    lines: list[str] = []
    for term, text in rows:
        lines += [".TP", f".B {_escape(term)}", _line(text)]
    return lines


def _prose(text: str) -> list[str]:
    lines: list[str] = []
    for paragraph in inspect.cleandoc(text).split("\f")[0].split("\n\n"):
        if paragraph.startswith(_VERBATIM):
            lines += [".PP", ".nf", *map(_line, paragraph.splitlines()[1:]), ".fi"]
        else:
            lines += [".PP", _line(" ".join(paragraph.split()))]
    return lines


def _escape(text: str) -> str:
    """Spell text so that roff prints it as it is; backquotes mark what is to be typed."""
    text = text.translate(_SPELLED)
    text = re.sub(r"`([^`]+)`", r"\\fB\1\\fR", text)
    return "".join(char if char.isascii() else f"\\[u{ord(char):04X}]" for char in text)


def _line(text: str) -> str:
    """The same, as a line of its own: a dot or a quote that begins it is no request."""
    spelled = _escape(text)
    return f"\\&{spelled}" if spelled.startswith((".", "'")) else spelled


if __name__ == "__main__":
    click.echo(page(), nl=False)
