# SPDX-License-Identifier: MIT
"""Shell completion."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from click.shell_completion import ShellComplete
from click.testing import CliRunner

from pylivepatch.cli._main import group

NAMED = ("confirm", "enable", "revert", "unload", "status", "force", "wait", "watch")


def commands(context: click.Context | None = None) -> Iterator[click.Context]:
    """All commands, those of groups in groups too."""
    context = context or click.Context(group, info_name="pylivepatch")
    command = context.command
    if not isinstance(command, click.Group):
        yield context
        return
    for name in command.list_commands(context):
        found = command.get_command(context, name)
        assert found is not None
        yield from commands(click.Context(found, context, name))


def complete(words: list[str], incomplete: str = "") -> list[str]:
    """What the shell would offer."""
    found = ShellComplete(group, {}, "pylivepatch", "_PYLIVEPATCH_COMPLETE").get_completions(words, incomplete)
    return [each.value for each in found]


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_script(shell: str) -> None:
    """Each shell gets a script that asks this command."""
    result = CliRunner().invoke(group, ["completion", shell])
    assert result.exit_code == 0
    assert f"_PYLIVEPATCH_COMPLETE={shell}_complete" in result.stdout


def test_bash_understands_it() -> None:
    """The script has no syntax error."""
    script = CliRunner().invoke(group, ["completion", "bash"]).stdout
    subprocess.run(["bash", "-n"], input=script.encode(), check=True)


def test_every_name_is_completed() -> None:
    """No command that takes the name of a patch is without completion of it."""
    taking = {
        context.info_name
        for context in commands()
        for parameter in context.command.params
        if isinstance(parameter, click.Argument) and "NAME" in parameter.make_metavar(context)
    }
    assert taking == {*NAMED, "info", "uninstall"}


def test_info_takes_names_and_files(enabling: Path) -> None:
    """What info may be given is the name of a patch, or a file, which the shell completes."""
    found = ShellComplete(group, {}, "pylivepatch", "_PYLIVEPATCH_COMPLETE").get_completions
    words = ["--root", str(enabling), "info"]
    assert [(each.value, each.type) for each in found(words, "plp_f")] == [("plp_foreign", "plain"), ("plp_f", "file")]
    assert [(each.value, each.type) for each in found(words, "./p")] == [("./p", "file")]


@pytest.mark.parametrize("command", NAMED)
def test_names_of_patches(enabling: Path, command: str) -> None:
    """Names of patches come from the kernel."""
    assert complete(["--root", str(enabling), command]) == ["plp_cmdline", "plp_foreign", "plp_hold"]
    assert complete(["--root", str(enabling), command], "plp-f") == ["plp_foreign"]


def test_names_without_livepatch(tmp_path: Path) -> None:
    """A kernel without livepatch completes nothing, and complains of nothing."""
    assert complete(["--root", str(tmp_path), "enable"]) == []
    assert complete(["--root", str(tmp_path), "uninstall"]) == []


def test_commands_and_options() -> None:
    """Every command is completed, and every option of it."""
    assert {each.command_path.split()[1] for each in commands()} <= set(complete([]))
    assert "--timeout" in complete(["enable"], "--")
