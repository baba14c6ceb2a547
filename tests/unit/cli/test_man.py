# SPDX-License-Identifier: MIT
"""The man pages: one for each command, of what --help is made of."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import click
import pytest

from pylivepatch.cli._main import group

SCRIPT = Path(__file__).parents[3] / "scripts/man"


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The pages."""
    target = tmp_path_factory.mktemp("man")
    subprocess.run([sys.executable, SCRIPT, target], check=True, capture_output=True)
    return target


def test_each_command_has_a_page(pages: Path) -> None:
    """With all its options, and its summary not cut off."""
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        assert command is not None
        page = (pages / f"pylivepatch-{name}.1").read_text()
        assert "..." not in page.partition(".SH SYNOPSIS")[0], name
        for parameter in command.params:
            for option in parameter.opts if isinstance(parameter, click.Option) and not parameter.hidden else ():
                assert option.replace("-", "\\-") in page, f"{name} {option}"


def test_the_first_page(pages: Path) -> None:
    """It names all commands, exit codes and files."""
    page = (pages / "pylivepatch.1").read_text()
    for name in group.list_commands(click.Context(group)):
        assert f"pylivepatch-{name}(1)" in page.replace("\\-", "-"), name
    for code in ("   10  it is so already", "  128  and the signal's number"):
        assert code in page.partition(".SH EXIT STATUS")[2]
    assert "/var/lib/pylivepatch" in page
