# SPDX-License-Identifier: MIT
"""Bad input: each has its own exception and words, and leaves the kernel exactly as it was."""

from __future__ import annotations

import errno
import lzma
import os
import shutil
import struct
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import MODULES, KernelLog, cmdline, parameter
from support import said, unchanged

from pylivepatch import (
    BadDataError,
    Core,
    ModuleFile,
    ModuleFileError,
    PatchNotFoundError,
    PatchRejectedError,
    PatchState,
    PatchStateError,
    SymbolError,
)
from pylivepatch.preflight import checks

Payload = Callable[[str], Path]
SIGNATURE = b"~Module signature appended~\n"
EM_AARCH64 = 183


# ---- files ----


def damaged(tmp_path: Path, how: str, original: Path) -> Path:
    """Make a module file that cannot be loaded."""
    path = tmp_path / "plp_cmdline.ko"
    data = bytearray(original.read_bytes())
    release = os.uname().release.encode()
    if how == "directory":
        path.mkdir()
        return path
    if how == "empty":
        data.clear()
    elif how == "text":
        data[:] = b"#!/bin/sh\n" * 100
    elif how == "truncated":
        del data[len(data) // 2 :]
    elif how == "other kernel":
        assert data.count(b"vermagic=" + release) == 1
        data[:] = data.replace(b"vermagic=" + release, b"vermagic=0" + release[1:])
    elif how == "other machine":
        struct.pack_into("=H", data, 18, EM_AARCH64)
    elif how == "program":
        data[:] = Path("/bin/true").read_bytes()
    path.write_bytes(data)
    return path


@pytest.mark.parametrize(
    ("how", "words"),
    [
        ("directory", "cannot be read"),
        ("empty", "empty"),
        ("text", "not an ELF file"),
        ("truncated", "damaged"),
        ("other kernel", "built for kernel 0"),
        ("other machine", "EM_AARCH64"),
        ("program", "not a kernel module"),
    ],
)
def test_a_file_that_is_no_module_for_this_kernel(
    core: Core, payload: Payload, tmp_path: Path, how: str, words: str
) -> None:
    """A file that is not a live patch module for this kernel is refused before it is loaded, with the reason."""
    path = damaged(tmp_path, how, payload("plp_cmdline"))
    with unchanged(), pytest.raises(ModuleFileError) as info:
        core.load(path)
    assert str(path) in str(info.value)
    assert words in str(info.value)
    assert info.value.after == "nothing has changed"


def test_a_file_that_is_not_there(core: Core, tmp_path: Path) -> None:
    """A missing file is not found, by its name."""
    with unchanged(), pytest.raises(PatchNotFoundError) as info:
        core.load(tmp_path / "none.ko")
    said(info.value, "none.ko")


def test_a_module_without_a_patch(core: Core, payload: Payload) -> None:
    """A module that is not a live patch module is refused, and left to modprobe."""
    with unchanged(), pytest.raises(ModuleFileError, match="not a live patch module") as info:
        core.load(payload("plp_plain"))
    said(info.value, "plp_plain.ko", "insmod")


def test_a_kernel_of_other_options(core: Core, payload: Payload, tmp_path: Path, log: KernelLog) -> None:
    """A module of this release with another vermagic is refused by the kernel, whose words are kept."""
    path = tmp_path / "plp_cmdline.ko"
    data = payload("plp_cmdline").read_bytes()
    before = b"vermagic=" + os.uname().release.encode()
    assert before + b" SMP" in data
    path.write_bytes(data.replace(before + b" SMP", before + b" UMP"))
    log.expect("version magic")
    with unchanged(), pytest.raises(PatchRejectedError, match="version magic") as info:
        core.load(path)
    said(info.value, "plp_cmdline", "build the patch for this kernel")
    assert info.value.errno == errno.ENOEXEC


def test_a_damaged_signature(core: Core, payload: Payload, tmp_path: Path) -> None:
    """A module whose signature cannot be decoded is refused, even where unsigned ones are not."""
    path = tmp_path / "plp_cmdline.ko"
    garbage = bytes(range(64))
    pkcs7 = struct.pack(">5B3xI", 0, 0, 2, 0, 0, len(garbage))
    path.write_bytes(payload("plp_cmdline").read_bytes() + garbage + pkcs7 + SIGNATURE)
    with unchanged(), pytest.raises(PatchRejectedError, match="signature is damaged") as info:
        core.load(path)
    said(info.value, "plp_cmdline", "sign it again")
    assert info.value.errno == errno.EBADMSG


@pytest.mark.parametrize("suffix", ["xz", "zst"])
def test_compressed_modules_load(core: Core, payload: Payload, tmp_path: Path, suffix: str) -> None:
    """A module compressed as distributions do loads as it is."""
    path = tmp_path / f"plp_cmdline.ko.{suffix}"
    if suffix == "xz":
        path.write_bytes(lzma.compress(payload("plp_cmdline").read_bytes(), check=lzma.CHECK_CRC32))
    else:
        subprocess.run(["zstd", "-q", payload("plp_cmdline"), "-o", path], check=True)
    patch = core.load(path)
    assert patch.state is PatchState.REGISTERED
    patch.unload()
    path.write_bytes(path.read_bytes()[:-100])
    with unchanged(), pytest.raises(ModuleFileError, match=r"damaged|not an ELF") as info:
        core.load(path)
    assert str(path) in str(info.value)


# ---- what a patch names ----


@pytest.mark.parametrize(
    ("name", "func", "words", "complaint"),
    [
        ("plp_missing", "plp_no_such_function", "does not exist", "symbol 'plp_no_such_function' not found"),
        ("plp_ambiguous", "type_show", "ambiguous", "unresolvable ambiguity for symbol 'type_show'"),
        ("plp_sympos", "type_show", "does not exist at that sympos", "symbol position 4000 for symbol 'type_show'"),
    ],
)
def test_a_function_that_cannot_be_found(
    core: Core, payload: Payload, log: KernelLog, name: str, func: str, words: str, complaint: str
) -> None:
    """A function that does not exist, or not once, is named; the patch stays registered, nothing more."""
    with open("/proc/kallsyms") as symbols:
        count = sum(line.split()[2:] == [func] for line in symbols)
    assert (count == 0) if name == "plp_missing" else (1 < count < 4000)
    log.expect(complaint)
    patch = core.load(payload(name))
    for _ in range(2):
        with unchanged(), pytest.raises(SymbolError) as info:
            patch.enable()
        said(info.value, name, func, words)
        assert info.value.func == func
        assert info.value.errno == errno.EINVAL
    assert patch.state is PatchState.REGISTERED
    patch.unload()


@pytest.mark.parametrize(("name", "number"), [("plp_twice", errno.EALREADY), ("plp_duplicate", errno.EINVAL)])
def test_a_payload_that_declares_something_twice(
    core: Core, payload: Payload, log: KernelLog, name: str, number: int
) -> None:
    """A payload that registers twice, or names a function twice, is not loaded, and klpctl says why."""
    log.expect(f"klpctl: {name}: .*(registered already|twice)")
    with unchanged(), pytest.raises(PatchRejectedError, match=r"registered already|twice") as info:
        core.load(payload(name))
    said(info.value, name)
    assert info.value.errno == number


# ---- callbacks and parameters ----


@pytest.mark.smoke
def test_a_callback_that_fails(core: Core, payload: Payload, log: KernelLog) -> None:
    """A pre-patch callback's own error number is kept; once its cause is gone, the same patch is enabled."""
    log.expect("pre-patch callback failed")
    log.expect("failed to enable patch")
    patch = core.load(payload("plp_prefail"), params={"fail": -errno.ENOMEDIUM})
    for _ in range(2):
        with unchanged(), pytest.raises(PatchRejectedError) as info:
            patch.enable()
        said(info.value, "plp_prefail", "callback")
        assert info.value.errno == errno.ENOMEDIUM
    assert patch.state is PatchState.REGISTERED
    assert parameter("plp_prefail", "unpost") == "0"
    parameter("plp_prefail", "fail", "0")
    patch.enable()
    assert cmdline() == "cmdline: with callbacks"


MEANINGS = ("EINTR", "EBUSY", "EALREADY", "EPERM", "ENXIO", "ENOENT", "EOPNOTSUPP", "ERESTARTSYS")


def test_a_callback_that_says_what_klpctl_says(core: Core, payload: Payload, log: KernelLog) -> None:
    """A callback's error number is a refusal, whatever else it means: no success, no retry, no other cause."""
    log.expect("pre-patch callback failed")
    log.expect("failed to enable patch")
    patch = core.load(payload("plp_prefail"))
    for tries, name in enumerate(MEANINGS, start=1):
        parameter("plp_prefail", "fail", str(-getattr(errno, name, 512)))
        with unchanged(), pytest.raises(PatchRejectedError, match="callback") as info:
            patch.enable(if_needed=True)
        assert info.value.errno == errno.ECANCELED, name
        assert parameter("plp_prefail", "pre") == str(tries), "it was tried again"


def test_a_function_that_is_taken(core: Core, payload: Payload, log: KernelLog) -> None:
    """A function that a kprobe redirects is not told as another transition, nor tried again; later it is patched."""
    complaint = "failed to register ftrace handler for function 'cmdline_proc_show'"
    log.expect(complaint)
    log.expect("failed to patch object 'vmlinux'")
    log.expect("failed to enable patch 'plp_cmdline'")
    patch = core.load(payload("plp_cmdline"))
    subprocess.run(["insmod", MODULES / "plp_probe.ko", "func=cmdline_proc_show", "post=1"], check=True)
    try:
        with unchanged(), pytest.raises(PatchRejectedError, match="kprobe") as info:
            patch.enable()
        said(info.value, "plp_cmdline")
    finally:
        subprocess.run(["rmmod", "plp_probe"], check=True)
    assert sum(complaint in line for line in log.lines()) == 1
    patch.enable()
    assert cmdline() == "cmdline: patched"


def test_a_foreign_callback_that_fails(core: Core, payload: Payload, log: KernelLog) -> None:
    """An ordinary livepatch module whose callback fails is not loaded; without the failure it is."""
    log.expect("pre-patch callback failed")
    log.expect("failed to enable patch")
    with unchanged(), pytest.raises(PatchRejectedError) as info:
        core.load(payload("plp_foreign"), params={"fail": True})
    said(info.value, "plp_foreign")
    assert info.value.errno == errno.ENOMEDIUM
    patch = core.load(payload("plp_foreign"), params={"fail": False})
    assert patch.state in (PatchState.ENABLING, PatchState.ENABLED)


def test_a_parameter_of_a_wrong_value(core: Core, payload: Payload, log: KernelLog) -> None:
    """A parameter's wrong value is refused in the kernel's words; an unknown one before the kernel is asked."""
    log.expect("invalid for parameter `fail'")
    with unchanged(), pytest.raises(PatchRejectedError, match="parameter") as info:
        core.load(payload("plp_prefail"), params={"fail": "nine"})
    said(info.value, "plp_prefail")
    with unchanged(), pytest.raises(BadDataError, match="colour: the module has no parameter of that name; it takes"):
        core.load(payload("plp_prefail"), params={"colour": "red"})


# ---- files that change ----


def test_what_was_checked_is_what_is_loaded(
    core: Core, payload: Payload, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another file in the place of the one that was checked is not loaded unchecked."""
    path = tmp_path / "plp_cmdline.ko"
    shutil.copy(payload("plp_cmdline"), path)
    refuse = checks.refuse

    def swap(candidate: object) -> None:
        refuse(candidate)  # type: ignore[arg-type]
        shutil.copy(payload("plp_plain"), tmp_path / "new")
        (tmp_path / "new").rename(path)

    monkeypatch.setattr(checks, "refuse", swap)
    with pytest.raises(ModuleFileError):
        # It is read a second time, and found to be what it is.
        core.load(path)
    assert not Path("/sys/module/plp_plain").exists()
    shutil.copy(payload("plp_cmdline"), path)
    readings = iter([refuse, swap])
    monkeypatch.setattr(checks, "refuse", lambda candidate: next(readings)(candidate))
    patch = core.load(path)
    assert (patch.name, patch.state) == ("plp_cmdline", PatchState.REGISTERED)
    assert not Path("/sys/module/plp_plain").exists()


def test_a_reload_of_another_build(core: Core, payload: Payload, tmp_path: Path) -> None:
    """A standalone patch is loaded again from its file only if that is still the same, and still there."""
    path = tmp_path / "plp_foreign.ko"
    shutil.copy(payload("plp_foreign"), path)
    patch = core.load(path, timeout=60)
    patch.revert(timeout=60)
    build = bytes.fromhex(ModuleFile.open(path).build_id)
    path.write_bytes(path.read_bytes().replace(build, build[::-1]))
    with pytest.raises(PatchStateError, match="another build than it was") as info:
        patch.enable(timeout=60)
    assert "unloaded" in info.value.after
    assert not Path("/sys/module/plp_foreign").exists()
    path.unlink()
    with pytest.raises(PatchNotFoundError):
        patch.enable()
