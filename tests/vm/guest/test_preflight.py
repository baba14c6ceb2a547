# SPDX-License-Identifier: MIT
"""The preflight: each finding on a real file or a real state of the kernel, before anything changed."""

from __future__ import annotations

import errno
import json
import os
import re
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from conftest import MODULES, KernelLog
from support import cli, unchanged

from pylivepatch import (
    AlreadyError,
    Core,
    Finding,
    ModuleFile,
    ModuleFileError,
    PatchRejectedError,
    Severity,
    Stage,
    TransitionBusyError,
)

Payload = Callable[[str], Path]


def found(core: Core, path: Path, **params: str) -> dict[str, Finding]:
    """The findings by their code; nothing has changed."""
    with unchanged():
        return {finding.code: finding for finding in core.preflight(path, params=params)}


def is_fatal(finding: Finding, subject: str, *words: str, stage: Stage = Stage.LOAD) -> None:
    """Insist that a finding is fatal, is about that, and says what to do."""
    assert (finding.severity, finding.subject, finding.stage) == (Severity.FATAL, subject, stage), finding
    assert all(word in finding.message for word in words), finding
    assert finding.remedy


def changed(tmp_path: Path, original: Path, before: bytes, after: bytes) -> Path:
    """A copy of a module with some bytes changed, wherever they are."""
    data = original.read_bytes()
    assert before in data
    path = tmp_path / original.name
    path.write_bytes(data.replace(before, after))
    return path


@pytest.fixture
def probe() -> Iterator[Callable[..., None]]:
    """Put a kprobe on a function."""

    def load(*parameters: str) -> None:
        subprocess.run(["insmod", MODULES / "plp_probe.ko", *parameters], check=True)

    yield load
    subprocess.run(["rmmod", "plp_probe"], check=True)


def compares(path: Path) -> bool:
    """Tell whether the kernel that a module was built for compares versions of symbols (CONFIG_MODVERSIONS)."""
    return b" modversions" in path.read_bytes()


# ---- the file ----


def test_nothing_to_find(core: Core, payload: Payload) -> None:
    """A patch for this kernel has no finding at all, for root."""
    for name in ("plp_cmdline", "plp_foreign", "plp_cve"):
        assert found(core, payload(name)) == {}, name


def test_another_kernel(core: Core, payload: Payload, tmp_path: Path) -> None:
    """A module for another release, and one for a kernel of other options, are fatal."""
    release = os.uname().release.encode()
    original = payload("plp_cmdline")
    path = changed(tmp_path, original, b"vermagic=" + release, b"vermagic=0" + release[1:])
    is_fatal(found(core, path)["release"], "plp_cmdline.ko", "was built for kernel 0")
    path = changed(tmp_path, original, release + b" SMP", release + b" UMP")
    is_fatal(found(core, path)["vermagic"], "plp_cmdline.ko", "'UMP", "'SMP")


def test_another_version_of_a_symbol(core: Core, payload: Payload, tmp_path: Path, log: KernelLog) -> None:
    """A symbol of another version is fatal, one of the kernel and one of a module; the kernel says so, too."""
    for symbol in (b"module_layout", b"klpctl_register_patch"):
        # An entry is the CRC in 8 bytes, then the name.
        entries = re.findall(rb"(?s).{4}\0{4}" + symbol + rb"\0", payload("plp_cmdline").read_bytes())
        if not compares(payload("plp_cmdline")):
            assert not entries
            continue
        [entry] = entries
        path = changed(tmp_path, payload("plp_cmdline"), entry, b"\x77" * 4 + entry[4:])
        findings = found(core, path)
        assert list(findings) == ["crc"]
        is_fatal(findings["crc"], symbol.decode(), "0x77777777", "the running kernel has 0x")
        log.expect(f"disagrees about version of symbol {symbol.decode()}|Unknown symbol klpctl_register_patch")
        with unchanged(), pytest.raises(PatchRejectedError, match="disagrees about version"):
            core.load(path)


def test_a_symbol_that_nobody_exports(core: Core, payload: Payload, tmp_path: Path) -> None:
    """A symbol that the kernel does not export is fatal."""
    path = changed(tmp_path, payload("plp_cmdline"), b"\0klpctl_unregister_patch\0", b"\0klpctl_unregister_pitch\0")
    is_fatal(found(core, path)["symbol"], "klpctl_unregister_pitch", "does not export")


def test_an_unknown_parameter(core: Core, payload: Payload) -> None:
    """A mistyped parameter is fatal, and those there are are named: the kernel would ignore it in silence."""
    finding = found(core, payload("plp_prefail"), fial="1")["parameter"]
    is_fatal(finding, "fial", "fail, post, pre")
    assert found(core, payload("plp_prefail"), fail="0") == {}


def test_not_a_live_patch(core: Core, payload: Payload) -> None:
    """A module without a patch is fatal, and load refuses it in the same words."""
    finding = found(core, payload("plp_plain"))["not-livepatch"]
    is_fatal(finding, "plp_plain.ko")
    with unchanged(), pytest.raises(ModuleFileError) as info:
        core.load(payload("plp_plain"))
    assert finding.message in str(info.value)
    assert finding.remedy in str(info.value)


# ---- what it replaces ----


@pytest.mark.parametrize(
    ("name", "code", "func", "words"),
    [
        ("plp_missing", "function", "plp_no_such_function", "has no function of that name"),
        ("plp_ambiguous", "ambiguous", "type_show", "no sympos says which"),
        ("plp_sympos", "function", "type_show", "sympos 4000 is meant"),
    ],
)
def test_a_function_that_cannot_be_found(
    core: Core, payload: Payload, name: str, code: str, func: str, words: str
) -> None:
    """A function that is not there, or not once, stands in the way of enabling; how many there are is told."""
    with open("/proc/kallsyms") as symbols:
        count = sum(line.split()[2:] == [func] for line in symbols)
    finding = found(core, payload(name))[code]
    is_fatal(finding, func, words, stage=Stage.ENABLE)
    assert count == 0 or f"{count} symbols" in finding.message
    core.load(payload(name)).unload()


def test_an_object_that_is_not_loaded(core: Core, payload: Payload) -> None:
    """A target that is not loaded is no hindrance; when it is loaded its functions are looked for."""
    finding = found(core, payload("plp_module"))["object"]
    assert (finding.severity, finding.subject) == (Severity.INFO, "plp_target")
    subprocess.run(["insmod", payload("plp_target")], check=True)
    assert found(core, payload("plp_module")) == {}


def test_relocations_that_are_not_undone(core: Core, payload: Payload) -> None:
    """Relocations for a module are a warning where the kernel does not undo them, with klpctl and without."""
    with Core("sysfs") as sysfs:
        findings = [found(each, payload("plp_many")).get("reloc-clear") for each in (core, sysfs)]
    with open("/proc/kallsyms") as symbols:
        clears = any(line.split()[2] == "clear_relocate_add" for line in symbols)
    assert [finding is None for finding in findings] == [clears, clears]
    assert clears or all(finding and finding.severity is Severity.WARNING for finding in findings)
    assert clears or all(finding and finding.subject == "plp_target" for finding in findings)


@pytest.mark.smoke
def test_an_owner_of_the_function(
    core: Core, payload: Payload, probe: Callable[..., None], log: KernelLog
) -> None:
    """A kprobe with a post-handler on a target function is fatal before the load, and the kernel would refuse it."""
    probe("post=1")
    finding = found(core, payload("plp_foreign"))["owner"]
    is_fatal(finding, "loadavg_proc_show", "post-handler")
    log_before = log.lines()
    with unchanged(), pytest.raises(PatchRejectedError) as info:
        core.load(payload("plp_foreign"))
    assert finding.message in str(info.value)
    assert info.value.errno == errno.EBUSY
    assert log.lines() == log_before
    log.expect("failed to register ftrace handler for function 'loadavg_proc_show'")
    log.expect("failed to patch object 'vmlinux'")
    log.expect("failed to enable patch 'plp_foreign'")
    assert subprocess.run(["insmod", payload("plp_foreign")], capture_output=True, check=False).returncode


def test_a_kprobe_on_the_function(core: Core, payload: Payload, probe: Callable[..., None]) -> None:
    """A kprobe that only looks is no hindrance, and is named."""
    probe()
    findings = found(core, payload("plp_foreign"))
    assert list(findings) == ["kprobe"]
    assert (findings["kprobe"].severity, findings["kprobe"].subject) == (Severity.INFO, "loadavg_proc_show")
    core.load(payload("plp_foreign"))


# ---- what is there already ----


def test_a_module_of_that_name(core: Core, payload: Payload, tmp_path: Path) -> None:
    """A name that is taken is fatal: by the same build, by another, and by the patch that is enabled."""
    patch = core.load(payload("plp_cmdline"))
    is_fatal(found(core, payload("plp_cmdline"))["applied"], "plp_cmdline", "registered", "this very patch")
    build = bytes.fromhex(ModuleFile.open(payload("plp_cmdline")).build_id)
    path = changed(tmp_path, payload("plp_cmdline"), build, build[::-1])
    is_fatal(found(core, path)["loaded"], "plp_cmdline", "another build")
    patch.enable()
    assert set(found(core, path)) == {"loaded"}
    finding = found(core, payload("plp_cmdline"))["applied"]
    is_fatal(finding, "plp_cmdline", "it is enabled")
    with unchanged(), pytest.raises(AlreadyError) as info:
        core.load(payload("plp_cmdline"))
    assert finding.message in str(info.value)
    with unchanged():
        assert core.load(payload("plp_cmdline"), if_needed=True) == patch
        done = cli("check", payload("plp_cmdline"))
    assert (done.returncode, done.stdout.splitlines()[-1]) == (10, "plp_cmdline: loaded already")


def test_patches_that_are_enabled(core: Core, payload: Payload) -> None:
    """A patch of the same function is named, and so is one that would be replaced; neither is in the way."""
    core.load(payload("plp_cmdline")).enable()
    assert {code: finding.severity for code, finding in found(core, payload("plp_cmdline2")).items()} == {
        "stacked": Severity.INFO
    }
    finding = found(core, payload("plp_replace"))["replaces"]
    assert (finding.severity, finding.subject) == (Severity.INFO, "plp_cmdline")


def test_a_running_transition(core: Core, payload: Payload, sleeper: Callable[..., object]) -> None:
    """A running transition stands in the way of loading an ordinary patch, and of enabling a registered one."""
    sleeper()
    core.load(payload("plp_hold")).enable(wait=False)
    is_fatal(found(core, payload("plp_cmdline"))["transition"], "plp_hold", "is in transition", stage=Stage.ENABLE)
    finding = found(core, payload("plp_foreign"))["transition"]
    is_fatal(finding, "plp_hold", "is in transition")
    with unchanged(), pytest.raises(TransitionBusyError) as info:
        core.load(payload("plp_foreign"))
    assert finding.message in str(info.value)
    assert info.value.patch == "plp_hold"
    core["plp_hold"].revert(wait=False)


# ---- who asks ----


def test_without_klpctl(payload: Payload) -> None:
    """A patch that registers needs klpctl."""
    with Core("sysfs") as core:
        is_fatal(found(core, payload("plp_cmdline"))["klpctl"], "klpctl")
        assert found(core, payload("plp_foreign")) == {}


def test_an_ordinary_user(payload: Payload) -> None:
    """Who is not root is told what was not checked, and finds what everybody can."""
    with unchanged():
        done = cli("check", payload("plp_foreign"), "--json", user=True)
    assert done.returncode == 0, done
    findings = json.loads(done.stdout)["findings"]
    assert {each["code"] for each in findings} == {"not-checked"}
    subjects = {each["subject"] for each in findings}
    assert {"kprobes", "ftrace"} <= subjects
    assert ("crc" in subjects) is compares(payload("plp_foreign"))
    assert cli("check", payload("plp_missing"), user=True).returncode == 8


def test_the_command(payload: Payload, tmp_path: Path) -> None:
    """`check` prints all findings at once, exits with 8 for a fatal one, and has a schema."""
    release = os.uname().release.encode()
    path = changed(tmp_path, payload("plp_ambiguous"), b"vermagic=" + release, b"vermagic=0" + release[1:])
    with unchanged():
        done = cli("check", path, "colour=red")
        data = cli("check", path, "colour=red", "--json")
        good = cli("check", payload("plp_cmdline"), "--json")
        none = cli("check", tmp_path / "none.ko")
    assert (done.returncode, data.returncode, good.returncode, none.returncode) == (8, 8, 0, 4)
    for words in ("release", "ambiguous", "type_show", "colour", "cannot be loaded"):
        assert words in done.stdout
    result = json.loads(data.stdout)
    assert set(result) == {"schema", "file", "name", "fatal", "findings"}
    assert result["fatal"]
    keys = {"code", "severity", "subject", "message", "remedy", "stage"}
    assert all(set(finding) == keys for finding in result["findings"])
    assert [finding["severity"] for finding in result["findings"]] == ["fatal"] * 3
    assert json.loads(good.stdout) == {
        "schema": 1, "file": str(payload("plp_cmdline")), "name": "plp_cmdline", "fatal": False, "findings": [],
    }  # fmt: skip
