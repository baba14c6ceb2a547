# SPDX-License-Identifier: MIT
"""The core, on captured trees."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, cast

import pytest

from pylivepatch import (
    BadDataError,
    Core,
    ModuleFileError,
    PatchNotFoundError,
    PatchStateError,
    UnsupportedError,
)

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


def test_captured_tree(enabling: Path) -> None:
    """A captured tree is read by the backend sysfs, and says which kernel it is of."""
    with Core(root=enabling) as core:
        assert core.backend == "sysfs"
        assert core.release.startswith("6.1.0-")
        assert "6.1.0-" in repr(core)


def test_iteration_and_lookup(enabling: Path) -> None:
    """The core is a mapping: names to patches."""
    with Core(root=enabling) as core:
        assert sorted(core) == ["plp_cmdline", "plp_foreign", "plp_hold"]
        assert len(core) == 3
        assert {patch.name for patch in core.values()} == set(core) == {patch.name for patch in core.patches()}
        assert "plp-hold" in core
        assert core["plp_hold"] in core
        assert "gone" not in core
        assert "no name" not in core
        assert core.get("gone") is None
        assert core["plp-foreign"] == core.patch("plp_foreign")
        with pytest.raises(PatchNotFoundError):
            core["gone"]
        with pytest.raises(KeyError):
            core["gone"]


@pytest.mark.parametrize("name", ["../plp_foreign", "plp foreign", "", "x" * 300])
def test_bad_names(enabling: Path, name: str) -> None:
    """A name that cannot be is refused before anything is read."""
    with Core(root=enabling) as core, pytest.raises(BadDataError):
        core[name]


def test_bad_backend(enabling: Path) -> None:
    """A backend that nobody has heard of is refused, and klpctl on a captured tree."""
    with pytest.raises(BadDataError, match="unknown backend"):
        Core(cast("Literal['auto']", "magic"), root=enabling)
    with pytest.raises(BadDataError, match="captured tree"):
        Core("klpctl", root=enabling)


def test_no_livepatch(tmp_path: Path) -> None:
    """Without a livepatch core there is no Core."""
    with pytest.raises(UnsupportedError, match="no livepatch core"):
        Core(root=tmp_path)


def test_no_events(enabling: Path) -> None:
    """There is no monitor without klpctl, and the error says what is missing."""
    with Core(root=enabling) as core, pytest.raises(UnsupportedError) as error:
        core.monitor()
    assert error.value.feature == "events"


def test_load_checks_the_file(enabling: Path, build_module: Callable[..., Path]) -> None:
    """A file for another kernel, or one that is not there, is refused before it is loaded."""
    with Core(root=enabling) as core:
        with pytest.raises(PatchNotFoundError):
            core.load(enabling / "gone.ko")
        with pytest.raises(ModuleFileError, match="built for kernel 5"):
            core.load(build_module(vermagic="5.0 SMP"))
        with pytest.raises(ModuleFileError, match="not a live patch module"):
            core.load(build_module(livepatch=""))
        with pytest.raises(BadDataError, match="parameter"):
            core.load(build_module(), params={"a": "x\ny"})


def test_load_twice(enabling: Path, build_module: Callable[..., Path]) -> None:
    """A module whose name is taken is refused."""
    with Core(root=enabling) as core:
        path = build_module("plp_foreign", vermagic=f"{core.release} SMP")
        with pytest.raises(PatchStateError, match="loaded already"):
            core.load(path)


def test_load_without_klpctl(enabling: Path, build_module: Callable[..., Path]) -> None:
    """A payload is not loaded when klpctl is not used."""
    register = "extern int klpctl_register_patch(void); int a(void) { return klpctl_register_patch(); }"
    with Core(root=enabling) as core:
        path = build_module(extra=register, vermagic=f"{core.release} SMP")
        with pytest.raises(UnsupportedError, match="registers with klpctl"):
            core.load(path)
