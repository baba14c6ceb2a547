# SPDX-License-Identifier: MIT
"""klpctl's modules as they lie in a tree; DKMS itself runs in the clean roots of scripts/test-wheel."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner

from pylivepatch import AccessError
from pylivepatch.boot import dkms
from pylivepatch.cli._main import group


@pytest.fixture
def tree(enabling: Path, build_module: Callable[..., Path]) -> Path:
    """A machine with three kernels: klpctl is built for one, the headers of another are there."""
    running = (enabling / "proc/sys/kernel/osrelease").read_text().strip()
    for release, headers in ((running, True), ("6.1.0-998-amd64", True), ("6.1.0-999-amd64", False)):
        folder = enabling / "lib/modules" / release
        (folder / "updates/dkms").mkdir(parents=True)
        if headers:
            (folder / "build").mkdir()
            (folder / "build/Makefile").touch()
    build_module("klpctl").rename(enabling / f"lib/modules/{running}/updates/dkms/klpctl.ko")
    return enabling


def test_status(tree: Path) -> None:
    """Each kernel has a line, with what it lacks; a signature is seen."""
    running = (tree / "proc/sys/kernel/osrelease").read_text().strip()
    module = tree / f"lib/modules/{running}/updates/dkms/klpctl.ko"
    assert [(each.release, each.running, each.headers, each.path, each.signed) for each in dkms.status(tree)] == [
        (running, True, True, module, False),
        ("6.1.0-998-amd64", False, True, None, False),
        ("6.1.0-999-amd64", False, False, None, False),
    ]
    words = ["--root", str(tree), "klpctl", "status"]
    assert CliRunner().invoke(group, words).stdout.splitlines() == [
        f"klpctl {dkms.version()}, loaded: no",
        f"  {running} (running): built, not signed",
        "  6.1.0-998-amd64: not built",
        "  6.1.0-999-amd64: not built: its headers are not installed (linux-headers-6.1.0-999-amd64)",
    ]
    module.write_bytes(module.read_bytes() + bytes(12) + b"~Module signature appended~\n")
    assert "built, signed" in CliRunner().invoke(group, words).stdout


def test_root_installs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody else is let begin."""
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    for what in (dkms.install, dkms.remove):
        with pytest.raises(AccessError, match=r"only root .* klpctl; nothing has changed; run it as root"):
            what()
