# SPDX-License-Identifier: MIT
"""Sequences of patches: all of them, or none."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from conftest import KernelLog, Sleeper, cmdline, until
from support import cli, unchanged

from pylivepatch import (
    Action,
    CheckError,
    ConfirmationExpiredError,
    Core,
    Event,
    Outcome,
    PatchRejectedError,
    PatchState,
    Sequence,
    Step,
    TransitionTimeoutError,
)

pytestmark = pytest.mark.once

Payload = Callable[[str], Path]
Sleep = Callable[..., Sleeper]
FIRST = ["plp_cmdline", "plp_cmdline2", "plp_module"]
REFUSED = -123


@pytest.fixture
def events(core: Core) -> Iterator[Callable[[], list[tuple[str, str, str]]]]:
    """What has happened since the start of the test: name, action, target."""
    with core.monitor() as monitor:

        def read() -> list[tuple[str, str, str]]:
            seen: list[Event] = []
            core.status()  # after it, all is told that was
            while event := monitor.read(timeout=0.5):
                seen.append(event)
            return [(event.name, str(event.action), str(event.target)) for event in seen]

        yield read


def ended(happened: list[tuple[str, str, str]], target: str) -> list[str]:
    """The patches whose transitions ended at a target, in that order."""
    return [name for name, action, where in happened if (action, where) == (Action.COMPLETED, target)]


def unregistered(happened: list[tuple[str, str, str]]) -> list[str]:
    """The patches that were unloaded, in that order."""
    return [name for name, action, _ in happened if action == Action.UNREGISTERED]


@pytest.fixture
def refused(log: KernelLog) -> None:
    """The kernel says that it refused a patch."""
    log.expect("pre-patch callback failed")
    log.expect("failed to enable patch")


def in_vain(kind: type[Exception], words: str, *steps: Step) -> None:
    """Insist that a sequence fails, and leaves the kernel as it was."""
    with unchanged(), pytest.raises(kind, match=words), Core("klpctl") as core:
        Sequence(core, steps).run()


def five(payload: Payload, folder: Path) -> Path:
    """A sequence file of five steps, the fourth of which the kernel refuses."""
    file = folder / "five.toml"
    steps = [f'[[step]]\nfile = "{payload(name)}"\n' for name in FIRST]
    steps.append(f'[[step]]\nfile = "{payload("plp_prefail")}"\nparams = {{ fail = {REFUSED} }}\n')
    steps.append(f'[[step]]\nfile = "{payload("plp_hold")}"\n')
    file.write_text("\n".join(steps))
    return file


def test_the_fourth_of_five_fails(
    target: str, refused: None, payload: Payload, tmp_path: Path, events: Callable[[], list[tuple[str, str, str]]]
) -> None:
    """The first three are reverted and unloaded in reverse order; exit code and report say so."""
    file = five(payload, tmp_path)
    with unchanged():
        done = cli("apply", file)
    assert done.returncode == 8, done
    assert done.stdout == ""
    for words in ("step 4 (plp_prefail): cannot enable plp_prefail", "undone: plp_module, plp_cmdline2, plp_cmdline"):
        assert words in done.stderr
    assert [line.split()[1:] for line in done.stderr.splitlines() if line.startswith("  ")] == [
        *([name, "undone,", "not", "loaded"] for name in FIRST),
        ["plp_prefail", "failed,", "not", "loaded"],
        ["plp_hold", "not", "reached"],
    ]
    happened = events()
    assert ended(happened, "patched") == FIRST
    assert ended(happened, "unpatched") == FIRST[::-1]
    assert unregistered(happened) == ["plp_prefail", *FIRST[::-1]]


def test_the_report_in_json(target: str, refused: None, payload: Payload, tmp_path: Path) -> None:
    """`--json` says which step failed, what was undone in which order, and where each patch stands."""
    with unchanged():
        done = cli("apply", five(payload, tmp_path), "--json")
    assert done.returncode == 8, done
    assert done.stdout == ""
    error = json.loads(done.stderr)["error"]
    assert (error["type"], error["errno"], error["step"]) == ("PatchRejectedError", -REFUSED, 4)
    assert error["undone"] == FIRST[::-1]
    assert [(step["name"], step["outcome"], step["state"]) for step in error["steps"]] == [
        *((name, "undone", None) for name in FIRST),
        ("plp_prefail", "failed", None),
        ("plp_hold", "pending", None),
    ]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["SIGINT", "SIGTERM"])
def test_interrupted_in_the_fourth_of_five(
    sleeper: Sleep, payload: Payload, number: int, events: Callable[[], list[tuple[str, str, str]]]
) -> None:
    """Ctrl-C while a task holds the fourth turns that round and takes the first three back in reverse order."""
    sleeper()
    files = [payload(name) for name in [*FIRST, "plp_hold", "plp_states"]]
    with unchanged():
        command = [sys.executable, "-m", "pylivepatch", "apply", *map(str, files), "--timeout", "inf", "--json"]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        with Core() as core:
            until(lambda: any(s.name == "plp_hold" and s.state is PatchState.ENABLING for s in core.status()))
        process.send_signal(number)
        out, err = process.communicate(timeout=240)
        assert process.returncode == 128 + number, err
        assert out == b""
    error = json.loads(err)["error"]
    assert (error["type"], error["step"], error["undone"]) == ("Interrupted", 4, FIRST[::-1])
    assert [step["outcome"] for step in error["steps"]] == ["undone"] * 3 + ["interrupted", "pending"]
    happened = events()
    assert ended(happened, "unpatched") == ["plp_hold", *FIRST[::-1]]
    assert unregistered(happened) == ["plp_hold", *FIRST[::-1]]


def test_what_was_there_is_not_touched(target: str, refused: None, payload: Payload, core: Core) -> None:
    """Undoing leaves enabled what was enabled, and loaded what was loaded; what was reverted is enabled again."""
    enabled, loaded, old = (core.load(payload(name)) for name in ("plp_cmdline", "plp_module", "plp_states"))
    enabled.enable()
    old.enable()
    sequence = Sequence(
        core,
        [
            Step(file=payload("plp_cmdline")),
            Step(name="plp_module"),
            Step(name="plp-states", action="revert"),
            Step(file=payload("plp_prefail"), params={"fail": REFUSED}),
        ],
    )
    with pytest.raises(PatchRejectedError) as info:
        sequence.run()
    assert info.value.errno == -REFUSED
    assert "step 4" in info.value.__notes__[0]
    assert [report.outcome for report in sequence.reports] == [
        Outcome.UNCHANGED,
        Outcome.UNDONE,
        Outcome.UNDONE,
        Outcome.FAILED,
    ]
    assert (enabled.state, loaded.state, old.state) == (
        PatchState.ENABLED,
        PatchState.DISABLED,
        PatchState.ENABLED,
    )
    assert [report.state for report in sequence.reports][:3] == [enabled.state, loaded.state, old.state]


def test_what_was_replaced_comes_back(payload: Payload, core: Core) -> None:
    """Undoing an atomic replace enables again what it had replaced."""
    before = core.load(payload("plp_cmdline"))
    before.enable()
    sequence = Sequence(core)

    def fail() -> None:
        with sequence:
            sequence.run(Step(file=payload("plp_replace")))
            assert before.state is PatchState.REPLACED
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert before.state is PatchState.ENABLED
    assert cmdline() == "cmdline: patched"
    assert sequence.reports[0].outcome is Outcome.UNDONE


def test_a_whole_sequence(payload: Payload, core: Core, tmp_path: Path) -> None:
    """Steps with checks and policies are done in order, are settled at the end, and done again change nothing."""
    seen = tmp_path / "seen"
    file = tmp_path / "plan.toml"
    file.write_text(f"""
        [defaults]
        timeout = 60

        [[step]]
        file = "{os.path.relpath(payload("plp_cmdline"), tmp_path)}"
        check = "grep -qx 'cmdline: patched' /proc/cmdline && echo $PYLIVEPATCH_PATCH >> {seen}"

        [[step]]
        file = "{payload("plp_cmdline2")}"
        check = ["grep", "-q", "twice", "/proc/cmdline"]
        confirm_within = 600
        on_timeout = "report"

        [[step]]
        name = "plp_cmdline"
        action = "revert"
    """)
    planned = cli("apply", file, "--dry-run")
    assert planned.returncode == 0, planned
    assert [line for line in planned.stdout.splitlines() if not line.startswith(" ")] == [
        "1/3 plp_cmdline: load, enable, check",
        "2/3 plp_cmdline2: load, enable, check",
        "3/3 plp_cmdline: revert",
    ]
    assert core.patches() == []
    done = cli("apply", file, "--json")
    assert done.returncode == 0, done
    steps = json.loads(done.stdout)["steps"]
    assert [(step["outcome"], step["state"]) for step in steps] == [
        ("done", "enabled"),
        ("done", "enabled"),
        ("done", "disabled"),
    ]
    assert seen.read_text() == "plp_cmdline\n"
    assert cmdline() == "cmdline: patched twice"
    assert core["plp_cmdline2"].state is PatchState.ENABLED
    again = cli("apply", payload("plp_cmdline2"))
    assert "plp_cmdline2: enabled already" in again.stderr


def test_a_check_that_fails(payload: Payload) -> None:
    """A failing check, and one that takes too long, fail their step: all is as before."""
    for command, timeout, words in (("echo no; exit 3", 30.0, "status 3.*no"), ("sleep 60", 0.2, "longer than 0.2 s")):
        in_vain(CheckError, words, Step(file=payload("plp_cmdline"), check=command, check_timeout=timeout))
    done = cli("apply", payload("plp_cmdline"), "--timeout", "0")
    assert done.returncode == 2, done


def test_a_window_that_is_over(payload: Payload) -> None:
    """A sequence that takes longer than the time to confirm in fails: the kernel has taken its patch back."""
    late = "while [ -e /sys/kernel/livepatch/plp_cmdline ]; do sleep 0.2; done"
    step = Step(file=payload("plp_cmdline"), confirm_within=5, check=late)
    in_vain(ConfirmationExpiredError, "not confirmed in time", step)


def test_a_deadline(sleeper: Sleep, payload: Payload, core: Core) -> None:
    """A step that is late is reversed, and the sequence undone; with "report" it is waited for."""
    held = sleeper()
    steps = [Step(file=payload("plp_cmdline")), Step(file=payload("plp_hold"), timeout=0.5)]
    in_vain(TransitionTimeoutError, "held up by", *steps)

    late = []

    def notify(report: object) -> None:
        if getattr(report, "late", None) and not late:
            late.append(report)
            held.wake()

    step = Step(file=payload("plp_hold"), timeout=0.5, on_timeout="report")
    sequence = Sequence(core, [step], notify=notify).run()
    assert late == sequence.reports
    assert sequence.reports[0].outcome is Outcome.DONE


def test_a_foreign_patch(payload: Payload, core: Core) -> None:
    """An ordinary patch is enabled by being loaded; its revert is undone by loading it anew, if its file is given."""
    file = payload("plp_foreign")
    in_vain(CheckError, "status 1", Step(file=file), Step(file=payload("plp_cmdline"), check="false"))
    Sequence(core, [Step(file=file)]).run()
    patch = core["plp_foreign"]
    assert patch.state is PatchState.ENABLED
    assert cli("apply", "--dry-run", file).stdout == "1/1 plp_foreign: nothing to do\n"
    steps = [Step(file=file, action="revert"), Step(file=payload("plp_cmdline"), check="false")]
    sequence = Sequence(core, steps)
    with pytest.raises(CheckError):
        sequence.run()
    assert sequence.reports[0].outcome is Outcome.UNDONE
    assert patch.state is PatchState.ENABLED
