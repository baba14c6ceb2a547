# SPDX-License-Identifier: MIT
"""Runs in a guest that nobody needs afterwards: it is locked down, and cannot be unlocked."""

from __future__ import annotations

import errno
import json
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "guest"))
from conftest import MODULES, KernelLog
from support import cli, unchanged

from pylivepatch import AccessError, Core, PatchRejectedError

FILE = MODULES / "plp_cmdline.ko"
SIGNED = Path("/tmp/plp_cmdline.ko")
UNKNOWN = Path(sys.argv[1])
"""Signed well, with a key that this kernel does not know."""


def fatal(path: Path = FILE) -> list[tuple[str, str]]:
    """What `check` finds fatal; nothing has changed."""
    with unchanged():
        done = cli("check", path, "--json")
    findings = [each for each in json.loads(done.stdout)["findings"] if each["severity"] == "fatal"]
    assert done.returncode == (8 if findings else 0), done
    assert all(each["remedy"] for each in findings)
    return [(each["code"], each["message"]) for each in findings]


def refused(core: Core, kind: type[AccessError | PatchRejectedError], number: int, words: str) -> None:
    """Insist that `load` refuses with these words, and that the kernel was not even asked."""
    log = KernelLog()
    with unchanged(), pytest.raises(kind) as info:
        core.load(FILE)
    assert words in str(info.value)
    assert info.value.errno == number
    assert not log.lines()


def main() -> None:
    """Close the kernel to modules, one way after the other."""
    SIGNED.write_bytes(FILE.read_bytes() + bytes(range(64)) + b"~Module signature appended~\n")
    with Core("klpctl") as core:
        assert fatal() == []
        core.load(FILE).unload()

        Path("/sys/kernel/security/lockdown").write_text("integrity")
        [(code, words)] = fatal()
        assert code == "lockdown"
        refused(core, AccessError, errno.EPERM, words)
        assert fatal(SIGNED) == []

        Path("/sys/module/module/parameters/sig_enforce").write_text("Y")
        [(code, words)] = fatal()
        assert code == "signature"
        refused(core, PatchRejectedError, errno.EKEYREJECTED, words)
        assert fatal(SIGNED) == []
        # Only the kernel can verify it: it knows the format, and does not know the key.
        assert fatal(UNKNOWN) == []
        log = KernelLog()
        with unchanged(), pytest.raises(PatchRejectedError, match="its signature is damaged or not trusted") as info:
            core.load(UNKNOWN)
        assert info.value.errno == errno.EKEYREJECTED
        assert any("unavailable key is rejected" in line for line in log.lines()), log.lines()

        Path("/proc/sys/kernel/modules_disabled").write_text("1")
        findings = dict(fatal(SIGNED))
        assert list(findings) == ["modules-disabled"]
        refused(core, AccessError, errno.EPERM, findings["modules-disabled"])
    print("closed")


main()
