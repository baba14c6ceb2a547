# SPDX-License-Identifier: MIT
"""Applying at boot, on captured trees: what is decided before the kernel is asked for anything."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from pylivepatch import (
    BadDataError,
    Boot,
    BootOutcome,
    LivepatchError,
    ModuleFileError,
    Store,
    UnsupportedError,
)
from pylivepatch.boot.store import crash_marker

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    Build = Callable[..., Path]


@pytest.fixture
def root(enabling: Path) -> Path:
    """A machine with plp_foreign enabled."""
    (enabling / "proc/sys/kernel/random").mkdir()
    reboot(enabling, 1)
    (enabling / "proc/cmdline").write_text("quiet pylivepatch.enable=01 xpylivepatch.enable=0\n")
    return enabling


def reboot(root: Path, number: int) -> None:
    """Have another boot."""
    (root / "proc/sys/kernel/random/boot_id").write_text(f"boot {number}\n")


@pytest.fixture
def store(root: Path) -> Store:
    """Its store."""
    return Store(root=root)


@pytest.fixture
def install(store: Store, build_module: Build) -> Callable[[str], Path]:
    """Install a patch for its kernel."""
    return lambda name: store.install(build_module(name, vermagic=f"{store.release} SMP")).path


def steps(store: Store) -> list[tuple[str, BootOutcome, LivepatchError | None]]:
    """One boot, and an orderly end of it."""
    with Boot(store) as boot:
        return [(step.patch.name, step.outcome, step.error) for step in boot.apply()]


def marker(root: Path) -> list[str]:
    """What is on trial, as the store has it."""
    return [name for path in root.rglob("trying.json") for name in json.loads(path.read_text())["names"]]


def test_nothing_installed(store: Store, root: Path) -> None:
    """Without installed patches nothing happens, and nothing is written."""
    assert steps(store) == []
    assert not (root / "var").exists()


def test_enabled_already(store: Store, root: Path, install: Callable[[str], Path]) -> None:
    """A patch that is enabled is left alone, and not put on trial for that."""
    install("plp_foreign")
    with Boot(store) as boot:
        assert [step.outcome for step in boot.apply()] == [BootOutcome.ALREADY]
        assert boot.on_trial == ()
        assert marker(root) == []


def test_the_kill_switch(store: Store, root: Path, install: Callable[[str], Path]) -> None:
    """With the word on the kernel's command line, and no other, nothing is applied."""
    install("plp_foreign")
    assert not Boot(store).killed
    (root / "proc/cmdline").write_text("quiet pylivepatch.enable=0 ro\n")
    assert Boot(store).killed
    assert steps(store) == []


def test_refused(store: Store, root: Path, install: Callable[[str], Path]) -> None:
    """A damaged module is refused, and the trial of it is over: it has changed nothing."""
    install("plp_tiny").write_bytes(b"no module")
    with Boot(store) as boot:
        (step,) = boot.apply()
        assert (step.patch.name, step.outcome) == ("plp_tiny", BootOutcome.FAILED)
        assert isinstance(step.error, ModuleFileError)
        assert boot.on_trial == ()
        assert marker(root) == []


def test_a_failure_stops_no_other(store: Store, root: Path, install: Callable[[str], Path]) -> None:
    """One that fails does not keep the next from being applied."""
    install("plp_tiny").write_bytes(b"no module")
    install("plp_foreign")
    assert [outcome for _, outcome, _ in steps(store)] == [BootOutcome.FAILED, BootOutcome.ALREADY]


def test_crashed(store: Store, root: Path, install: Callable[[str], Path]) -> None:
    """What crashed is not applied, again and again, until it is installed again."""
    install("plp_foreign")
    crash_marker(store).begin("plp_foreign")
    for number in (2, 3):
        reboot(root, number)
        assert steps(store) == [("plp_foreign", BootOutcome.CRASHED, None)]
    install("plp_foreign")
    assert [outcome for _, outcome, _ in steps(store)] == [BootOutcome.ALREADY]


def test_an_exception_ends_the_trial(store: Store, root: Path, install: Callable[[str], Path]) -> None:
    """Leaving the block in any way is an orderly end, and no crash."""
    install("plp_foreign")
    crash_marker(store).begin("plp_foreign")

    def interrupted() -> None:
        with Boot(store) as boot:
            assert [step.outcome for step in boot.apply()] == [BootOutcome.ALREADY]
            assert boot.on_trial == ("plp_foreign",)
            assert marker(root) == ["plp_foreign"]
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert marker(root) == []
    reboot(root, 2)
    assert [patch.crashed for patch in store.patches()] == [False]


def test_no_livepatch(store: Store, root: Path, install: Callable[[str], Path]) -> None:
    """On a kernel without livepatch nothing is applied, and nothing stays on trial."""
    install("plp_foreign")
    (root / "sys/kernel/livepatch").rename(root / "sys/kernel/moved")
    with pytest.raises(UnsupportedError):
        steps(store)
    assert marker(root) == []


def test_a_damaged_store(store: Store, root: Path, install: Callable[[str], Path]) -> None:
    """With a damaged crash memory nothing is applied."""
    install("plp_foreign").with_name("trying.json").write_text("?")
    with pytest.raises(BadDataError):
        steps(store)
