# SPDX-License-Identifier: MIT
"""Names that cannot be, things in the wrong order, and what the machine lacks: nothing changes."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from support import CLONE_NEWNS, attempt, cli, forked, said, unchanged

from pylivepatch import (
    BadDataError,
    Core,
    PatchNotFoundError,
    PatchStateError,
    UnsupportedError,
)

pytestmark = pytest.mark.once

Payload = Callable[[str], Path]
LONG = "a" * 300
NAMES = ["", " ", "plp cmdline", "../plp_cmdline", "..", ".", "a/b", LONG, "plp_cmdline\0", "plp\ncmdline", "plp_é"]


@pytest.mark.parametrize("name", NAMES, ids=[ascii(name)[:20] for name in NAMES])
def test_a_name_that_cannot_be_one(core: Core, payload: Payload, name: str) -> None:
    """A string that cannot name a module is refused."""
    core.load(payload("plp_cmdline"))
    with unchanged():
        for find in (core.patch, core.__getitem__):
            with pytest.raises(BadDataError, match="is not the name of a patch") as info:
                find(name)
            said(info.value)
            assert len(str(info.value)) < 250


@pytest.mark.parametrize("command", ["enable", "revert", "unload", "status", "force --accept-risk"])
def test_a_name_that_cannot_be_one_is_a_matter_of_usage(core: Core, payload: Payload, command: str) -> None:
    """On the command line, that is exit code 2."""
    core.load(payload("plp_cmdline"))
    with unchanged():
        done = cli(*command.split(), "--", "../plp_cmdline")
        assert (done.returncode, done.stdout) == (2, ""), done


def test_a_patch_that_is_not_there(core: Core, payload: Payload) -> None:
    """An unknown name, one that is a module but no patch, and a patch that is gone are not found."""
    patch = core.load(payload("plp_cmdline"))
    patch.unload()
    with unchanged():
        for operation in (
            lambda: core.patch("plp_cmdline"),
            lambda: core["klpctl"],
            lambda: core.patch("vmlinux"),
            patch.enable,
            patch.revert,
            patch.unload,
            lambda: patch.force(accept_risk=True),
            patch.status,
        ):
            with pytest.raises(PatchNotFoundError) as info:
                operation()
            said(info.value, "there is no")


def test_loading_twice(core: Core, payload: Payload) -> None:
    """A module that is loaded cannot be loaded again, under any file name."""
    core.load(payload("plp_cmdline"))
    with unchanged(), pytest.raises(PatchStateError, match="loaded already") as info:
        core.load(payload("plp_cmdline"))
    said(info.value, "plp_cmdline")


def test_force_needs_a_transition_and_the_risk(core: Core, payload: Payload) -> None:
    """Nothing is forced without the keyword, nor outside a transition."""
    patch = core.load(payload("plp_cmdline"))
    patch.enable()
    with unchanged(), pytest.raises(BadDataError, match="risk"):
        patch.force(accept_risk=1)  # type: ignore[arg-type]
    with unchanged(), pytest.raises(PatchStateError, match="not in transition") as info:
        patch.force(accept_risk=True)
    said(info.value, "plp_cmdline")


@pytest.mark.parametrize("params", [{"a b": 1}, {"": 1}, {"fail": "1\n"}, {"fail": '"'}, {"fail": "\0"}])
def test_a_parameter_that_cannot_be_passed(core: Core, payload: Payload, params: dict[str, str]) -> None:
    """Parameters that the kernel would read as something else are refused before it is asked."""
    with unchanged(), pytest.raises(BadDataError, match="parameter"):
        core.load(payload("plp_prefail"), params=params)


# ---- what the machine lacks ----


def test_klpctl_is_loaded_for_root_alone(core: Core) -> None:
    """Where klpctl is installed but not loaded, root gets it loaded; others are told what to do."""
    core.close()
    subprocess.run(["rmmod", "klpctl"], check=True)
    try:
        [events, insist] = attempt(
            lambda core: core.features.require("events"), lambda _: Core("klpctl"), backend="auto"
        )
        assert events[0] == insist[0] == "UnsupportedError"
        assert "klpctl is not used" in events[1]
        assert "klpctl is not loaded" in insist[1]
        assert all("as root" in words for _, words in (events, insist))
        assert not Path("/sys/module/klpctl").exists()
        with Core() as again:
            assert again.backend == "klpctl"
        assert Path("/sys/module/klpctl").exists()
    finally:
        subprocess.run(["modprobe", "klpctl"], check=True)


def test_a_kernel_without_livepatch(core: Core) -> None:
    """Where /sys/kernel/livepatch does not exist (it is hidden from one process) it is said what is missing."""

    def hide_and_look() -> None:
        subprocess.run(["mount", "--make-rprivate", "/"], check=True)
        subprocess.run(["mount", "-t", "tmpfs", "none", "/sys/kernel"], check=True)
        for backend in ("auto", "klpctl", "sysfs"):
            with pytest.raises(UnsupportedError, match=r"no livepatch core.*CONFIG_LIVEPATCH"):
                Core(backend)  # type: ignore[arg-type]

    with unchanged():
        done = forked(hide_and_look, namespaces=CLONE_NEWNS)
    assert (done.returncode, done.stderr) == (0, "")


def test_a_backend_that_does_not_exist() -> None:
    """An unknown backend is refused, with those that are known."""
    with unchanged(), pytest.raises(BadDataError, match="klpctl or sysfs"):
        Core("kpatch")  # type: ignore[arg-type]
