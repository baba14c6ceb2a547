# SPDX-License-Identifier: MIT
"""The store of installed patches, in a tree of its own."""

from __future__ import annotations

import contextlib
import json
import lzma
import os
import resource
import signal
import stat
import subprocess
from typing import TYPE_CHECKING

import pytest

from pylivepatch import BadDataError, KernelError, ModuleFileError, PatchNotFoundError, Store
from pylivepatch.boot import files
from pylivepatch.boot.marker import CrashMarker
from pylivepatch.boot.store import crash_marker

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    Build = Callable[..., Path]

RELEASE = "6.1.0-1"
OTHER = "6.12.3+deb12-amd64"


def boot(root: Path, release: str = RELEASE, number: int = 1) -> Path:
    """Have a kernel run in the tree."""
    kernel = root / "proc/sys/kernel"
    (kernel / "random").mkdir(parents=True, exist_ok=True)
    (kernel / "osrelease").write_text(f"{release}\n")
    (kernel / "random/boot_id").write_text(f"{number:08}-0000-4000-8000-000000000000\n")
    return root


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A machine."""
    return boot(tmp_path / "root")


@pytest.fixture
def store(root: Path) -> Store:
    """Its store."""
    return Store(root=root)


def content(root: Path) -> dict[str, bytes]:
    """All files of the store, but its lock."""
    files = (path for path in (root / "var").rglob("*") if path.is_file() and path.name != ".lock")
    return {str(path.relative_to(root)): path.read_bytes() for path in files}


def test_install(store: Store, build_module: Build, root: Path) -> None:
    """The file is copied to the release that it is for; the original may go."""
    path = build_module("plp_tiny", parm="a:words", parmtype="b:bool")
    data = path.read_bytes()
    patch = store.install(path, params={"a": "two words", "b": True})
    path.unlink()
    assert patch.path == root / f"var/lib/pylivepatch/{RELEASE}/plp_tiny.ko"
    assert patch.path.read_bytes() == data
    assert store.patches() == [patch]
    assert patch.params == {"a": "two words", "b": "Y"}
    assert (patch.name, patch.release, patch.crashed) == ("plp_tiny", RELEASE, False)
    assert stat.S_IMODE(patch.path.parent.stat().st_mode) & 0o022 == 0


def test_install_twice(store: Store, build_module: Build, root: Path) -> None:
    """Installing the same again changes nothing."""
    store.install(build_module("plp_tiny"))
    before = content(root)
    store.install(build_module("plp_tiny"))
    assert content(root) == before


def test_order(store: Store, build_module: Build) -> None:
    """Patches keep the order in which they were installed; one that is replaced keeps its place."""
    names = ["plp_c", "plp_a", "plp_b"]
    for name in names:
        store.install(build_module(name))
    fresh = store.install(build_module("plp_a", description="new", parm="x:an x"), params={"x": 2})
    patches = store.patches()
    assert [patch.name for patch in patches] == names
    assert patches[1] == fresh
    assert fresh.path.read_bytes() == build_module("plp_a", description="new", parm="x:an x").read_bytes()


def test_compressed(store: Store, build_module: Build) -> None:
    """A compressed file stays compressed, and takes the place of a plain one."""
    plain = store.install(build_module("plp_tiny"))
    packed = build_module("plp_tiny").with_name("other-name.ko.xz")
    packed.write_bytes(lzma.compress(build_module("plp_tiny").read_bytes()))
    patch = store.install(packed)
    assert patch.path.name == "plp_tiny.ko.xz"
    assert not plain.path.exists()
    assert store.patches() == [patch]


def test_releases(store: Store, build_module: Build, root: Path) -> None:
    """Each kernel release has its own patches."""
    store.install(build_module("plp_one"))
    store.install(build_module("plp_two", vermagic=f"{OTHER} SMP"))
    assert store.releases() == sorted([RELEASE, OTHER])
    assert [patch.name for patch in store.patches()] == ["plp_one"]
    assert [patch.name for patch in store.patches(OTHER)] == ["plp_two"]
    assert [patch.name for patch in Store(root=boot(root, OTHER)).patches()] == ["plp_two"]


@pytest.mark.parametrize(
    ("modinfo", "why"),
    [
        ({"livepatch": ""}, "not a live patch module"),
        ({"vermagic": ""}, "a kernel that it does not name"),
    ],
)
def test_refused_files(store: Store, build_module: Build, root: Path, modinfo: dict[str, str], why: str) -> None:
    """What could not be loaded is not installed, and no trace of it is left."""
    with pytest.raises(ModuleFileError, match=why):
        store.install(build_module(**modinfo), release=RELEASE)
    assert not (root / "var").exists()


def test_another_release(store: Store, build_module: Build, root: Path) -> None:
    """A file for another kernel than the one that was asked for is refused."""
    with pytest.raises(ModuleFileError, match=r"built for kernel 6\.1\.0-1"):
        store.install(build_module(), release=OTHER)
    assert not (root / "var").exists()


@pytest.mark.parametrize("release", ["", "..", ".", "../../etc", "a/b", "a b", "a\n"])
def test_bad_releases(store: Store, release: str) -> None:
    """A release cannot lead out of the store, whoever says it."""
    with pytest.raises(BadDataError):
        store.patches(release)
    with pytest.raises(BadDataError):
        store.uninstall("plp_tiny", release)


@pytest.mark.parametrize("release", ["..", "../../etc", "/etc"])
def test_bad_releases_in_files(store: Store, build_module: Build, root: Path, release: str) -> None:
    """Not even a file that was made for that leads out of the store."""
    with pytest.raises(BadDataError):
        store.install(build_module(vermagic=f"{release} SMP"))
    assert not (root / "var").exists()


def test_bad_parameters(store: Store, build_module: Build, root: Path) -> None:
    """A parameter that cannot be passed, or that the module does not have, is refused before anything is written."""
    module = build_module(parm="a:a text")
    with pytest.raises(BadDataError, match="quotes"):
        store.install(module, params={"a": 'quo"te'})
    with pytest.raises(BadDataError, match="no parameter of that name; it takes a") as caught:
        store.install(module, params={"timeout": 30})
    assert "ignore" in caught.value.remedy
    assert not (root / "var").exists()


def test_missing_file(store: Store, tmp_path: Path) -> None:
    """There has to be a file."""
    with pytest.raises(PatchNotFoundError):
        store.install(tmp_path / "none.ko")


def test_uninstall(store: Store, build_module: Build, root: Path) -> None:
    """A patch goes with its file; with the last one goes the directory."""
    one, two = store.install(build_module("plp_one")), store.install(build_module("plp_two"))
    assert store.uninstall("plp-one") == one
    assert store.patches() == [two]
    assert not one.path.exists()
    store.uninstall("plp_two")
    assert content(root) == {}
    assert not two.path.parent.exists()
    assert store.releases() == []


def test_uninstall_what_is_not_there(store: Store, build_module: Build) -> None:
    """The error names the releases that it is installed for."""
    store.install(build_module("plp_two", vermagic=f"{OTHER} SMP"))
    with pytest.raises(PatchNotFoundError, match=f"installed for {OTHER}".replace("+", r"\+")):
        store.uninstall("plp_two")
    with pytest.raises(PatchNotFoundError, match="install its file first"):
        store.uninstall("plp_three")
    assert store.uninstall("plp_two", OTHER).release == OTHER


@pytest.mark.parametrize("damage", [b"", b"{", b"[]", b'{"patches": [{}]}', b'{"patches": 3}', b"\xff"])
def test_a_damaged_index(store: Store, build_module: Build, damage: bytes) -> None:
    """A damaged index is said to be damaged; it is not taken for an empty one."""
    patch = store.install(build_module())
    index = patch.path.with_name("installed.json")
    index.write_bytes(damage)
    for attempt in (store.patches, lambda: store.install(build_module()), lambda: store.uninstall("plp_tiny")):
        with pytest.raises(BadDataError, match="damaged"):
            attempt()
    assert index.read_bytes() == damage


def test_a_damaged_marker(store: Store, build_module: Build) -> None:
    """A marker that cannot be read stops everything: nobody knows which patch crashed the machine."""
    marker = store.install(build_module()).path.with_name("trying.json")
    marker.write_bytes(b"{")
    with pytest.raises(BadDataError, match="damaged"):
        store.patches()


def test_a_name_in_the_index_stays_in_the_store(store: Store, build_module: Build) -> None:
    """Whatever the index says, a file of the store is meant."""
    patch = store.install(build_module())
    index = patch.path.with_name("installed.json")
    index.write_text(index.read_text().replace("plp_tiny.ko", "../../../../etc/plp_tiny.ko"))
    assert store.patches() == [patch]


def test_crashes(root: Path, build_module: Build) -> None:
    """What was on trial in another boot has crashed; what is on trial in this one has not."""
    store = Store(root=root)
    for name in ("plp_one", "plp_two"):
        store.install(build_module(name))
    crash_marker(store).begin("plp_two")
    assert [patch.crashed for patch in store.patches()] == [False, False]
    store = Store(root=boot(root, number=2))
    assert [patch.crashed for patch in store.patches()] == [False, True]
    assert [patch.crashed for patch in store.remember_crashes()] == [False, True]
    assert not list(root.rglob("trying.json"))
    assert [patch.crashed for patch in store.patches()] == [False, True]
    store.install(build_module("plp_two"))
    assert [patch.crashed for patch in store.patches()] == [False, False]


def test_install_forgets_a_crash_that_nobody_wrote_down(root: Path, build_module: Build) -> None:
    """After a crash and a boot with the kill switch the marker is still there; installing again counts."""
    store = Store(root=root)
    for name in ("plp_one", "plp_two"):
        store.install(build_module(name))
        crash_marker(store).begin(name)
    boot(root, number=2)
    store.install(build_module("plp_one"))
    boot(root, number=3)
    assert [patch.crashed for patch in store.remember_crashes()] == [False, True]


def test_a_trial_is_of_one_kernel(root: Path, build_module: Build) -> None:
    """A crash of one kernel is remembered while another one runs."""
    store = Store(root=root)
    store.install(build_module("plp_one"))
    crash_marker(store).begin("plp_one")
    boot(root, OTHER, 2)
    assert store.remember_crashes() == []
    boot(root, RELEASE, 3)
    assert [patch.crashed for patch in store.remember_crashes()] == [True]


def test_the_marker(root: Path, build_module: Build) -> None:
    """It holds the names in the order of their trials, each once, and goes with the last."""
    path = Store(root=root).install(build_module("plp_one")).path.with_name("trying.json")
    trial = CrashMarker(path.parent, "this")
    for name in ("plp_one", "plp_two", "plp_one"):
        trial.begin(name)
    assert json.loads(path.read_text()) == {"boot": "this", "names": ["plp_two", "plp_one"]}
    assert CrashMarker(path.parent, "this").names == ("plp_two", "plp_one")
    assert CrashMarker(path.parent, "that").names == ()
    trial.drop("plp_one")
    assert json.loads(path.read_text())["names"] == ["plp_two"]
    trial.end()
    assert not path.exists()
    trial.end()


@contextlib.contextmanager
def no_room() -> Iterator[None]:
    """A process whose files may not grow beyond some bytes: not for longer than needed, since its output may be one."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, ignored)


def test_no_room(build_module: Build, store: Store, root: Path) -> None:
    """When the file system refuses, the store is as before, and the error says why."""
    store.install(build_module("plp_one"))
    two, before = build_module("plp_two"), content(root)
    with no_room(), pytest.raises(KernelError, match="nothing has changed"):
        store.install(two)
    assert content(root) == before


def test_the_umask_does_not_matter(store: Store, build_module: Build, root: Path) -> None:
    """Nobody but root may write what boot will act upon, nor read an embargoed fix."""
    before = os.umask(0)
    try:
        patch = store.install(build_module("plp_one"))
        crash_marker(store).begin("plp_one")
    finally:
        os.umask(before)
    top = root / "var/lib/pylivepatch"
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in [top, *top.rglob("*")]}
    assert modes == {
        "pylivepatch": 0o700, RELEASE: 0o700, ".lock": 0o600,
        patch.path.name: 0o644, "installed.json": 0o644, "trying.json": 0o644,
    }  # fmt: skip


@pytest.mark.parametrize("name", ["", RELEASE, f"{RELEASE}/installed.json", f"{RELEASE}/plp_one.ko"])
def test_what_others_may_write_is_refused(store: Store, build_module: Build, root: Path, name: str) -> None:
    """A store that others can write would have root load their code at the next boot."""
    store.install(build_module("plp_one"))
    path = root / "var/lib/pylivepatch" / name
    path.chmod(path.stat().st_mode | 0o020)
    with pytest.raises(BadDataError, match="may be written by others"):
        store.patches()
    path.chmod(path.stat().st_mode & ~0o020)
    assert len(store.patches()) == 1


def test_a_lock_that_is_held(store: Store, build_module: Build, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The holder is named after a while, and nothing has changed; a lock on the directory keeps nobody out."""
    store.install(build_module("plp_one"))
    before = content(root)
    monkeypatch.setattr(files, "_PATIENCE", 0.2)
    top = root / "var/lib/pylivepatch"
    for path, refused in ((top / ".lock", True), (top, False)):
        command = ["flock", "-x", path, "sh", "-c", "echo held; exec sleep 60"]
        with subprocess.Popen(command, stdout=subprocess.PIPE, start_new_session=True) as holder:
            assert holder.stdout is not None
            holder.stdout.readline()
            try:
                if refused:
                    with pytest.raises(KernelError, match=r"process \d+ holds its lock; nothing has changed"):
                        store.install(build_module("plp_two"))
                    assert content(root) == before
                else:
                    store.install(build_module("plp_two"))
            finally:
                os.killpg(holder.pid, signal.SIGKILL)


def test_what_was_checked_is_what_is_stored(
    store: Store, build_module: Build, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file that is another when the lock has been had is not stored unchecked."""
    path = build_module("plp_one")
    checked = path.read_bytes()
    lock = files.exclusive_lock

    def slow(where: Path) -> contextlib.AbstractContextManager[None]:
        path.write_bytes(b"not what was checked")
        return lock(where)

    monkeypatch.setattr(files, "exclusive_lock", slow)
    assert store.install(path).path.read_bytes() == checked
