# SPDX-License-Identifier: MIT
"""What is known about a patch: from its file, and when it is loaded; and which CVEs are fixed in what runs."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from conftest import MODULES
from support import cli

from pylivepatch import (
    BadDataError,
    Core,
    Func,
    Object,
    PatchInfo,
    PatchState,
    Stacked,
    UnsupportedError,
)

Payload = Callable[[str], Path]
CVES = ("CVE-2026-1234", "CVE-2026-123456")
STORE = Path("/var/lib/pylivepatch", os.uname().release)


def settled(core: Core, name: str) -> None:
    """Wait until an ordinary patch, which is enabled by being loaded, is enabled."""
    transition = core[name].transition
    if transition:
        transition.wait()


@pytest.fixture
def store() -> Iterator[Path]:
    """Where installed patches are, empty again afterwards."""
    STORE.mkdir(parents=True, exist_ok=True)
    yield STORE
    shutil.rmtree(STORE)


@pytest.mark.parametrize(
    "name",
    ["plp_cmdline", "plp_replace", "plp_module", "plp_states", "plp_many", "plp_sympos", "plp_foreign", "plp_cve"],
)
def test_the_file_says_what_the_kernel_says(core: Core, payload: Payload, name: str) -> None:
    """Objects, functions, sympos, replace and kind, read from the file, are those that the loaded patch has."""
    info = PatchInfo.open(payload(name))
    status = core.load(payload(name)).status()
    assert info.objects is not None
    # Of a standalone patch sysfs tells the objects, where 1 stands for a unique name, too.
    unique = 0 if status.registered else 1
    assert {part.name: {(func.name, func.sympos or unique) for func in part.funcs} for part in info.objects} == {
        part.name: {(func.name, func.sympos) for func in part.funcs} for part in status.objects
    }
    assert (info.replace, info.registered) == (status.replace, status.registered)
    assert (info.file and info.file.path, info.status, info.stack) == (payload(name), None, None)
    settled(core, name)


def test_every_form_of_declaration(payload: Payload) -> None:
    """Several objects and functions, an object without functions, callbacks: all are read in their order."""
    info = PatchInfo.open(payload("plp_many"))
    assert info.objects == (
        Object("plp_target", (Func("plp_target_show"),)),
        Object(
            "vmlinux",
            (Func("cmdline_proc_show"), Func("type_show", 2), Func("type_show", 3), Func("tcp_v4_rcv")),
        ),
        Object("ext4", ()),
    )
    assert info.replace is True
    assert info.unreadable == ""


@pytest.mark.once
def test_what_cannot_be_read(payload: Payload) -> None:
    """A module without a patch of its own is not readable, and says why."""
    info = PatchInfo.open(payload("plp_plain"))
    assert info.objects is None
    assert "no struct klp_patch" in info.unreadable


@pytest.mark.once
def test_what_a_file_carries(payload: Payload) -> None:
    """CVEs, source diff, description, author, licence, version and parameters are in the file."""
    info = PatchInfo.open(payload("plp_cve"))
    assert info.cves == CVES
    assert info.diff == "--- a/fs/proc/version.c\n+++ b/fs/proc/version.c\n"
    assert (info.description, info.version) == ("Test patch that says what it fixes", "1.2")
    assert (info.authors, info.license) == (("A. Tester",), "GPL")
    assert [(each.name, each.type, each.description) for each in info.parameters] == [
        ("cve", "charp", "what the patch fixes")
    ]
    plain = PatchInfo.open(payload("plp_cmdline"))
    assert (plain.cves, plain.diff, plain.parameters, plain.version) == ((), None, (), "")


@pytest.mark.once
def test_a_loaded_patch_whose_file_is_not_known(core: Core, payload: Payload) -> None:
    """A loaded patch answers for itself: its functions by the kernel, its CVEs by its parameter, or not at all."""
    core.load(payload("plp_cve"))
    core.load(payload("plp_cmdline"))
    info = core.info("plp-cve")
    assert (info.file, info.diff, info.cves) == (None, None, CVES)
    assert info.objects == (Object("vmlinux", (Func("version_proc_show"),)),)
    assert info.stack == ()
    assert core.info("plp_cmdline").cves is None


@pytest.mark.once
def test_a_loaded_patch_whose_file_is_installed(core: Core, payload: Payload, store: Path) -> None:
    """The file of a loaded patch is found where it is installed, if it is the very build that is loaded."""
    core.load(payload("plp_cmdline"))
    shutil.copy(payload("plp_cmdline2"), store / "plp_cmdline.ko")
    assert core.info("plp_cmdline").file is None
    shutil.copy(payload("plp_cmdline"), store / "plp_cmdline.ko")
    info = core.info("plp_cmdline")
    assert info.file
    assert info.file.path == store / "plp_cmdline.ko"
    assert (info.cves, info.description) == ((), "Test patch of /proc/cmdline")


@pytest.mark.parametrize("backend", ["klpctl", "sysfs"])
def test_stacked_functions(core: Core, payload: Payload, backend: str) -> None:
    """Patches of one function are told in the order in which they were enabled, not loaded."""
    first, second = (core.load(payload(name)) for name in ("plp_cmdline", "plp_cmdline2"))
    states = core.load(payload("plp_states"))

    def stack(name: str) -> tuple[Stacked, ...] | None:
        with Core(backend) as other:  # type: ignore[arg-type]
            return other.info(name).stack

    second.enable()
    first.enable()
    assert stack("plp_cmdline") == (Stacked("vmlinux", "cmdline_proc_show", ("plp_cmdline2",), ()),)
    assert stack("plp_cmdline2") == (Stacked("vmlinux", "cmdline_proc_show", (), ("plp_cmdline",)),)
    first.revert()
    assert stack("plp_cmdline") == ()
    states.enable()
    first.enable()
    below = ("plp_cmdline2", "plp_states")
    assert stack("plp_cmdline") == (Stacked("vmlinux", "cmdline_proc_show", below, ()),)
    assert Path("/proc/cmdline").read_text() == "cmdline: patched\n"


@pytest.mark.once
def test_is_it_fixed(core: Core, payload: Payload) -> None:
    """A CVE is fixed when a patch that names it is enabled: not before, and not after."""
    patch = core.load(payload("plp_cve"))
    assert core.fixes(CVES[0]) == []
    patch.enable()
    for cve in (*CVES, CVES[0].lower()):
        assert [info.name for info in core.fixes(cve)] == ["plp_cve"]
    assert core.fixes("CVE-2026-12345") == []
    with pytest.raises(BadDataError, match="not the name of a CVE"):
        core.fixes("2026-1234")
    patch.revert()
    assert core.fixes(CVES[0]) == []


@pytest.mark.once
def test_list_by_cve(core: Core, payload: Payload) -> None:
    """`list --cve` names the enabled patches, or exits with 4 and says what would fix it and what is not known."""
    patch = core.load(payload("plp_cve"))
    core.load(payload("plp_cmdline")).enable()
    done = cli("list", "--cve", CVES[1])
    assert (done.returncode, done.stdout) == (4, "")
    for words in (CVES[1], "plp_cve would fix it", "of plp_cmdline it is not known"):
        assert words in done.stderr
    patch.enable()
    done = cli("list", "--cve", CVES[1], "--json")
    assert done.returncode == 0
    assert [each["name"] for each in json.loads(done.stdout)["patches"]] == ["plp_cve"]
    assert cli("list", "--cve", "2026-1234").returncode == 2


@pytest.mark.once
def test_the_command(core: Core, payload: Payload) -> None:
    """`info` shows a file and a loaded patch alike, for people, as JSON, and the diff alone."""
    core.load(payload("plp_cve")).enable()
    file, name = (json.loads(cli("info", what, "--json").stdout) for what in (payload("plp_cve"), "plp_cve"))
    assert set(file) == set(name) == {
        "name", "file", "state", "forced", "progress", "confirmation", "registered", "replace", "objects", "unreadable",
        "stack", "cves", "description", "version", "license", "authors", "vermagic", "depends", "signed",
        "parameters", "diff", "proof", "schema",
    }  # fmt: skip
    assert (file["state"], name["state"]) == (None, "enabled")
    assert file["objects"] == name["objects"]
    assert file["cves"] == name["cves"] == list(CVES)
    assert cli("info", payload("plp_cve"), "--diff").stdout.startswith("--- a/fs/proc/version.c\n")
    text = cli("info", payload("plp_many")).stdout
    for words in ("plp_target_show", "type_show,3", "registers with klpctl", "yes, all patches"):
        assert words in text
    assert cli("info", "plp_gone").returncode == 4
    assert cli("info", MODULES / "gone.ko").returncode == 4


@pytest.mark.once
def test_an_ordinary_user(core: Core, payload: Payload) -> None:
    """Who is not root is told the same."""
    core.load(payload("plp_cve")).enable()
    assert cli("info", payload("plp_cve"), user=True).stdout == cli("info", payload("plp_cve")).stdout
    assert json.loads(cli("info", "plp_cve", "--json", user=True).stdout)["cves"] == list(CVES)
    assert cli("list", "--cve", CVES[0], user=True).returncode == 0


@pytest.mark.once
def test_replaced_patches_are_unloaded_by_policy(core: Core, payload: Payload) -> None:
    """`enable --unload-replaced` leaves the new patch alone, and wants one that is to stay."""
    core.load(payload("plp_cmdline")).enable()
    core.load(payload("plp_replace"))
    for word in (["--no-wait"], ["--confirm-within", "60"]):
        assert cli("enable", "plp_replace", "--unload-replaced", *word).returncode == 2
    assert core["plp_cmdline"].state is PatchState.ENABLED
    assert cli("enable", "plp_replace", "--unload-replaced").returncode == 0
    assert [status.name for status in core.status()] == ["plp_replace"]


def test_replaced_patches_are_unloaded(core: Core, payload: Payload) -> None:
    """Patches that another one replaced are unloaded on request, registered and ordinary ones, and no other."""
    core.load(payload("plp_foreign"))
    settled(core, "plp_foreign")
    for name in ("plp_cmdline", "plp_replace"):
        core.load(payload(name)).enable()
    core.load(payload("plp_cve"))
    assert core["plp_cmdline"].state is PatchState.REPLACED
    done = cli("unload", "--replaced", "--json")
    assert done.returncode == 0, done
    assert sorted(json.loads(done.stdout)["unloaded"]) == ["plp_cmdline", "plp_foreign"]
    assert {status.name: status.state for status in core.status()} == {
        "plp_replace": PatchState.ENABLED,
        "plp_cve": PatchState.REGISTERED,
    }
    assert core.unload_replaced() == []
    with Core("sysfs") as sysfs, pytest.raises(UnsupportedError):
        sysfs.unload_replaced()
    assert cli("unload").returncode == cli("unload", "plp_cve", "--replaced").returncode == 2
