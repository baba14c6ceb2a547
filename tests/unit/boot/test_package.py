# SPDX-License-Identifier: MIT
"""Patches as Debian packages: what is in them, and what is refused."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from pylivepatch import BadDataError, ModuleFile, ModuleFileError
from pylivepatch.boot import package

Build = Callable[..., Path]
IMAGE = "6.1.1-1"


def field(path: Path, name: str) -> str:
    """A field of the control file."""
    done = subprocess.run(["dpkg-deb", "--field", path, name], check=True, capture_output=True, text=True)
    return done.stdout.rstrip("\n")


def test_what_is_in_a_package(build_module: Build, tmp_path: Path) -> None:
    """The module, the exact kernel it depends on, what it fixes, scripts a shell can read; twice the same bytes."""
    module = build_module(
        "plp_Fix", description="Two\twords", cve="CVE-2026-1234", parm="text:a text", parmtype="on:bool"
    )
    made = package.write(
        module, tmp_path / "a.deb", image=IMAGE, version="1.2", params={"text": "it's two", "on": True}
    )
    assert field(made, "Package") == "livepatch-plp-fix-6.1.0-1"
    assert field(made, "Version") == "1.2"
    image = "linux-image-6.1.0-1"
    assert field(made, "Depends") == f"pylivepatch, {image} (= {IMAGE}) | {image}-unsigned (= {IMAGE})"
    assert "Two words" in field(made, "Description")
    assert "Fixes CVE-2026-1234." in field(made, "Description")
    tree = tmp_path / "tree"
    subprocess.run(["dpkg-deb", "--raw-extract", made, tree], check=True)
    assert (tree / "usr/lib/pylivepatch/patches/6.1.0-1/plp_Fix.ko").read_bytes() == module.read_bytes()
    for script in ("postinst", "prerm"):
        subprocess.run(["sh", "-n", tree / "DEBIAN" / script], check=True)
    assert """ 'text=it'"'"'s two' on=Y >""" in (tree / "DEBIAN/postinst").read_text()
    again = package.write(
        module, tmp_path / "b.deb", image=IMAGE, version="1.2", params={"text": "it's two", "on": True}
    )
    assert again.read_bytes() == made.read_bytes()


def test_a_check_is_quoted(build_module: Build) -> None:
    """A command is passed as it is; a standalone patch, which nobody can confirm, has none."""
    standalone = ModuleFile.open(build_module("plp_fix"))
    with pytest.raises(BadDataError, match="is a standalone patch"):
        package.contents(standalone, {}, "true")
    registers = "extern int klpctl_register_patch(void *); int (*used)(void *) = klpctl_register_patch;"
    held = package.contents(ModuleFile.open(build_module("plp_fix", registers)), {}, "test 'a b' = \"$X\" && {}")
    script = held["DEBIAN/postinst"].decode()
    subprocess.run(["sh", "-n"], input=script, text=True, check=True)
    assert """ --check 'test '"'"'a b'"'"' = "$X" && {}' >""" in script


def test_its_usual_name(build_module: Build, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a name it is called as apt would call it, in the current directory."""
    monkeypatch.chdir(tmp_path)
    assert package.write(build_module("plp_fix"), image=IMAGE) == Path("livepatch-plp-fix-6.1.0-1_1_amd64.deb")


def test_what_is_refused(build_module: Build, tmp_path: Path) -> None:
    """What would not be a package says so, and none is made."""
    module, output = build_module("plp_fix"), tmp_path / "a.deb"
    with pytest.raises(BadDataError, match=r"linux-image-6\.1\.0-1 is not known: it is not installed here"):
        package.write(module, output)
    unknown = {"params": {"a": 1}}
    for wrong in ({"version": "one"}, {"image": "1 2"}, {"maintainer": "nobody"}, {"params": {"a": '"'}}, unknown):
        with pytest.raises(BadDataError):
            package.write(module, output, **{"image": IMAGE, **wrong})
    with pytest.raises(ModuleFileError):
        package.write(build_module("plp_other", livepatch=""), output, image=IMAGE)
    assert not output.exists()


def test_the_scripts_name_the_patch(build_module: Build) -> None:
    """A file that is spelled otherwise than its module is stored by the module's name."""
    module = build_module("plp-fix", name="plp_fix")
    held = package.contents(ModuleFile.open(module), {})
    assert set(held) == {"usr/lib/pylivepatch/patches/6.1.0-1/plp_fix.ko", "DEBIAN/postinst", "DEBIAN/prerm"}
