# SPDX-License-Identifier: MIT
"""Sequence files, and sequences on captured trees."""

from __future__ import annotations

import math
import threading
import time
from typing import TYPE_CHECKING

import pytest

from pylivepatch import (
    BadDataError,
    Core,
    Outcome,
    PatchNotFoundError,
    PatchState,
    Sequence,
    Step,
    TransitionBusyError,
    UnsupportedError,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

FOREIGN = "sys/kernel/livepatch/plp_foreign"
HOLD = "sys/kernel/livepatch/plp_hold"


def step(text: str) -> str:
    """A step in TOML."""
    return f'[[step]]\nname = "fix"\n{text}\n'


def test_a_file(tmp_path: Path) -> None:
    """All keys are read, defaults are filled in, and module files are relative to the file."""
    (tmp_path / "plan.toml").write_text("""
        [defaults]
        timeout = inf
        check_timeout = 5

        [[step]]
        file = "fixes/a.ko"
        params = { debug = 1, name = "x", on = true }
        check = ["true", "-x"]
        confirm_within = 60

        [[step]]
        name = "old-fix"
        action = "revert"
        timeout = 2.5
        on_timeout = "report"
        check = "true"
    """)
    assert Sequence.read(tmp_path / "plan.toml") == [
        Step(
            file=tmp_path / "fixes/a.ko",
            params={"debug": 1, "name": "x", "on": True},
            timeout=math.inf,
            check=("true", "-x"),
            check_timeout=5.0,
            confirm_within=60.0,
        ),
        Step(name="old-fix", action="revert", timeout=2.5, on_timeout="report", check="true", check_timeout=5.0),
    ]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("x = $", "it is not TOML: .*line 1, column 5"),
        ("", r"step: there is no \[\[step\]\]"),
        ("step = 1", r"step: there is no \[\[step\]\]"),
        ("steps = 1", "steps: unknown key.*give one of defaults, step"),
        ("defaults = 1", "defaults: it is not a table"),
        ("[defaults]\nname = 1", "defaults: name: unknown key"),
        (step("") + step("colour = 1"), "step 2: colour: unknown key.*give one of file, name"),
        ("[[step]]\n", "step 1: file, name: exactly one"),
        (step('file = "a.ko"'), "step 1: file, name: exactly one"),
        ('[[step]]\nname = "a b"', "step 1: name: 'a b' is not the name of a patch"),
        (step("params = { a = 1 }"), "step 1: params: they are for a file"),
        ('[[step]]\nfile = "a.ko"\nparams = { a = [1] }', "step 1: params: it is not a table of"),
        ("[[step]]\nfile = 1", "step 1: file: it is not a string"),
        (step('action = "force"'), "step 1: action: 'force' is not enable or revert"),
        (step('on_timeout = "x"'), "step 1: on_timeout: 'x' is not reverse or report"),
        (step("timeout = 0"), "step 1: timeout: timeout 0.0 is not above 0"),
        (step("timeout = true"), "step 1: timeout: it is not a number"),
        (step('check_timeout = "1"'), "step 1: check_timeout: it is not a number"),
        (step("check = 1"), "step 1: check: it is neither"),
        (step("check = []"), "step 1: check: it is empty"),
        (step("confirm_within = 0"), r"step 1: confirm_within: invalid confirm_within: 0\.0"),
        (step("confirm_within = 4e6"), "step 1: confirm_within: invalid confirm_within: 4000000"),
        (step(f"timeout = 1{'0' * 400}"), "step 1: timeout: that many seconds"),
        (step(r'check = "a\u0000b"'), "step 1: check: a NUL"),
        (step('action = "revert"\nconfirm_within = 1'), "step 1: confirm_within: only what is enabled"),
    ],
)
def test_bad_files(tmp_path: Path, text: str, words: str) -> None:
    """What is wrong is told with file, step, key and reason."""
    file = tmp_path / "plan.toml"
    file.write_text(text)
    with pytest.raises(BadDataError, match=f"{file}: {words}") as info:
        Sequence.read(file)
    assert "nothing has changed" in str(info.value)


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    """A missing file is not found; a directory, and what is not UTF-8, are bad data."""
    with pytest.raises(PatchNotFoundError, match="no sequence file"):
        Sequence.read(tmp_path / "none.toml")
    with pytest.raises(BadDataError, match="cannot be read"):
        Sequence.read(tmp_path)
    (tmp_path / "x.toml").write_bytes(b"\xff")
    with pytest.raises(BadDataError, match="not TOML"):
        Sequence.read(tmp_path / "x.toml")


def test_the_plan(enabling: Path, build_module: Callable[..., Path]) -> None:
    """The plan says what would be done and what would stop it, and changes nothing."""
    good = build_module("plp_good", vermagic=f"{Core(root=enabling).release} SMP")
    with Core(root=enabling) as core:
        sequence = Sequence(
            core,
            [
                Step(name="plp_foreign", check="true"),
                Step(file=good, params={"a": 1}),
                Step(file=good, action="revert"),
                Step(name="plp_nothing"),
                Step(name="plp_foreign", action="revert"),
                Step(file=enabling / "none.ko"),
                Step(name="plp_cmdline", action="revert"),
                Step(file=good, confirm_within=5),
            ],
        )
        planned = sequence.plan(preflight=False)
        assert [each.actions for each in planned] == [
            ("check",),
            ("load", "enable"),
            ("revert",),
            (),
            (),
            (),
            (),
            (),
        ]
        assert [type(each.error) for each in planned] == [
            type(None),
            type(None),
            type(None),
            PatchNotFoundError,
            UnsupportedError,
            PatchNotFoundError,
            type(None),
            UnsupportedError,
        ]
        with pytest.raises(PatchNotFoundError, match="plp_nothing") as info:
            sequence.run()
    assert "step 4" in info.value.__notes__[0]
    assert {report.outcome for report in sequence.reports} == {Outcome.PENDING, Outcome.FAILED}
    assert (enabling / FOREIGN / "enabled").read_text() == "1\n"


@pytest.fixture
def kernel(disabling: Path) -> Iterator[Path]:
    """A kernel that ends the transitions of plp_hold at once."""
    stop = threading.Event()

    def run() -> None:
        while not stop.is_set():
            if (disabling / HOLD / "enabled").read_text().startswith("1"):
                (disabling / HOLD / "transition").write_text("0\n")
            time.sleep(0)

    thread = threading.Thread(target=run)
    thread.start()
    yield disabling
    stop.set()
    thread.join()


def test_a_run(kernel: Path) -> None:
    """What is so already is unchanged, the rest is done, and all is told."""
    told = []
    with Core(root=kernel) as core:
        steps = [Step(name="plp_foreign"), Step(name="plp_hold", check="true")]
        with Sequence(core, steps, notify=lambda report: told.append((report.number, report.outcome))) as sequence:
            sequence.run()
        assert core["plp_hold"].state is PatchState.ENABLED
    assert told == [
        (1, Outcome.PENDING),
        (1, Outcome.UNCHANGED),
        (2, Outcome.PENDING),
        (2, Outcome.DONE),
    ]


def test_the_transition_of_somebody_else(enabling: Path) -> None:
    """A patch that somebody else is enabling is neither waited for nor, in undoing, taken back."""
    with Core(root=enabling) as core:
        sequence = Sequence(core, [Step(name="plp_foreign"), Step(name="plp_hold")])
        with pytest.raises(TransitionBusyError, match="plp_hold is in transition"):
            sequence.run()
    assert (enabling / HOLD / "enabled").read_text().startswith("1")
