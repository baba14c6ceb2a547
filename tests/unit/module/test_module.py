# SPDX-License-Identifier: MIT
"""Module files, read before anything is loaded: real ELF files made by the compiler."""

from __future__ import annotations

import gzip
import lzma
import subprocess
from typing import TYPE_CHECKING

import pytest
import zstandard

from pylivepatch import ModuleFile, ModuleFileError, PatchNotFoundError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

REGISTER = """
extern int klpctl_register_patch(void *);
int init(void) { return klpctl_register_patch(0); }
"""
COMPRESS: dict[str, Callable[[bytes], bytes]] = {"xz": lzma.compress, "gz": gzip.compress, "zst": zstandard.compress}


def test_plain(build_module: Callable[..., Path]) -> None:
    """A live patch module tells its name, its kernel and what it needs."""
    file = ModuleFile.open(build_module("plp_tiny", depends="klpctl,ext4"))
    assert (file.name, file.release, file.machine) == ("plp_tiny", "6.1.0-1", "EM_X86_64")
    assert file.vermagic == "6.1.0-1 SMP mod_unload"
    assert file.depends == ("klpctl", "ext4")
    assert file.livepatch
    assert not file.payload
    assert not file.signed
    assert file.relocated == ()


def test_payload(build_module: Callable[..., Path]) -> None:
    """A module that calls klpctl_register_patch() is a payload."""
    assert ModuleFile.open(build_module(extra=REGISTER)).payload


def test_relocations(build_module: Callable[..., Path]) -> None:
    """Objects with livepatch relocations are known by their sections' names."""
    extra = '__attribute__((section(".klp.rela.ext4.text.unlikely"), used)) int a = 1;'
    assert ModuleFile.open(build_module(extra=extra)).relocated == ("ext4",)


def test_signature(build_module: Callable[..., Path]) -> None:
    """An appended signature is noticed, and does no harm."""
    path = build_module()
    with path.open("ab") as file:
        file.write(b"\x30\x82 something ~Module signature appended~\n")
    assert ModuleFile.open(path).signed


def test_name_of_the_file(build_module: Callable[..., Path]) -> None:
    """Without name= in the module its file's name counts, as the kernel spells it."""
    path = build_module("plp-old", name="")
    assert ModuleFile.open(path).name == "plp_old"


@pytest.mark.parametrize("suffix", ["xz", "gz", "zst"])
def test_compressed(build_module: Callable[..., Path], suffix: str) -> None:
    """A compressed module reads as the plain one does."""
    plain = build_module()
    packed = plain.with_name(f"{plain.name}.{suffix}")
    packed.write_bytes(COMPRESS[suffix](plain.read_bytes()))
    assert ModuleFile.open(packed).name == ModuleFile.open(plain).name


@pytest.mark.parametrize("suffix", ["xz", "gz", "zst"])
def test_damaged_compression(build_module: Callable[..., Path], suffix: str) -> None:
    """A compressed module that is cut off is refused."""
    data = build_module().read_bytes()
    path = build_module().with_suffix(f".ko.{suffix}")
    path.write_bytes(COMPRESS[suffix](data)[:-40])
    with pytest.raises(ModuleFileError):
        ModuleFile.open(path)


def test_missing(tmp_path: Path) -> None:
    """A file that is not there is not found."""
    with pytest.raises(PatchNotFoundError, match=r"no module file .*gone\.ko"):
        ModuleFile.open(tmp_path / "gone.ko")


def test_directory(tmp_path: Path) -> None:
    """A directory is no module."""
    with pytest.raises(ModuleFileError, match="cannot be read"):
        ModuleFile.open(tmp_path)


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"", "it is empty"),
        (b"#!/bin/sh\n", "not an ELF file"),
        (b"\x7fELF", "it is damaged"),
        (b"\x7fELF" + bytes(60), "it is damaged"),
        (b"\x7fELF" + b"\xff" * 4096, "it is damaged"),
    ],
)
def test_not_a_module(tmp_path: Path, content: bytes, why: str) -> None:
    """What is no ELF file is refused, with the reason."""
    path = tmp_path / "bad.ko"
    path.write_bytes(content)
    with pytest.raises(ModuleFileError, match=why) as error:
        ModuleFile.open(path)
    assert error.value.filename == str(path)
    assert "nothing has changed" in str(error.value)


def test_an_object_is_not_a_module(tmp_path: Path) -> None:
    """An ELF object without .modinfo is no kernel module."""
    path = tmp_path / "plain.ko"
    subprocess.run(["gcc", "-c", "-x", "c", "-o", path, "-"], input=b"int a;", check=True)
    with pytest.raises(ModuleFileError, match="not a kernel module"):
        ModuleFile.open(path)


def test_cut_off_anywhere(build_module: Callable[..., Path]) -> None:
    """A module that is cut off at any place is refused, or read; nothing else happens."""
    path = build_module(extra=REGISTER)
    data = path.read_bytes()
    for length in range(4, len(data), 101):
        path.write_bytes(data[:length])
        try:
            ModuleFile.open(path)
        except ModuleFileError:
            continue


def test_damaged_anywhere(build_module: Callable[..., Path]) -> None:
    """A module with a wrong byte anywhere is refused, or read; nothing else happens."""
    path = build_module(extra=REGISTER)
    data = path.read_bytes()
    for place in range(4, len(data), 61):
        path.write_bytes(data[:place] + bytes([data[place] ^ 0xFF]) + data[place + 1 :])
        try:
            ModuleFile.open(path)
        except ModuleFileError:
            continue


def test_check(build_module: Callable[..., Path]) -> None:
    """A live patch module for this kernel passes; every other is refused with the reason."""
    file = ModuleFile.open(build_module())
    file.check("6.1.0-1", "x86_64")
    with pytest.raises(ModuleFileError, match=r"built for kernel 6\.1\.0-1, and this is .* 6\.12"):
        file.check("6.12", "x86_64")
    with pytest.raises(ModuleFileError, match="this machine is EM_AARCH64"):
        file.check("6.1.0-1", "aarch64")
    with pytest.raises(ModuleFileError, match="not a live patch module"):
        ModuleFile.open(build_module(livepatch="")).check("6.1.0-1", "x86_64")
