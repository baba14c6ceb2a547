# SPDX-License-Identifier: MIT
"""The JSON output is as schema.json has it: each command's, and each kind of error's."""

from __future__ import annotations

import json
import math
import re
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path

import jsonschema
import pytest
from click.testing import CliRunner

import pylivepatch
from pylivepatch import Action, Core, Event, Target
from pylivepatch.build.result import BuildResult, BuiltFunc
from pylivepatch.build.trial import Trial, TrialStep
from pylivepatch.cli._data import event_data
from pylivepatch.cli._main import SECTIONS, group
from pylivepatch.cli.build import build_data, trial_data
from pylivepatch.cli.info import info_data, info_lines
from pylivepatch.cli.watch import event_line
from pylivepatch.lab import archive, lists
from pylivepatch.module.verdict import SECTION, Verdict

HOLD = "sys/kernel/livepatch/plp_hold"
SCHEMA = json.loads((Path(pylivepatch.__file__).parent / "cli/schema.json").read_text())
CHANGED = ["enable", "revert", "confirm", "force", "load", "wait"]
ELSEWHERE = {"load", "confirm", "build", "try", "lab"}
"""What needs a kernel, or a lab: the guest's tests have their outputs validated, and tests of their own here."""


def conforms(name: str, line: str) -> dict[str, object]:
    """Insist on output that is as the schema has it, and nothing but JSON."""
    data = json.loads(line, parse_constant=lambda word: pytest.fail(f"{word} is not JSON"))
    kind = "changed" if name in CHANGED else name
    schema = {"$ref": f"#/$defs/{kind}", "$defs": SCHEMA["$defs"]}
    validator = jsonschema.Draft202012Validator(schema, format_checker=jsonschema.FormatChecker())
    problems = [f"{error.json_path}: {error.message}" for error in validator.iter_errors(data)]
    assert not problems, (name, problems)
    return dict(data)


def run(root: Path, *words: str | Path) -> str:
    """Run a command with --json; its one line of output, or of its error."""
    result = CliRunner().invoke(group, ["--root", str(root), *map(str, words), "--json"], prog_name="pylivepatch")
    output = result.stdout or result.stderr
    assert len(output.splitlines()) == 1, result.output
    return output


def test_the_schema_is_one() -> None:
    """It is a JSON schema itself."""
    jsonschema.Draft202012Validator.check_schema(SCHEMA)


def test_what_it_refers_to_is_there() -> None:
    """A reference that leads nowhere is noticed only by the first output that has something there."""
    used = set(re.findall(r"#/\$defs/([^\"]+)", json.dumps(SCHEMA)))
    assert used <= set(SCHEMA["$defs"])


def test_what_a_new_kernel_lacks(commands: dict[str, list[str | Path]], enabling: Path) -> None:
    """`status` after a kernel upgrade conforms, too."""
    (enabling / "proc/sys/kernel/random").mkdir()
    (enabling / "proc/sys/kernel/random/boot_id").write_text("boot 1\n")
    run(enabling, *commands["install"])
    (enabling / "proc/sys/kernel/osrelease").write_text("6.1.0-999-amd64\n")
    assert conforms("status", run(enabling, "status"))["missing"]


@pytest.fixture
def commands(enabling: Path, build_module: Callable[..., Path], tmp_path: Path) -> dict[str, list[str | Path]]:
    """A command line for each command that needs no kernel; by the name of its schema."""
    release = (enabling / "proc/sys/kernel/osrelease").read_text().strip()
    file = build_module("plp_new", vermagic=f"{release} SMP", description="A \x1b[2J fix", parm="a:b")
    (tmp_path / "plan.toml").write_text('[[step]]\nname = "plp_foreign"\ncheck = "true"\n')
    (enabling / "proc/cmdline").write_text("quiet\n")
    return {
        "list": ["list"],
        "status": ["status"],
        "blockers": ["blockers"],
        "signal": ["signal"],
        "info": ["info", file],
        "check": ["check", file],
        "apply": ["apply", tmp_path / "plan.toml"],
        "plan": ["apply", "--dry-run", tmp_path / "plan.toml", file],
        "install": ["install", file],
        "install --list": ["install", "--list"],
        "install --system": ["install", "--system"],
        "uninstall": ["uninstall", "--if-needed", "plp_new"],
        "boot": ["boot", "--settle", "0"],
        "klpctl": ["klpctl", "status"],
        "package": ["package", file, "--image-version", "6.1.1-1", "--output", tmp_path / "fix.deb"],
        "health": ["health"],
        "doctor": ["doctor"],
        "metrics": ["metrics"],
        "completion": ["completion", "bash"],
        "revert": ["revert", "plp_foreign"],
        "wait": ["wait", "plp_foreign"],
        "force": ["force", "plp_hold", "--accept-risk"],
        "unload": ["unload", "--if-needed", "gone"],
        "enable": ["enable", "plp_hold", "--if-needed", "--no-wait"],
    }


def test_each_command(enabling: Path, commands: dict[str, list[str | Path]]) -> None:
    """What each prints on a captured tree conforms, and none is forgotten."""
    for name, words in commands.items():
        data = conforms(name, run(enabling, *words))
        assert data["schema"] == 1
    names = {str(words[0]) for words in commands.values()}
    assert names | ELSEWHERE | {"watch"} == {name for section in SECTIONS.values() for name in section}


def test_a_verdict(enabling: Path, build_module: Callable[..., Path]) -> None:
    """What was proved of a module is in what info says of it, and is as the schema has it."""
    verdict = Verdict("6.1.0-1", {"vmlinux": "11" * 20}, sources=("fs/proc/cmdline.c",), compiler="gcc", matched=3)
    text = verdict.pack().decode().replace('"', r"\"").replace("\n", r"\n")
    section = f'static const char proof[{len(verdict.pack())}] __attribute__((used, section("{SECTION}"))) = "{text}";'
    found = conforms("info", run(enabling, "info", build_module("plp_proved", section)))
    assert found["proof"] == json.loads(json.dumps(asdict(verdict)))
    assert set(found) == set(SCHEMA["$defs"]["info"]["properties"]), "each key is in the schema"
    assert conforms("info", run(enabling, "info", build_module("plp_plain")))["proof"] is None


def test_the_lab(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the lab's commands print conforms, a kernel that is not there included; `--json` may stand anywhere."""
    made = tmp_path / "cache/archive/0123456789abcdef"
    made.mkdir(parents=True, mode=0o700)
    listed = [["linux-image-6.1.0-56-cloud-amd64", "6.1.192-2", "bookworm-security", "bookworm", "kmod"]]
    (made / "kernels.json").write_text(json.dumps(listed))
    facts = {"format": lists.FORMAT, "mirror": "http://mirror.example/", "lacking": {}, "libc": {"bookworm": "2.36"}}
    (made / "facts.json").write_text(json.dumps(facts))
    monkeypatch.setenv("PYLIVEPATCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv(archive.VARIABLE, made.name)
    assert conforms("lab state", run(tmp_path, "lab", "state"))["state"] == made.name
    kernels = conforms("lab kernels", run(tmp_path, "lab", "kernels"))["kernels"]
    assert kernels == [{"series": "6.1", "flavour": "cloud", "release": "6.1.0-56-cloud-amd64", "version": "6.1.192-2",
                        "suite": "bookworm-security", "cached": False}]  # fmt: skip
    for words in (["--json", "lab", "run"], ["lab", "run", "--json"]):
        result = CliRunner().invoke(group, [*words, "--kernel", "6.2", "true"], prog_name="pylivepatch")
        assert result.exit_code == 125
        found = conforms("lab run", result.stdout)
        assert (found["kernel"], found["status"]) == (None, None)
        assert found["error"]
    # What belongs to the guest's command is not for this one.
    result = CliRunner().invoke(group, ["lab", "run", "--", "true", "--json"], prog_name="pylivepatch")
    assert result.exit_code == 2
    assert result.stderr.startswith("Usage: ")


def test_a_build_and_a_trial() -> None:
    """What was built, and how a trial went, conform, with every field that they have."""
    verdict = Verdict("6.1.0-1", {"vmlinux": "11" * 20}, sources=("fs/proc/cmdline.c",), compiler="gcc", matched=3)
    func = BuiltFunc("vmlinux", "cmdline_proc_show", 1, "fs/proc/cmdline.c", 4)
    for path, proof in ((Path("fix.ko"), verdict), (None, None)):
        built = BuildResult("fix", path, "6.1.0-1", (func,), ("helper",), 1, False, True, ("fs/proc/cmdline.c",),
                            ("a note",), {"compile": 1.5}, proof)  # fmt: skip
        conforms("build", json.dumps({"schema": 1, **build_data(built)}))
    trial = Trial("fix", "6.1.0-1", (TrialStep("load", 0.1), TrialStep("check", 1.0, "it failed", "out")), ("a line",))
    conforms("try", json.dumps({"schema": 1, **trial_data(trial)}))


def test_a_confirmation_is_seen(enabling: Path) -> None:
    """`info` and `watch` tell, in words and as JSON, when a patch will be reverted if nobody confirms it."""
    words = r"enabled, reverted in (10 min 0|9 min 59) s unless confirmed"
    with Core(root=enabling) as core:
        info = core.info("plp_foreign")
    assert info.status is not None
    owner = "enabled, reverted when its owner ends unless confirmed"
    for until, shown in ((time.monotonic() + 600, words), (math.inf, owner), (None, r"enabled\)?$")):
        status = replace(info.status, confirm_until=until)
        [state] = (line for line in info_lines(replace(info, status=status)) if line.startswith("state:"))
        assert re.search(shown, state)
        found = conforms("info", json.dumps({"schema": 1, **info_data(replace(info, status=status))}))
        event = Event(7, 5.0, Action.COMPLETED, "plp_foreign", status.state, Target.PATCHED, True, False, False, "udev")
        assert re.search(shown, event_line(event, status))
        seen = conforms("watch", json.dumps({"schema": 1, **event_data(event, status)}))
        for data in (found, seen):
            assert (data["confirmation"] is None) == (until is None)
    assert "confirmation" not in conforms("watch", json.dumps({"schema": 1, **event_data(event)}))


@pytest.mark.parametrize(
    ("words", "kind"),
    [
        (["enable", "gone"], "PatchNotFoundError"),
        (["enable", "plp_foreign"], "AlreadyError"),
        (["enable", "plp_cmdline"], "UnsupportedError"),
        (["revert", "plp_hold", "--timeout", "0.001", "--on-timeout", "report"], "TransitionTimeoutError"),
        (["load", "/dev/null"], "ModuleFileError"),
        (["apply", "none.toml"], "PatchNotFoundError"),
        (["enable", "plp_foreign", "--timeout", "abc"], "BadParameter"),
        (["enable"], "MissingParameter"),
        (["enable", "plp_foreign", "--colour"], "NoSuchOption"),
        (["dance"], "UsageError"),
        (["force", "plp_hold"], "UsageError"),
    ],
)
def test_each_error(enabling: Path, words: list[str], kind: str) -> None:
    """Errors conform, those of usage, too; stdout is empty then, and the exit code is the same as without JSON."""
    arguments = ["--root", str(enabling), *words]
    plain = CliRunner().invoke(group, arguments, prog_name="pylivepatch")
    (enabling / HOLD / "enabled").write_text("1\n")
    for words_with_json in ([*arguments, "--json"], ["--json", *arguments]):
        result = CliRunner().invoke(group, words_with_json, prog_name="pylivepatch")
        assert (result.stdout, result.exit_code) == ("", plain.exit_code)
        (enabling / HOLD / "enabled").write_text("1\n")
        error = conforms("error", result.stderr)["error"]
        assert isinstance(error, dict)
        # click's names for what is wrong differ between its releases.
        assert error["type"] == kind or kind in ("BadParameter", "MissingParameter", "NoSuchOption", "UsageError")
        assert error["message"]


def test_an_interruption(enabling: Path) -> None:
    """A command that a signal ended says so in JSON, too."""
    program = (
        "import os, signal, sys, threading; from pylivepatch.cli._main import group;"
        "threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGTERM)).start();"
        "group(sys.argv[1:])"
    )
    words = ["--root", str(enabling), "--json", "wait", "plp_hold"]
    done = subprocess.run([sys.executable, "-c", program, *words], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (143, "")
    error = conforms("error", done.stderr)["error"]
    assert isinstance(error, dict)
    assert (error["type"], error["patch"], error["state"]) == ("Interrupted", "plp_hold", "enabling")
