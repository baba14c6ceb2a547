# SPDX-License-Identifier: MIT
"""The workload: reads /proc/version for ever, and counts what it sees.

It knows nothing of live patching. For each line on stdin it prints one line of JSON
with what it has counted since the line before; at the end of stdin it ends.
"""

from __future__ import annotations

import collections
import json
import select
import sys

PAUSE = 0.004


def main() -> None:
    """Read, count and answer."""
    seen: collections.Counter[str] = collections.Counter()
    errors = 0
    while True:
        try:
            with open("/proc/version", encoding="ascii") as file:
                seen[file.read().strip()] += 1
        except (OSError, ValueError):
            errors += 1
        if select.select([sys.stdin], [], [], PAUSE)[0]:
            if not sys.stdin.readline():
                return
            print(json.dumps({"seen": seen, "errors": errors}), flush=True)
            seen.clear()
            errors = 0


if __name__ == "__main__":
    main()
