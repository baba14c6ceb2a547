# SPDX-License-Identifier: MIT
"""The C programs, case by case, and proof that the lane notices what it must."""

import re

import pytest


def test_case(programs, modules, case):
    """Each case checks something, says nothing else, and the sanitizers are silent."""
    program, name = case
    result = programs.run(program, name, cwd=modules)
    assert result.stderr == ""
    assert result.returncode == 0
    assert re.fullmatch(r"[1-9]\d* checks\n", result.stdout)


@pytest.mark.parametrize(
    "program", ["test_attr", "test_dev", "test_frame", "test_module", "test_nl"]
)
def test_every_case_is_found(programs, tmp_path, program):
    """The cases that a program knows are those that its source shows."""
    source = (programs.source(program)).read_text()
    shown = re.findall(r"\bCASE\((\w+)\)", source)
    assert shown
    assert sorted(programs.run(program, cwd=tmp_path).stdout.split()) == sorted(shown)


@pytest.mark.parametrize(
    ("name", "status", "words"),
    [
        ("overflow", 99, "AddressSanitizer: heap-buffer-overflow"),
        ("leak", 99, "LeakSanitizer: detected memory leaks"),
        ("undefined", 99, "signed integer overflow"),
        ("failed", 1, "check failed"),
    ],
)
def test_canary(programs, tmp_path, name, status, words):
    """An overflow, a leak, undefined behaviour and a failed check are all noticed."""
    result = programs.run("canary", name, cwd=tmp_path)
    assert words in result.stderr
    assert result.returncode == status


def test_vacuous_case_is_seen(programs, tmp_path):
    """A case without a check says so, and test_case() would not take it."""
    assert programs.run("canary", "vacuous", cwd=tmp_path).stdout == "0 checks\n"


def test_unknown_case_fails(programs, tmp_path):
    """A case that does not exist is not a success."""
    assert programs.run("canary", "nonesuch", cwd=tmp_path).returncode == 2
