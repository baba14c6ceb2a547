# SPDX-License-Identifier: MIT
"""Modules by chance and edits of them: what a patch makes of the one is what the other does, call by call.

A run of any size: `pytest tests/vm/test_oracle.py --kernel 6.1 --pairs 500 --seed 1000`. What was made of it is in
build/oracle/, with a line for each pair.
"""

from __future__ import annotations

import json
import sys
from collections import Counter
from pathlib import Path

import pytest

from pylivepatch import lab
from pylivepatch.build import for_series

TOP = Path(__file__).parents[2]
sys.path.insert(0, str(Path(__file__).parent))

from oracle import pairs  # noqa: E402

SIZES = 1, 4, 8
"""Sources of a module: the first has one that is the module, the others have them beside each other."""


def test_patched_is_edited(pytestconfig: pytest.Config, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Patched live, a module does what the edited one does, and reverted what it did before, in each call."""
    series, first = pytestconfig.getoption("kernel"), pytestconfig.getoption("seed")
    seeds = [str(number) for number in range(first, first + pytestconfig.getoption("pairs"))]
    results = tmp_path / "results"
    groups = pairs.prepare(for_series(series), seeds, SIZES, tmp_path)
    status = lab.run(["python3", str(TOP / "tests/vm/alone/oracle.py"), str(tmp_path), str(results)],
                     kernel=series, shares=[TOP], writable=[tmp_path], cpus=1, timeout=300 + 20 * len(seeds))
    rows = [json.loads(line) for line in results.read_text().splitlines()]
    outcomes = {row["group"]: row["outcome"] for row in rows}
    told = [{"kernel": series, "seed": pair.seed, "edits": pair.edits, "group": group.name,
             "refused": group.refused.get(pair.name), "unchanged": pair.name in group.unchanged,
             "outcome": outcomes.get(group.name)} for group in groups for pair in group.pairs]
    kept = TOP / "build/oracle"
    kept.mkdir(parents=True, exist_ok=True)
    (kept / f"{series}-{first}.json").write_text("\n".join(map(json.dumps, told)) + "\n")
    refused = Counter(kind for group in groups for kind, _ in group.refused.values())
    with capsys.disabled():
        print(f"\n{len(seeds)} pairs from seed {first}: "
              f"{sum(not row['refused'] and not row['unchanged'] for row in told)} patched, "
              f"{sum(row['unchanged'] for row in told)} without a change of code, refused {dict(refused)}")
    wrong = {name: outcome for name, outcome in outcomes.items() if outcome != "same"}
    assert status == 0, outcomes
    assert not wrong, "\n".join(wrong.values())
    assert sum(refused.values()) <= len(seeds) // 4, [row for row in told if row["refused"]]
