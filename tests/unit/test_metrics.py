# SPDX-License-Identifier: MIT
"""Metrics, on captured trees."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from pylivepatch import Core, KernelError, Metrics, Store
from pylivepatch.boot.store import crash_marker


def test_text(enabling: Path) -> None:
    """There is a line for each state, each patch and what is in transition, and none for what is unknown."""
    with Core(root=enabling) as core:
        lines = Metrics(core).text().splitlines()
    for line in (
        'pylivepatch_patches{state="enabling"} 1.0',
        'pylivepatch_patches{state="replaced"} 0.0',
        "pylivepatch_transition_running 1.0",
        'pylivepatch_transition_tasks{name="plp_hold",state="pending",target="patched"} 1.0',
        "# TYPE pylivepatch_patches gauge",
    ):
        assert line in lines
    assert not [line for line in lines if "transition_seconds" in line or "kicks" in line]


def test_what_is_installed(enabling: Path, build_module: Callable[..., Path]) -> None:
    """What is applied at boot, and what is left out since the machine crashed after it."""
    release = (enabling / "proc/sys/kernel/osrelease").read_text().strip()
    (enabling / "proc/sys/kernel/random").mkdir()
    (enabling / "proc/sys/kernel/random/boot_id").write_text("boot 1\n")
    store = Store(root=enabling)
    for name in ("plp_a", "plp_b"):
        store.install(build_module(name, vermagic=f"{release} SMP"))
    crash_marker(store).begin("plp_b")
    (enabling / "proc/sys/kernel/random/boot_id").write_text("boot 2\n")
    with Core(root=enabling) as core:
        lines = Metrics(core).text().splitlines()
        assert [line for line in lines if line.startswith("pylivepatch_installed{")] == [
            'pylivepatch_installed{crashed="false",name="plp_a"} 1.0',
            'pylivepatch_installed{crashed="true",name="plp_b"} 1.0',
        ]
        store.patch("plp_a").path.chmod(0o666)
        assert "pylivepatch_installed{" not in Metrics(core).text()


def test_write(enabling: Path, tmp_path: Path) -> None:
    """A file is written as a whole; one that cannot be written is named, and nothing is left behind."""
    folder = tmp_path / "collector"
    folder.mkdir()
    with Core(root=enabling) as core:
        Metrics(core).write(folder / "a.prom")
        assert (folder / "a.prom").read_text() == Metrics(core).text()
        (folder / "b.prom").mkdir()
        with pytest.raises(KernelError, match=r"b\.prom"):
            Metrics(core).write(folder / "b.prom")
    assert sorted(path.name for path in folder.iterdir()) == ["a.prom", "b.prom"]


def test_without_prometheus_client(enabling: Path, tmp_path: Path) -> None:
    """Without the extra the command names it and exits with 9."""
    (tmp_path / "prometheus_client.py").write_text("raise ImportError('none', name='prometheus_client')")
    result = subprocess.run(
        [sys.executable, "-m", "pylivepatch", "--root", str(enabling), "metrics"],
        env={**os.environ, "PYTHONPATH": f"{tmp_path}:{Path(__file__).parents[2]}"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 9
    assert "pylivepatch[metrics]" in result.stderr
