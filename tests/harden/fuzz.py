# SPDX-License-Identifier: MIT
"""Random requests in a guest, as root and as nobody, while patches change all the time.

fuzz.py PROGRAM COUNT [SEED]
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "vm/guest"))
from stress import Enabler, KernelLog, Loader, Sysfs, act, clean_up, compare, insmod, leaks, settle


def main() -> int:
    """Half of the requests are root's, half are nobody's."""
    program, count = sys.argv[1], int(sys.argv[2])
    seed = int(sys.argv[3]) if len(sys.argv) > 3 else 1
    log = KernelLog()
    assert insmod("klpctl") == 0
    fuzzers = [
        subprocess.Popen([program, str(count // 2), str(seed), *who], stdout=subprocess.PIPE, text=True)
        for who in ([], ["user"])
    ]
    stop = time.monotonic() + 36_000
    changing = {}
    for kind in (Loader, Enabler, Sysfs):
        child = os.fork()
        if child == 0:
            act(kind, seed, stop, 1)
        changing[child] = kind.__name__
    failed = []
    for fuzzer in fuzzers:
        while True:
            log.read()
            try:
                said, _ = fuzzer.communicate(timeout=5)
                break
            except subprocess.TimeoutExpired:
                continue
        print(said, flush=True)
        if fuzzer.returncode or "without an answer" in said:
            failed.append("the fuzzer")
    for child in changing:
        os.kill(child, 15)
        os.waitpid(child, 0)
    settle()
    compare()
    clean_up()
    found = leaks()
    log.read()
    print(*failed, *log.bad, found, sep="\n")
    print(f"{count} requests, seed {seed}: {len(log.bad)} lines in the kernel log, "
          f"{found.count('unreferenced object')} leaks")  # fmt: skip
    return int(bool(failed or log.bad or found))


if __name__ == "__main__":
    sys.exit(main())
