# SPDX-License-Identifier: MIT
"""The command line: output and exit codes, on captured trees."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import pytest
from click.testing import CliRunner

from pylivepatch.cli._main import group

if TYPE_CHECKING:

    from click.testing import Result

HOLD = "sys/kernel/livepatch/plp_hold"
PATCH = {"name", "state", "registered", "replace", "forced", "objects", "progress", "confirmation"}


def run(root: Path, *words: str | Path) -> Result:
    """Run a command on a tree."""
    return CliRunner().invoke(group, ["--root", str(root), *map(str, words)], prog_name="pylivepatch")


def error(result: Result) -> dict[str, Any]:
    """The error of a command with --json, which printed nothing else."""
    assert result.stdout == ""
    found: dict[str, Any] = json.loads(result.stderr)["error"]
    return found


def test_each_command_is_found_by_its_name() -> None:
    """Commands are imported when they are asked for, each under the name that the help has."""
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        assert command is not None
        assert command.name == name
    assert group.get_command(context, "none") is None


def test_a_command_imports_what_it_needs(enabling: Path) -> None:
    """What shows patches does not wait for the parts that check, build, or boot."""
    program = (
        "import sys; from pylivepatch.cli._main import group; group(sys.argv[1:], standalone_mode=False);"
        "print(*sys.modules, file=sys.stderr)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, "--root", enabling, "status"], capture_output=True, text=True, check=True
    )
    heavy = {"elftools", "tomllib", "asyncio", "pyudev", "prometheus_client", "pylivepatch.preflight.checks"}
    assert not heavy & set(done.stderr.split())


def test_status_schema(enabling: Path) -> None:
    """`status --json` has exactly the documented keys."""
    result = run(enabling, "status", "--json")
    assert result.exit_code == 0
    data = json.loads(result.stdout)
    assert set(data) == {"schema", "kernel", "backend", "patches", "blockers", "missing"}
    assert isinstance(data["blockers"], list)
    assert data["kernel"].startswith("6.1.0-")
    assert data["backend"] == "sysfs"
    assert all(set(patch) == PATCH for patch in data["patches"])
    patches = {patch["name"]: patch for patch in data["patches"]}
    assert {name: patch["state"] for name, patch in patches.items()} == {
        "plp_cmdline": "registered",
        "plp_foreign": "enabled",
        "plp_hold": "enabling",
    }
    assert patches["plp_foreign"]["progress"] is None
    assert patches["plp_foreign"]["objects"] == [
        {"name": "vmlinux", "funcs": [{"name": "loadavg_proc_show", "sympos": 1}]}
    ]
    progress = patches["plp_hold"]["progress"]
    assert set(progress) == {"target", "total", "done", "elapsed"}
    assert progress["target"] == "patched"
    assert progress["done"] == progress["total"] - 1


def test_status_of_one(enabling: Path) -> None:
    """`status NAME` shows that patch alone."""
    data = json.loads(run(enabling, "status", "plp-foreign", "--json").stdout)
    assert [patch["name"] for patch in data["patches"]] == ["plp_foreign"]


def test_status_for_people(enabling: Path) -> None:
    """`status` shows patches with what they change, progress, and what a transition waits for."""
    result = run(enabling, "status")
    assert result.exit_code == 0
    for words in ("by sysfs", "plp_hold", "plp_target_hold", "tasks patched", "standalone"):
        assert words in result.stdout


def test_list(enabling: Path) -> None:
    """`list` has a patch on each line."""
    lines = run(enabling, "list").stdout.splitlines()
    assert [line.split() for line in lines] == [
        ["plp_foreign", "enabled", "standalone"],
        ["plp_hold", "enabling"],
        ["plp_cmdline", "registered"],
    ]
    data = json.loads(run(enabling, "list", "--json").stdout)
    assert len(data["patches"]) == len(lines)


def test_revert(enabling: Path) -> None:
    """`revert` waits for the end, and says how long it took."""
    result = run(enabling, "revert", "plp_foreign", "--json")
    assert result.exit_code == 0
    data = json.loads(result.stdout)
    assert set(data) == PATCH | {"schema", "duration", "changed"}
    assert data["changed"] is True
    assert data["state"] == "disabled"
    assert data["duration"] >= 0


def test_no_wait(enabling: Path) -> None:
    """With --no-wait the transition goes on when the command is done."""
    result = run(enabling, "revert", "plp_hold", "--no-wait", "--json")
    assert result.exit_code == 0
    data = json.loads(result.stdout)
    assert data["state"] == "disabling"
    assert data["duration"] is None


@pytest.mark.parametrize(
    ("words", "code", "kind"),
    [
        (["enable", "two words"], 2, "BadDataError"),
        (["enable", "../plp_foreign"], 2, "BadDataError"),
        (["enable", "x" * 300], 2, "BadDataError"),
        (["enable", "gone"], 4, "PatchNotFoundError"),
        (["status", "gone"], 4, "PatchNotFoundError"),
        (["load", "gone.ko"], 4, "PatchNotFoundError"),
        (["load", "/dev/null"], 8, "ModuleFileError"),
        (["enable", "plp_foreign"], 10, "AlreadyError"),
        (["revert", "plp_cmdline"], 10, "AlreadyError"),
        (["unload", "plp_foreign"], 8, "PatchStateError"),
        (["force", "plp_foreign", "--accept-risk"], 8, "PatchStateError"),
        (["enable", "plp_cmdline"], 9, "UnsupportedError"),
        (["watch"], 9, "UnsupportedError"),
    ],
)
def test_exit_codes(enabling: Path, words: list[str], code: int, kind: str) -> None:
    """Each kind of failure has its exit code and its exception, for people and as JSON."""
    result = run(enabling, *words)
    assert result.exit_code == code
    assert result.stdout == ""
    assert result.stderr.startswith("pylivepatch: ")
    result = run(enabling, *words, "--json")
    assert result.exit_code == code
    assert error(result)["type"] == kind
    assert error(result)["message"]


@pytest.mark.parametrize(
    "words",
    [
        ["dance"],
        ["enable"],
        ["enable", "plp_foreign", "--timeout", "0"],
        ["enable", "plp_foreign", "--timeout", "nan"],
        ["enable", "plp_foreign", "--on-timeout", "explode"],
        ["load", "x.ko", "parameter"],
        ["watch", "--source", "telepathy"],
        ["watch", "--count", "0"],
    ],
)
def test_usage(enabling: Path, words: list[str]) -> None:
    """What is no command line exits with 2."""
    assert run(enabling, *words).exit_code == 2


def test_timeout_still_in_transition(enabling: Path) -> None:
    """A deadline that is only reported exits with 7 and says where the patch stands."""
    words = ["revert", "plp_hold", "--timeout", "0.001", "--on-timeout", "report", "--json"]
    result = run(enabling, *words)
    assert result.exit_code == 7
    assert error(result)["state"] == "disabling"


def test_no_livepatch(tmp_path: Path) -> None:
    """A kernel without livepatch exits with 9."""
    assert run(tmp_path, "list").exit_code == 9


def test_without_click(tmp_path: Path) -> None:
    """Without the extra the command names it and exits with 9."""
    (tmp_path / "click.py").write_text("raise ImportError('no click', name='click')")
    result = subprocess.run(
        [sys.executable, "-m", "pylivepatch", "list"],
        env={**os.environ, "PYTHONPATH": f"{tmp_path}:{Path(__file__).parents[3]}"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 9
    assert "pylivepatch[cli]" in result.stderr
