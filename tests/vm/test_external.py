# SPDX-License-Identifier: MIT
"""Modules that are not of the kernel's tree: patched from their own source, as loaded and as loaded later."""

from __future__ import annotations

import difflib
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pylivepatch import BadDataError, BuildError, MismatchError, lab
from pylivepatch.build import BuildResult, Target, build, for_series
from pylivepatch.lab import cache

TOP = Path(__file__).parents[2]
SOURCE = TOP / "tests/vm/external"
NAME = f"external{os.getpid()}"
"""Of the directories that are given as sources: what is built of one is kept by its name, and no other run has this."""
HEADER = ("part/count.h", "return 2;", "return 3;")
NAMES = ("part/count.c", '"odd" : "even"', '"ODD" : "EVEN"')
COUNT = ("part/count.c", "count += plp_step();", "count += plp_step() + (*name(count) == 'E');")
WARNING = ("part/count.c", "WARN_ON(!count);", "WARN_ON(!count);\n\tWARN_ON(count == 7);")


@pytest.fixture(scope="module")
def target(pytestconfig: pytest.Config) -> Target:
    """The kernel that the modules are for."""
    return for_series(pytestconfig.getoption("kernel"))


@pytest.fixture(scope="module")
def in_use(target: Target, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """The modules as somebody has built them, in a directory of theirs."""
    return lab.build_module(target.kernel, SOURCE, tmp_path_factory.mktemp("in-use"))


@pytest.fixture(autouse=True)
def trees() -> Iterator[None]:
    """Remove what is built of the sources here."""
    yield
    for kind in ("external", "builds"):
        for path in (cache.root() / kind).glob(f"*{NAME}-*"):
            shutil.rmtree(path)


@pytest.fixture
def own(tmp_path: Path) -> Path:
    """A copy of the source."""
    return Path(shutil.copytree(SOURCE, tmp_path / "own" / NAME))


@pytest.fixture
def built(target: Target, in_use: list[Path], own: Path, tmp_path: Path) -> Callable[..., BuildResult]:
    """Build a patch of some edits of the source."""
    def do(*edits: tuple[str, str, str], source: Path = own, **more: object) -> BuildResult:
        path = tmp_path / "plp_external.diff"
        path.write_text(diff(edits))
        given = {"module_files": in_use, **more}
        return build([path], target=target, output=path.with_suffix(".ko"), module_source=source, **given)

    return do


def diff(edits: tuple[tuple[str, str, str], ...]) -> str:
    """Return the unified diff that some edits are."""
    files: dict[str, str] = {}
    for file, old, new in edits:
        text = files.get(file) or (SOURCE / file).read_text()
        assert text.count(old) == 1
        files[file] = text.replace(old, new)
    return "".join(
        line for name, text in files.items() for line in difflib.unified_diff(
            (SOURCE / name).read_text().splitlines(keepends=True), text.splitlines(keepends=True),
            f"a/{name}", f"b/{name}"))


def test_in_a_guest(
    built: Callable[..., BuildResult], in_use: list[Path], own: Path, tmp_path: Path, pytestconfig: pytest.Config,
) -> None:
    """The patch reaches both modules, whether they are loaded before it or after it, and goes as it came."""
    before = {path: path.stat().st_mtime_ns for path in own.rglob("*")}
    result = built(HEADER, NAMES, COUNT)
    assert {(func.object, func.name) for func in result.functions} == {
        ("plp_own", "name"), ("plp_own", "plp_count"), ("plp_other", "show")}
    assert {path: path.stat().st_mtime_ns for path in own.rglob("*")} == before
    for path in in_use:
        shutil.copy(path, tmp_path)
    status = lab.run(["python3", str(TOP / "tests/vm/alone/external.py"), str(tmp_path)],
                     kernel=pytestconfig.getoption("kernel"), shares=[TOP, tmp_path], cpus=1, timeout=900)
    assert status == 0


def test_another_source_is_caught(built: Callable[..., BuildResult], tmp_path: Path) -> None:
    """A source that is not what the module in use was built of is not taken for it."""
    source = tmp_path / NAME
    shutil.copytree(SOURCE, source)
    path = source / "part/count.c"
    path.write_text(path.read_text().replace("check();", "check();\n\tcheck();"))
    with pytest.raises(MismatchError, match=r"plp_count\(\) of part/count.c is not what runs"):
        built(HEADER, source=source)


def test_the_same_input_gives_the_same_bytes(built: Callable[..., BuildResult]) -> None:
    """Nothing of the directories that a build uses is in the module: a warning names its file without them."""
    first = built(WARNING).path.read_bytes()
    assert built(WARNING).path.read_bytes() == first
    assert b"pylivepatch-build-" not in first


def test_what_is_missing_is_named(built: Callable[..., BuildResult], tmp_path: Path) -> None:
    """A module that is nowhere to be found, a directory that is no source of modules, one that does not build."""
    with pytest.raises(MismatchError, match=r"no module plp_\w+(.|\n)*--module-file"):
        built(NAMES, module_files=[])
    empty = tmp_path / NAME
    empty.mkdir()
    with pytest.raises(BadDataError, match="neither Kbuild nor Makefile"):
        built(NAMES, source=empty)
    (empty / "Kbuild").write_text("obj-m := broken.o\n")
    (empty / "broken.c").write_text("int x = y;\n")
    with pytest.raises(BuildError, match=r"does not build(.|\n)*broken.c:1") as caught:
        built(NAMES, source=empty)
    assert caught.value.kind == "compile"


def test_make_arguments(built: Callable[..., BuildResult], in_use: list[Path], tmp_path: Path) -> None:
    """What make is told besides decides what is compiled, as when the module in use was built."""
    source = tmp_path / NAME
    shutil.copytree(SOURCE, source)
    kbuild = source / "Kbuild"
    kbuild.write_text(kbuild.read_text().replace("obj-m :=", "obj-$(PLP) :="))
    with pytest.raises(BadDataError, match="makes no module"):
        built(NAMES, source=source)
    assert built(NAMES, source=source, module_make=["PLP=m"]).functions


def test_paths_of_the_kernel_mean_nothing_here(
    built: Callable[..., BuildResult], target: Target, tmp_path: Path,
) -> None:
    """A file is not judged as the kernel's own of that name would be; what decides about the build still is."""
    source = tmp_path / NAME
    shutil.copytree(SOURCE, source)
    (source / "part").rename(source / "tools")
    for name in ("Kbuild", "main.c", "other.c"):
        path = source / name
        path.write_text(path.read_text().replace("part/count", "tools/count"))
    path = tmp_path / "tools.diff"
    path.write_text(diff((NAMES,)).replace("part/", "tools/"))
    (tmp_path / "in-use").mkdir()
    files = lab.build_module(target.kernel, source, tmp_path / "in-use")  # its own path is in the code
    result = build([path], target=target, module_source=source, module_files=files, dry_run=True)
    assert [func.source for func in result.functions] == ["tools/count.c"]
    with pytest.raises(BuildError, match="Kbuild cannot be patched"):
        built(("Kbuild", "main.o", "main2.o"))
