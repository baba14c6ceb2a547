# SPDX-License-Identifier: MIT
"""Damage finished modules on purpose, and count what the checker sees: SERIES COUNT MODULE...

Each MODULE is a file that ``pylivepatch build`` made for the newest stock kernel of SERIES;
COUNT mutants are made of each.
Prints a table, and every mutant that is neither seen nor the same to the kernel; exits with 1 when there is one.
"""

from __future__ import annotations

import random
import sys
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

from pylivepatch.build import for_series, prove

sys.path.insert(0, str(Path(__file__).parents[1] / "tests/vm"))

from mutate import MUTATIONS, alignments, mutants, same

if TYPE_CHECKING:
    from pylivepatch.build import Verdict
    from pylivepatch.build.verify import Checker


def main(series: str, count: int, paths: list[Path]) -> int:
    """Return how many mutants were missed."""
    target = for_series(series)
    results: Counter[tuple[str, str]] = Counter()
    for path in paths:
        original = path.read_bytes()

        def use(checker: Checker, path: Path = path, original: bytes = original) -> Verdict:
            unaligned = alignments(checker.evidence.assemble([source.patched for source in checker.evidence.sources]))
            for kind, what, mutant in mutants(original, random.Random(path.stem), count):
                found = checker.prove(mutant).complaints
                result = "seen" if found else "same" if same(original, mutant, unaligned) else "missed"
                results[kind, result] += 1
                if result == "missed":
                    print(f"{path.name}: {kind}: {what}")
            return checker.prove(original)

        verdict = prove(path, target=target, use=use)
        for words in verdict.complaints:
            print(f"{path.name} itself: {words}")
    print("| damage | mutants | seen | same to the kernel | missed |\n| --- | ---: | ---: | ---: | ---: |")
    for kind, change in MUTATIONS.items():
        row = [results[kind, result] for result in ("seen", "same", "missed")]
        print(f"| {(change.__doc__ or kind).rstrip('.')} | {sum(row)} | {row[0]} | {row[1]} | {row[2]} |")
    return sum(number for (_, result), number in results.items() if result == "missed")


if __name__ == "__main__":
    sys.exit(bool(main(sys.argv[1], int(sys.argv[2]), [Path(name) for name in sys.argv[3:]])))
