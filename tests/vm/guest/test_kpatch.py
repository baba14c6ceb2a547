# SPDX-License-Identifier: MIT
"""kpatch's commands: its lines, where it prints them, and its exit codes."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from conftest import KernelLog, Sleeper, cmdline, parameter
from support import Done, forked, unchanged

from pylivepatch import Store
from pylivepatch.cli import kpatch as program
from pylivepatch.cli.kpatch import change

Payload = Callable[[str], Path]
RELEASE = os.uname().release
STORES = Path("/var/lib/pylivepatch"), Path("/var/lib/kpatch")
WAITING = re.compile(
    r"waiting \(up to 15 seconds\) for patch transition to complete\.\.\.\ntransition complete \(\d+ seconds\)\n"
)


@pytest.fixture(autouse=True)
def _stores() -> Iterator[None]:
    """No patches are installed before, nor after."""
    for path in STORES:
        shutil.rmtree(path, ignore_errors=True)
    yield
    for path in STORES:
        shutil.rmtree(path, ignore_errors=True)


def kpatch(*words: str | Path, **numbers: float) -> Done:
    """Run a command, with other numbers of seconds for some."""

    def body() -> None:
        for name, number in numbers.items():
            setattr(change, name, number)
        raise SystemExit(program.run([str(word) for word in words]))

    return forked(body)


def ok(*words: str | Path) -> str:
    """Run a command that succeeds; what it prints, without what it says about waiting."""
    done = kpatch(*words)
    assert (done.returncode, done.stderr) == (0, ""), done
    return WAITING.sub("", done.stdout)


def failed(*words: str | Path) -> str:
    """Run a command that fails and changes nothing; what it prints."""
    with unchanged():
        done = kpatch(*words)
    assert done.returncode == 1, done
    assert "Traceback" not in done.stderr
    return done.stdout + done.stderr


@pytest.mark.smoke
def test_a_patch_lives_by_kpatch(payload: Payload) -> None:
    """Standalone and registered patches are loaded, listed and unloaded in kpatch's lines."""
    original = cmdline()
    for name in ("plp_foreign", "plp_cmdline"):
        file = payload(name)
        assert ok("load", file) == f"loading patch module: {file}\n"
        assert ok("load", file) == f"module named {name} already loaded and enabled\n"
    assert "loadavg: foreign" in Path("/proc/loadavg").read_text()
    assert cmdline() != original
    text = ok("list")
    assert text.startswith("Loaded patch modules:\nplp_foreign [enabled]\nplp_cmdline [enabled]\n\nInstalled patch")
    ordered = any(Path("/sys/kernel/livepatch").glob("*/stack_order"))
    assert ("Currently livepatched functions:" in text) == ordered
    assert ok("unload", "plp-foreign") == "disabling patch module: plp_foreign\nunloading patch module: plp_foreign\n"
    assert ok("unload", payload("plp_cmdline")).endswith("unloading patch module: plp_cmdline\n")
    assert cmdline() == original
    assert not Path("/sys/module/plp_foreign").exists()
    assert "patch module plp_foreign is not loaded" in failed("unload", "plp_foreign")


@pytest.mark.once
def test_all(payload: Payload) -> None:
    """What is installed, by this or by kpatch itself, is loaded, listed and uninstalled."""
    file, old = payload("plp_cmdline"), STORES[1] / RELEASE / "plp-foreign.ko"
    assert ok("install", file) == f"installing {file} ({RELEASE})\n"
    assert [each.name for each in Store().patches()] == ["plp_cmdline"]
    assert failed("install", file) == f"kpatch: {file} is already installed\n"
    old.parent.mkdir(parents=True)
    shutil.copy(payload("plp_foreign"), old)
    assert ok("list").endswith(f"Installed patch modules:\nplp_cmdline ({RELEASE})\nplp_foreign ({RELEASE})\n")
    assert ok("load", "--all").count("loading patch module: ") == 2
    assert ok("info", "plp_foreign").startswith(f"Patch information for plp_foreign:\nfilename:       {old}\n")
    assert ok("unload", "--all").count("unloading patch module: ") == 2
    assert ok("unload", "--all") == ""
    assert ok("uninstall", "plp-foreign.ko") == f"uninstalling plp-foreign.ko ({RELEASE})\n"
    assert ok("uninstall", "-k", RELEASE, "plp_cmdline") == f"uninstalling plp_cmdline ({RELEASE})\n"
    assert not old.exists()
    assert not Store().patches()


@pytest.mark.once
def test_what_it_refuses(payload: Payload, tmp_path: Path) -> None:
    """kpatch's own words for what it refuses, its usage, and the exit code 1."""
    file = payload("plp_cmdline")
    (tmp_path / "text.txt").write_text("x")
    (tmp_path / "text.ko").write_text("x")
    assert failed("load", "/nowhere.ko") == "kpatch: can't find /nowhere.ko\n"
    assert failed("load", "nothing") == "kpatch: can't find nothing\n"
    assert failed("info", "nothing") == "kpatch: can't find nothing\n"
    assert failed("install") == "kpatch: no module file specified\n"
    assert failed("install", "/nowhere.ko") == "kpatch: /nowhere.ko doesn't exist\n"
    assert failed("install", tmp_path / "text.txt") == f"kpatch: {tmp_path}/text.txt isn't a .ko file\n"
    assert "text.ko" in failed("load", tmp_path / "text.ko")
    wrong = failed("install", "--kernel-version=1.2.3", file)
    assert wrong == f"kpatch: invalid module version {RELEASE} for kernel 1.2.3\n"
    assert failed("uninstall", "nothing") == f"kpatch: nothing is not installed for kernel {RELEASE}\n"
    assert failed("uninstall", "a/b.ko") == "kpatch: please supply patch module name without path\n"
    assert failed("install", "-x", file).endswith("kpatch: getopt failed\n")
    for words in ([], ["help"], ["load"], ["load", "a", "b"], ["list", "x"], ["frobnicate"]):
        assert "usage: kpatch <command> [<args>]\n" in failed(*words)
    assert failed("frobnicate").startswith("subcommand frobnicate not recognized\n")
    assert re.fullmatch(r"\d+\.\d+\.\d+\n", ok("version"))


@pytest.mark.once
def test_a_transition_that_stalls(payload: Payload, sleeper: Callable[..., Sleeper]) -> None:
    """A task that holds a load up is shown, and the module unloaded."""
    start = sleeper()
    done = kpatch("load", payload("plp_hold"), POST_ENABLE_WAIT=5.0, POST_SIGNAL_WAIT=5.0)
    assert done.returncode == 1, done
    assert "patch transition has stalled!\n" in done.stdout
    assert f"\nStalled processes:\n{start.process.pid} " in done.stdout
    assert "\nstack:\n[<0>] " in done.stdout
    assert "module plp_hold did not complete its transition, unloading...\n" in done.stdout
    assert done.stderr.endswith("kpatch: error: failed to load module plp_hold (transition stalled)\n")
    assert "Skipping manual process signaling." in done.stderr
    assert not Path("/sys/module/plp_hold").exists()
    assert parameter("plp_target", "sleepers") == "1"


@pytest.mark.once
def test_force(payload: Payload, core: object, log: KernelLog) -> None:
    """Without a transition there is nothing to signal and nothing to force."""
    assert ok("signal") == ""
    assert ok("force") == ""
