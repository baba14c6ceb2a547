# SPDX-License-Identifier: MIT
"""`apply`, on captured trees."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from click.testing import CliRunner

from pylivepatch.cli._main import group

if TYPE_CHECKING:
    from pathlib import Path

    from click.testing import Result


def run(root: Path, *words: str | Path) -> Result:
    """Run a command on a tree."""
    return CliRunner().invoke(group, ["--root", str(root), "apply", *map(str, words)], prog_name="pylivepatch")


def plan(folder: Path, text: str) -> Path:
    """A sequence file."""
    file = folder / "plan.toml"
    file.write_text(text)
    return file


def test_dry_run(enabling: Path, tmp_path: Path) -> None:
    """`--dry-run` prints each step; what would stop one sets the exit code."""
    file = plan(tmp_path, '[[step]]\nname = "plp_foreign"\n[[step]]\nname = "plp_gone"\naction = "revert"')
    result = run(enabling, file, "--dry-run")
    assert result.exit_code == 4
    first, second = result.stdout.splitlines()
    assert first == "1/2 plp_foreign: nothing to do"
    assert second.startswith("2/2 plp_gone: error: there is no patch plp_gone")
    data = json.loads(run(enabling, file, "--dry-run", "--json").stdout)["plan"]
    assert [(step["name"], step["actions"]) for step in data] == [("plp_foreign", []), ("plp_gone", [])]
    assert data[1]["error"]["type"] == "PatchNotFoundError"
    assert set(data[0]) == {"number", "name", "file", "action", "actions", "error", "findings"}


def test_nothing_to_do(enabling: Path, tmp_path: Path) -> None:
    """A step whose patch is so already is done, and says so; its check is run."""
    file = plan(tmp_path, '[[step]]\nname = "plp_foreign"\ncheck = "true"')
    result = run(enabling, file)
    assert result.exit_code == 0, result.output
    assert result.stdout == "1 of 1 steps done\n"
    assert "1/1 plp_foreign: enabled already" in result.stderr
    (step,) = json.loads(run(enabling, file, "--json").stdout)["steps"]
    assert (step["outcome"], step["state"]) == ("unchanged", "enabled")


def test_a_failing_check(enabling: Path, tmp_path: Path) -> None:
    """The exit code is that of the step that failed; the report names it, and where each patch stands."""
    file = plan(
        tmp_path,
        '[[step]]\nname = "plp_foreign"\ncheck = "false"\n[[step]]\nname = "plp_foreign"',
    )
    result = run(enabling, file)
    assert result.exit_code == 6
    assert result.stdout == ""
    assert "step 1 (plp_foreign): the check of plp_foreign failed with exit status 1" in result.stderr
    assert "  1  plp_foreign  failed, enabled" in result.stderr
    assert "  2  plp_foreign  not reached" in result.stderr
    result = run(enabling, file, "--json")
    error = json.loads(result.stderr)["error"]
    assert (error["type"], error["step"], error["undone"]) == ("CheckError", 1, [])
    assert [step["outcome"] for step in error["steps"]] == ["failed", "pending"]


def test_bad_files(enabling: Path, tmp_path: Path) -> None:
    """A bad file is wrong usage, a missing one is not found; both before anything else."""
    assert run(enabling, plan(tmp_path, "x =")).exit_code == 2
    assert run(enabling, tmp_path / "none.toml").exit_code == 4
    assert run(enabling, tmp_path / "none.ko").exit_code == 4
    assert run(enabling).exit_code == 2


def test_a_hostile_file(enabling: Path, tmp_path: Path) -> None:
    """A terminal is not given what it would obey, whatever the names of files are."""
    file = plan(tmp_path, '[[step]]\nfile = "\\u001b[2J\\nx.ko"')
    (tmp_path / "\x1b[2J\nx.ko").write_text("no module")
    for words in (["--dry-run"], []):
        arguments = ["--root", str(enabling), "apply", str(file), *words]
        # In colour: click leaves to a terminal what it takes out otherwise.
        result = CliRunner().invoke(group, arguments, prog_name="pylivepatch", color=True)
        assert result.exit_code == 8
        assert "\x1b" not in result.output
        assert "\\x1b[2J" in result.output
