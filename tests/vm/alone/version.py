# SPDX-License-Identifier: MIT
"""Runs in a guest that has no klpctl installed, and one of another version to be loaded."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from pylivepatch import Core, UnsupportedError

OTHER = Path(os.environ["PYLIVEPATCH_LAB_MODULES"]) / "klpctl.ko"


def command(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the command line."""
    return subprocess.run(["pylivepatch", *arguments], capture_output=True, text=True, check=False)


def main(version: int) -> None:
    """Try what can be tried without klpctl, then with the other one."""
    with Core() as core:
        assert core.backend == "sysfs"
        assert "klpctl is not used" in core.features.missing["events"].reason
        assert core.patches() == []
    with pytest.raises(UnsupportedError) as info:
        Core("klpctl")
    assert "klpctl is not loaded" in str(info.value)
    assert "install klpctl" in info.value.remedy
    assert info.value.feature == "klpctl"
    done = command("--backend", "klpctl", "status")
    assert done.returncode == 9, done

    subprocess.run(["insmod", OTHER], check=True)
    for backend in ("klpctl", "auto"):
        with pytest.raises(UnsupportedError) as info:
            Core(backend)  # type: ignore[arg-type]
        assert f"klpctl speaks version {version + 1}" in str(info.value)
        assert f"this pylivepatch speaks version {version}" in str(info.value)
        assert "backend sysfs" in info.value.remedy
    done = command("status")
    assert (done.returncode, done.stdout) == (9, ""), done
    assert f"version {version + 1}" in done.stderr
    with Core("sysfs") as core:
        assert core.patches() == []
    subprocess.run(["rmmod", "klpctl"], check=True)


main(int(sys.argv[1]))
