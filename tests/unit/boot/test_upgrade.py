# SPDX-License-Identifier: MIT
"""What a new kernel does not have of what was installed."""

from __future__ import annotations

import json
import shlex
from typing import TYPE_CHECKING

import pytest
from click.testing import CliRunner

from pylivepatch import Store
from pylivepatch.boot.upgrade import missing
from pylivepatch.cli._main import group

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


@pytest.fixture
def store(enabling: Path, build_module: Callable[..., Path]) -> Store:
    """One patch for two older kernels, one for the running kernel too."""
    (enabling / "proc/sys/kernel/random").mkdir()
    (enabling / "proc/sys/kernel/random/boot_id").write_text("boot 1\n")
    store = Store(root=enabling)
    for name, release in (
        ("plp_old", "6.1.0-10-amd64"),
        ("plp_old", "6.1.0-9-amd64"),
        ("plp_kept", "6.1.0-10-amd64"),
        ("plp_kept", store.release),
    ):
        store.install(build_module(name, vermagic=f"{release} SMP"))
    return store


def status(store: Store, *words: str) -> str:
    """What `status` prints."""
    result = CliRunner().invoke(group, ["--root", str(store.root), "status", *words], prog_name="pylivepatch")
    assert result.exit_code == 0
    return result.stdout


def test_the_running_kernel(store: Store) -> None:
    """What is installed for it is not missing; the newest of the others is what to build from, by number."""
    (found,) = missing(store)
    assert (found.name, found.release, found.running) == ("plp_old", store.release, True)
    assert found.installed_for == ("6.1.0-9-amd64", "6.1.0-10-amd64")
    assert found.path == store.patch("plp_old", "6.1.0-10-amd64").path
    info, build = map(shlex.split, found.build)
    assert info == ["pylivepatch", "info", str(found.path), "--diff", ">", "plp_old.diff"]
    assert build == ["pylivepatch", "build", "--release", store.release, "plp_old.diff"]


def test_the_next_kernel(store: Store) -> None:
    """A newer kernel that can be booted is named, too; an older one is not, nor what a removed one has left."""
    modules = store.root / "lib/modules"
    for release in ("6.1.0-999-amd64", "6.1.0-998-amd64", "6.0.0-1-amd64"):
        (modules / release).mkdir(parents=True)
    (store.root / "boot").mkdir()
    for release in ("6.1.0-999-amd64", "6.0.0-1-amd64"):
        (store.root / f"boot/vmlinuz-{release}").touch()
    found = [(each.name, each.release, each.running) for each in missing(store)]
    assert found == [
        ("plp_old", store.release, True),
        ("plp_old", "6.1.0-999-amd64", False),
        ("plp_kept", "6.1.0-999-amd64", False),
    ]


def test_status(store: Store) -> None:
    """`status` names it, with the commands, in both outputs; of one patch, what is missing of that."""
    text = status(store)
    assert "plp_old  installed for 6.1.0-9-amd64, 6.1.0-10-amd64, and not for this kernel" in text
    assert f"pylivepatch build --release {store.release} plp_old.diff" in text
    assert "plp_kept" not in text
    (found,) = json.loads(status(store, "--json"))["missing"]
    assert found["name"] == "plp_old"
    assert json.loads(status(store, "plp_foreign", "--json"))["missing"] == []


def test_nothing_is_installed(enabling: Path) -> None:
    """Where there is no store, nothing is missing."""
    assert missing(Store(root=enabling)) == []


def test_a_damaged_store(store: Store) -> None:
    """What the kernel has is shown all the same."""
    (store.root / "var/lib/pylivepatch/6.1.0-10-amd64/installed.json").write_text("{")
    data = json.loads(status(store, "--json"))
    assert data["missing"] is None
    assert data["patches"]
