# SPDX-License-Identifier: MIT
"""What may be loaded and unloaded when, and what is left behind: nothing."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from conftest import MODULES, KernelLog, Sleeper, cmdline, parameter, until

from pylivepatch import Core, PatchState

Payload = Callable[[str], Path]
CYCLES = int(os.environ.get("PLP_CYCLES", "20"))
CACHES = ("kmalloc-", "kernfs_node_cache", "ftrace_event_field", "task_struct")


@pytest.fixture
def without_klpctl() -> Iterator[None]:
    """The kernel without klpctl; afterwards with it."""
    subprocess.run(["rmmod", "klpctl"], check=False)
    yield
    subprocess.run(["modprobe", "klpctl"], check=True)


def insmod(name: str, *, check: bool = True) -> int:
    """Load a test module as an operator would."""
    return subprocess.run(["insmod", MODULES / f"{name}.ko"], check=check, capture_output=True).returncode


def rmmod(name: str) -> bool:
    """Unload a module; say whether the kernel let it go."""
    return subprocess.run(["rmmod", name], check=False, capture_output=True).returncode == 0


def references(name: str) -> int:
    """The module's reference count."""
    return int(Path("/sys/module", name, "refcnt").read_text())


def test_klpctl_stays_while_a_patch_is_registered(core: Core, payload: Payload) -> None:
    """klpctl cannot be unloaded under a registered patch."""
    patch = core.load(payload("plp_cmdline"))
    assert not rmmod("klpctl")
    patch.enable()
    assert not rmmod("klpctl")
    assert not rmmod("plp_cmdline")
    assert cmdline() == "cmdline: patched"


def test_a_payload_that_goes_without_a_word(core: Core, log: KernelLog) -> None:
    """A payload whose init fails and leaves its patch registered is forgotten with it."""
    log.expect("plp_twice: registered already")
    log.expect("plp_twice: goes without unregistering its patch")
    done = subprocess.run(["insmod", MODULES / "plp_twice.ko", "forget=1"], check=False, capture_output=True)
    assert done.returncode != 0
    assert not Path("/sys/class/livepatch/plp_twice").exists()
    assert "plp_twice" not in [patch.name for patch in core.patches()]


def test_the_core_holds_an_enabled_payload(core: Core, payload: Payload) -> None:
    """The reference count is one while a patch is enabled, and zero before and after."""
    patch = core.load(payload("plp_cmdline"))
    assert references("plp_cmdline") == 0
    patch.enable()
    assert references("plp_cmdline") == 1
    patch.revert()
    until(lambda: references("plp_cmdline") == 0)


def test_klpctl_takes_over_patches_that_were_there_before(without_klpctl: None) -> None:
    """klpctl that is loaded later knows the foreign patches, their objects, and can revert them."""
    insmod("plp_foreign")
    until(lambda: Path("/sys/kernel/livepatch/plp_foreign/transition").read_text() == "0\n")
    subprocess.run(["modprobe", "klpctl"], check=True)
    with Core("klpctl") as core:
        patch = core["plp_foreign"]
        assert patch.state is PatchState.ENABLED
        assert patch.objects[0].funcs[0].name == "loadavg_proc_show"
        assert Path("/sys/class/livepatch/plp_foreign").exists()
        patch.revert()
        patch.unload()


def test_klpctl_takes_over_a_running_transition(without_klpctl: None, sleeper: Callable[..., Sleeper]) -> None:
    """klpctl that is loaded in mid-transition follows it to its end."""
    held = sleeper()
    insmod("plp_foreign_hold")
    assert Path("/sys/kernel/livepatch/plp_foreign_hold/transition").read_text() == "1\n"
    subprocess.run(["modprobe", "klpctl"], check=True)
    with Core("klpctl") as core:
        patch = core["plp_foreign_hold"]
        assert patch.state is PatchState.ENABLING
        transition = patch.transition
        assert transition is not None
        held.wake()
        transition.wait()
        assert patch.state is PatchState.ENABLED
        patch.revert()
        patch.unload()


def test_klpctl_can_go_while_a_foreign_patch_is_enabled() -> None:
    """Unloading klpctl leaves foreign patches as they are."""
    insmod("plp_foreign")
    with Core("klpctl") as core:
        transition = core["plp_foreign"].transition
        if transition:
            transition.wait()
    assert rmmod("klpctl")
    assert Path("/proc/loadavg").read_text() == "loadavg: foreign\n"
    subprocess.run(["modprobe", "klpctl"], check=True)
    with Core("klpctl") as core:
        core["plp_foreign"].revert()
        core["plp_foreign"].unload()


def test_klpctl_can_go_in_mid_transition(sleeper: Callable[..., Sleeper]) -> None:
    """Unloading klpctl in the middle of a foreign patch's transition leaves the transition to the core."""
    held = sleeper()
    insmod("plp_foreign_hold")
    assert rmmod("klpctl")
    held.wake()
    transition = Path("/sys/kernel/livepatch/plp_foreign_hold/transition")
    until(lambda: transition.read_text() == "0\n")
    subprocess.run(["modprobe", "klpctl"], check=True)
    with Core("klpctl") as core:
        core["plp_foreign_hold"].revert()
        core["plp_foreign_hold"].unload()


def test_klpctl_loads_and_unloads_many_times() -> None:
    """klpctl leaves nothing behind: it can be loaded again and again."""
    for _ in range(5):
        assert rmmod("klpctl")
        assert not Path("/sys/class/livepatch").exists()
        assert not Path("/dev/klpctl").exists()
        subprocess.run(["modprobe", "klpctl"], check=True)


def slabs() -> dict[str, int]:
    """Bytes in use of the caches that a leak would show in."""
    usage = {}
    for line in Path("/proc/slabinfo").read_text().splitlines()[2:]:
        name, active, _, size = line.split()[:4]
        if name.startswith(CACHES):
            usage[name] = int(active) * int(size)
    return usage


def test_many_cycles_leave_nothing_behind(core: Core, payload: Payload) -> None:
    """Enabling and reverting over and over without a reload leaks neither references nor memory.

    PLP_CYCLES says how often; a leak of one object per cycle would show in its cache.
    """
    patch = core.load(payload("plp_cmdline"))

    def cycle(times: int) -> None:
        for _ in range(times):
            patch.enable()
            patch.revert()

    cycle(3)
    until(lambda: references("plp_cmdline") == 0)
    before = slabs()
    cycle(CYCLES)
    until(lambda: references("plp_cmdline") == 0)
    Path("/proc/sys/vm/drop_caches").write_text("2")
    after = slabs()
    grown = {name: after[name] - before[name] for name in before if name in after}
    print(f"{CYCLES} cycles; grown: {({k: v for k, v in grown.items() if v})}; kicks {core.features.kicks}")
    if CYCLES >= 500:
        # One kmalloc object per cycle is at least 8 bytes in its cache; noise is pages.
        assert not {name: size for name, size in grown.items() if size > CYCLES * 64}
    assert parameter("klpctl", "fast_completion") == "Y"
    assert references("klpctl") >= 1
