# SPDX-License-Identifier: MIT
"""Real fixes: build a patch of each C file that changed between two versions of the distribution's kernel source.

    bench/fixes.py OLDER SERIES [--limit N] [--out DIR] [--no-guest]

OLDER is a release that is still in the archive (6.1.0-54-amd64); the newest kernel of SERIES (6.1) has the fixes. The
diff of one file is built for the older kernel. Where it does not compile by itself, because the fix changed a header,
too, the hunks of other files that the compiler's words are about are added; what then still needs others is counted
apart. What was built is loaded, enabled, reverted and unloaded on the older kernel in the lab. Results are kept in DIR,
one line of JSON for each file; a run goes on where the last one stopped.
"""

from __future__ import annotations

import argparse
import json
import re
import statistics
import sys
import time
import traceback
from collections import Counter
from collections.abc import Iterable, Mapping, Set
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Lock

from fixes_step import Step, sample

from pylivepatch import BuildError, MismatchError, lab
from pylivepatch.build import Target, build, for_release, for_series
from pylivepatch.build.tree import prepare
from pylivepatch.build.units import units

TOP = Path(__file__).resolve().parents[1]
ROUNDS = 8
FAILURES = frozenset({"mismatch", "link"})
"""Kinds of refusals that are failures of the builder, when the inputs are right."""

AS_IT_IS = "compiling the kernel's source as it is"
"""How a failure begins that has nothing to do with the diff."""

NOTHING = frozenset({"nothing", "not-built"})
"""Kinds of refusals that say that this kernel is not concerned."""

BESIDE = "beside"

Facts = dict[str, object]


class Bench:
    """The fixes of one step, and what became of each."""

    def __init__(self, older: Target, newer: Target, out: Path) -> None:
        self.target, self.out = older, out
        old, new = prepare(older), prepare(newer)
        memo = out / "changed.json"
        known = json.loads(memo.read_text()) if memo.exists() else None
        self.step = Step(old.path, new.path, known)
        self.step.changed = [name for name in self.step.changed
                             if "/generated/" not in name and not name.startswith("scripts/")]
        memo.write_text(json.dumps(self.step.changed))
        self.units = units(old)
        self.sources = [name for name in self.step.changed if name.endswith(".c") and self.units.get(name)]
        self._lock = Lock()

    def results(self, name: str = "built") -> dict[str, Facts]:
        """Return what is known so far, by file."""
        path = self.out / f"{name}.jsonl"
        lines = path.read_text().splitlines() if path.exists() else []
        return {str(facts["file"]): facts for facts in map(json.loads, lines)}

    def build(self, names: Iterable[str]) -> None:
        """Build a patch of each of the files, two at a time."""
        done = self.results()
        todo = [name for name in names if name not in done]
        with ThreadPoolExecutor(2) as pool, (self.out / "built.jsonl").open("a") as file:
            for facts in pool.map(self._one, todo):
                with self._lock:
                    file.write(json.dumps(facts) + "\n")
                    file.flush()
                print(f"{facts['seconds']:6.1f} s  {facts['outcome']:8} {facts.get('kind', ''):12} {facts['file']}",
                      flush=True)

    def _one(self, name: str) -> Facts:
        start = time.monotonic()
        facts = self._try(name)
        return {"file": name, **facts, "seconds": round(time.monotonic() - start, 2)}

    def _try(self, name: str) -> Facts:
        have: dict[str, set[int] | None] = {name: None}
        stem = name.replace("/", "-").removesuffix(".c")
        for _ in range(ROUNDS):
            diff = self.out / f"{stem}.diff"
            diff.write_text(self.step.diff(have), errors="surrogateescape")
            start = time.monotonic()
            try:
                result = build([diff], target=self.target, output=self.out / f"plp_{stem}.ko")
            except MismatchError as error:
                return {"outcome": "failed", "kind": error.kind, "message": str(error), "with": _others(have)}
            except BuildError as error:
                more = self._more(error, have)
                for file, numbers in more.items():
                    have[file] = (have.get(file) or set()) | numbers
                if more:
                    continue
                # with headers that the whole kernel includes, it is not the diff of one file that was refused
                wide = error.kind == "too-many" and len(have) > 1
                failed = error.kind in FAILURES or str(error).startswith(AS_IT_IS)
                outcome = "failed" if failed else "alone" if wide or error.kind == "compile" else "refused"
                return {"outcome": outcome, "kind": error.kind, "symbol": error.symbol, "message": str(error)[:1500],
                        "with": _others(have)}
            except Exception:
                return {"outcome": "failed", "kind": "exception", "message": traceback.format_exc()[-1500:],
                        "with": _others(have)}
            return {"outcome": "built", "module": str(result.path), "with": _others(have),
                    "funcs": [f"{func.object}:{func.name}" for func in result.functions], "notes": result.notes,
                    "last": round(time.monotonic() - start, 2)}
        return {"outcome": "alone", "kind": "compile", "with": _others(have)}

    def _more(self, error: BuildError, have: Mapping[str, Set[int] | None]) -> dict[str, set[int]]:
        """Return the hunks of other files without which what we have cannot be built."""
        if error.kind == "unresolved":
            return self.step.helpers(f"'{error.symbol}'", have, ".c")
        if error.kind != "compile":
            return {}
        more = {name: numbers for name, numbers in self.step.helpers(str(error), have).items()
                if any(unit.source in have for unit in self.units.including(name))}
        blamed = set(re.findall(r"^([\w./-]+\.c):\d+:\d+: error", str(error), re.MULTILINE)) - have.keys()
        theirs = self.step.helpers(str(error), have, ".c") if blamed else {}
        return {**more, **{name: theirs.get(name) or set(range(len(self.step.hunks(name))))
                           for name in blamed & set(self.step.changed)}}

    def run(self) -> None:
        """Put all that was built through its life on the older kernel, in as many guests as that takes."""
        tried = {str(facts["module"]) for facts in self._trials() if facts["outcome"] not in ("targets", "begun")}
        lost: Counter[str] = Counter()
        while True:
            todo = [str(facts["module"]) for facts in self.results().values()
                    if facts["outcome"] == "built" and str(facts["module"]) not in tried]
            if not todo:
                return
            (self.out / "modules").write_text("\n".join(todo))
            before = len(self._trials())
            try:
                lab.run(["python3", str(TOP / "bench/fixes_guest.py"), str(self.out / "modules"),
                         str(self.out / "tried.jsonl")],
                        kernel=self.target.release, cpus=1, memory="2G", shares=[TOP], writable=[self.out],
                        timeout=3600)
            except lab.GuestLostError as error:
                print(error, flush=True)
                last = self._trials()[-1]
                lost[str(last["module"])] += 1
                with (self.out / "tried.jsonl").open("a") as file:
                    file.write(json.dumps({"module": last["module"], "outcome": f"lost at {last['outcome']}"}) + "\n")
            if len(self._trials()) == before:
                return
            tried = {str(facts["module"]) for facts in self._trials() if facts["outcome"] not in ("targets", "begun")}

    def _trials(self) -> list[Facts]:
        path = self.out / "tried.jsonl"
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []

    def table(self) -> str:
        """Return the results as lines of a table."""
        every = list(self.results().values())
        facts = [each for each in every if each.get("kind") not in NOTHING]
        count = Counter(str(each["outcome"]) for each in facts)
        count[BESIDE] = sum(each["outcome"] == "built" and bool(each["with"]) for each in facts)
        kinds = Counter(str(each["kind"]) for each in facts if each["outcome"] == "refused")
        seconds = [float(str(each["last"])) for each in facts if each["outcome"] == "built"] or [0.0]
        tenths = statistics.quantiles(seconds * 2, n=10, method="inclusive")
        ends = Counter(str(each["outcome"]) for each in
                       {str(each["module"]): each for each in self._trials()}.values())
        whole = len(facts) or 1
        rows = [
            ("files tried", f"{len(every)}"),
            ("of which change no code of this kernel", f"{len(every) - len(facts)}"),
            ("the others", f"{len(facts)}"),
            *((word, f"{count[key]} ({100 * count[key] / whole:.0f} %)") for key, word in (
                ("built", "built"), (BESIDE, "of which with other files of the step"),
                ("refused", "refused, with a reason"), ("alone", "needs other files of the step"),
                ("failed", "failed"))),
            ("refused because of", ", ".join(f"{kind} {number}" for kind, number in kinds.most_common())),
            ("seconds for a build, median and 90 %",
             f"{statistics.median(seconds):.1f}, {tenths[-1]:.1f}"),
            ("in the guest", ", ".join(f"{end} {number}" for end, number in ends.most_common())),
        ]
        head = f"| {self.target.release} ({self.target.version}) | |\n| --- | --- |\n"
        return head + "".join(f"| {name} | {value} |\n" for name, value in rows)


def _others(have: Mapping[str, Set[int] | None]) -> list[str]:
    """Return the files that hunks were taken from, besides the one that it is about."""
    return [name for name, numbers in have.items() if numbers is not None]


def main() -> int:
    """Do it, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("older", help="release of the kernel to patch")
    parser.add_argument("series", help="series whose newest kernel has the fixes")
    parser.add_argument("--limit", type=int, help="so many files, chosen by a hash of their names")
    parser.add_argument("--out", type=Path, help="directory of the results")
    parser.add_argument("--no-guest", action="store_true", help="build only")
    options = parser.parse_args()
    out = options.out or TOP / "build/fixes" / options.older
    out.mkdir(parents=True, exist_ok=True)
    bench = Bench(for_release(options.older), for_series(options.series), out.resolve())
    print(f"{len(bench.sources)} files that {options.older} is made of have changed", flush=True)
    bench.build(sample(bench.sources, options.limit))
    if not options.no_guest:
        bench.run()
    print(bench.table())
    return 1 if any(facts["outcome"] == "failed" for facts in bench.results().values()) else 0


if __name__ == "__main__":
    sys.exit(main())
