# SPDX-License-Identifier: MIT
"""The kernel that a patch is for: what is given is data, and decides about no program of its own."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from pylivepatch import BadDataError, BuildError, PatchNotFoundError, UnsupportedError
from pylivepatch.build import for_release
from pylivepatch.build.target import Given, Target


@pytest.fixture
def given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Given:
    """All that is needed of a kernel that is not a distribution's."""
    monkeypatch.setenv("PYLIVEPATCH_CACHE", str(tmp_path / "cache"))
    for name in ("source", "headers", "modules"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "Makefile").touch()
    found = Given(source=tmp_path / "source", headers=tmp_path / "headers", modules=tmp_path / "modules",
                  config=tmp_path / "config", image=Path("/bin/true"))  # fmt: skip
    configured(found, "gcc (Debian) 12.2.0")
    return found


def configured(given: Given, compiler: str) -> None:
    """Write a configuration that names a compiler."""
    given["config"].write_text(f'CONFIG_X=y\nCONFIG_CC_VERSION_TEXT="{compiler}"\n')


def target(given: Given) -> Target:
    """Return the kernel."""
    return for_release("1.2.3-given", **given)


def test_the_compiler_of_the_configuration(given: Given) -> None:
    """It is a gcc, by a name that is found in PATH."""
    assert shutil.which(target(given).compiler)


@pytest.mark.parametrize(
    "name", ["./evil", "{top}/evil", "evil", "../evil-gcc", "gcc/../evil", "clang", "-gcc", "gcc;x"])
def test_a_configuration_names_no_program_of_its_own(given: Given, tmp_path: Path, name: str,
                                                     monkeypatch: pytest.MonkeyPatch) -> None:  # fmt: skip
    """It is refused, and what it names did not run."""
    for each in ("evil", "evil-gcc"):
        (tmp_path / each).write_text(f"#!/bin/sh\ntouch {tmp_path}/ran\n")
        (tmp_path / each).chmod(0o755)
    monkeypatch.chdir(tmp_path)
    configured(given, name.format(top=tmp_path) + " (x) 99.0.0")
    with pytest.raises(UnsupportedError, match="--compiler"):
        target(given)
    assert not (tmp_path / "ran").exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root must not run the Makefiles of others")
@pytest.mark.parametrize("name", ["source", "headers"])
def test_root_runs_no_makefile_of_another_user(given: Given, name: str) -> None:
    """Whether the directory or its Makefile is another user's, or may be written by everybody."""
    folder: Path = given[name]  # type: ignore[literal-required]
    assert target(given)
    for path, spoil, mend in [
        (folder, lambda path: os.chown(path, 65534, -1), lambda path: os.chown(path, 0, -1)),
        (folder / "Makefile", lambda path: os.chown(path, 65534, -1), lambda path: os.chown(path, 0, -1)),
        (folder / "Makefile", lambda path: path.chmod(0o666), lambda path: path.chmod(0o644)),
    ]:
        spoil(path)
        with pytest.raises(BuildError, match="would run as root") as caught:
            target(given)
        assert (caught.value.kind, caught.value.file) == ("owner", str(path))
        mend(path)
    assert target(given)


def test_paths_are_text_or_paths(given: Given, tmp_path: Path) -> None:
    """What is given may be spelled as text; what is not there is named, and is an error of this package."""
    paths = ("source", "config", "image", "headers", "modules")
    assert target(Given(**{name: str(given[name]) for name in paths})) == target(given)
    for name in paths:
        with pytest.raises(PatchNotFoundError, match="there is no /nonexistent"):
            target(Given(**{**given, name: "/nonexistent"}))
    with pytest.raises(BadDataError, match=r"expected MAJOR\.MINOR"):
        for_release("../6.1")
