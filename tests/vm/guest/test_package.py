# SPDX-License-Identifier: MIT
"""The scripts of a patch's Debian package, run as dpkg runs them."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from conftest import KernelLog, cmdline

from pylivepatch import Core, ModuleFile, PatchState, Store
from pylivepatch.boot import package

pytestmark = pytest.mark.once

Payload = Callable[[str], Path]
Script = Callable[[str, str], "subprocess.CompletedProcess[str]"]
VAR = Path("/var/lib/pylivepatch")


@pytest.fixture
def unpacked(payload: Payload) -> Iterator[Callable[..., Script]]:
    """Unpack what a package of a patch holds; a function that runs its scripts."""
    made: list[Path] = []
    shutil.rmtree(VAR, ignore_errors=True)

    def unpack(name: str, check: str = "") -> Script:
        scripts = {}
        for place, data in package.contents(ModuleFile.open(payload(name)), {}, check).items():
            path = Path("/tmp", name, place) if place.startswith("DEBIAN/") else Path("/", place)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
            made.append(path)
            scripts[path.name] = path

        def run(script: str, word: str) -> subprocess.CompletedProcess[str]:
            return subprocess.run(["sh", scripts[script], word], capture_output=True, text=True, check=False)

        return run

    yield unpack
    for path in made:
        path.unlink(missing_ok=True)
    shutil.rmtree(VAR, ignore_errors=True)


def test_installed_and_removed(unpacked: Callable[..., Script]) -> None:
    """Installation applies the patch and has it applied at boot; removal reverts, unloads and forgets it."""
    before = cmdline()
    script = unpacked("plp_cmdline")
    done = script("postinst", "configure")
    assert (done.returncode, done.stderr) == (0, "")
    with Core() as core:
        assert core.patch("plp_cmdline").state is PatchState.ENABLED
    assert [each.name for each in Store().patches()] == ["plp_cmdline"]
    assert cmdline() != before
    done = script("prerm", "remove")
    assert done.returncode == 0, done.stderr
    assert not Path("/sys/module/plp_cmdline").exists()
    assert Store().patches() == []
    assert cmdline() == before


def test_a_patch_that_cannot_be_applied(unpacked: Callable[..., Script], log: KernelLog) -> None:
    """The installation fails when the patch cannot be applied, with the way out; the kernel is as it was."""
    log.expect("pre-patch callback failed for object 'vmlinux'")
    log.expect("failed to enable patch 'plp_prefail'")
    script = unpacked("plp_prefail")
    done = script("postinst", "configure")
    assert done.returncode == 1
    assert "plp_prefail was not applied to the running kernel, which is as it was" in done.stderr
    assert "dpkg --configure livepatch-plp-prefail-" in done.stderr
    with Core() as core:
        assert core.patches() == []
    for words in (("postinst", "abort-upgrade"), ("prerm", "failed-upgrade"), ("prerm", "remove"), ("prerm", "remove")):
        assert script(*words).returncode == 0
    assert Store().patches() == []


def test_a_patch_that_is_confirmed(unpacked: Callable[..., Script]) -> None:
    """A check that fails reverts the patch, and nothing is left of it; one that succeeds confirms it."""
    failed = unpacked("plp_cmdline", "grep -q patched /proc/cmdline && false")("postinst", "configure")
    assert failed.returncode == 1
    assert "plp_cmdline was not applied: its check failed" in failed.stderr
    with Core() as core:
        assert core.patches() == []
        assert Store().patches() == []
        script = unpacked("plp_cmdline", "grep -q patched /proc/cmdline")
        assert script("postinst", "configure").returncode == 0
        status = core.patch("plp_cmdline").status()
        assert (status.state, status.confirm_until) == (PatchState.ENABLED, None)
        assert [each.name for each in Store().patches()] == ["plp_cmdline"]
        assert script("prerm", "remove").returncode == 0
        assert core.patches() == []
