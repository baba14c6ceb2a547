# SPDX-License-Identifier: MIT
"""The checker sees what is damaged on purpose: a sample of bench/mutations.py, always the same one."""

from __future__ import annotations

import difflib
import random
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from pylivepatch.build import build, for_series, prove
from pylivepatch.build.tree import prepare

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parent / "diffs")]

from cases import named  # noqa: E402
from mutate import alignments, mutants, same  # noqa: E402

if TYPE_CHECKING:
    from pylivepatch.build import Verdict
    from pylivepatch.build.verify import Checker

MUTANTS = 40


@pytest.mark.parametrize("name", ["cold_branch"])
def test_damage_is_seen(name: str, tmp_path: Path, pytestconfig: pytest.Config) -> None:
    """A module that is not the same to the kernel any more is never taken for proved."""
    target = for_series(pytestconfig.getoption("kernel"))
    tree = prepare(target).path
    lines = []
    for edit in named(name).edits:
        assert not isinstance(edit, str)
        old = (tree / edit.file).read_text()
        lines += difflib.unified_diff(old.splitlines(keepends=True),
                                      old.replace(edit.old, edit.new).splitlines(keepends=True),
                                      f"a/{edit.file}", f"b/{edit.file}")
    diff, path = tmp_path / f"{name}.diff", tmp_path / f"plp_{name}.ko"
    diff.write_text("".join(lines))
    build([diff], target=target, output=path)
    original = path.read_bytes()
    seen = []

    def use(checker: Checker) -> Verdict:
        unaligned = alignments(checker.evidence.assemble([source.patched for source in checker.evidence.sources]))
        for kind, what, mutant in mutants(original, random.Random(1), MUTANTS):
            found = checker.prove(mutant).complaints
            seen.append(bool(found))
            assert found or same(original, mutant, unaligned), f"{kind}: {what}"
        return checker.prove(original)

    assert prove(path, target=target, use=use).proved
    assert len(seen) == MUTANTS
    assert sum(seen) > MUTANTS * 3 // 4
