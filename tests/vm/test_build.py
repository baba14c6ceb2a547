# SPDX-License-Identifier: MIT
"""The builder: what it makes of each case of diffs/, and how that does in a guest."""

from __future__ import annotations

import dataclasses
import difflib
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from pylivepatch import BadDataError, BuildError, MismatchError, ModuleFile, lab
from pylivepatch.build import Target, build, for_series, prove
from pylivepatch.build.elf import Object
from pylivepatch.build.tree import prepare
from pylivepatch.build.units import units
from pylivepatch.module.info import PatchInfo
from pylivepatch.module.sign import Signer, unsigned

TOP = Path(__file__).parents[2]
QUICK = "preempt=full"
"""Parameter of a kernel that, where it knows it, does not rewrite its cond_resched() for each transition (from 6.4 to
7.0): that takes a second in an emulated guest. The tests in guest/ have the kernel as it is."""
sys.path.insert(0, str(Path(__file__).parent / "diffs"))

from cases import CASES, INVALID, REFUSED, Case, Edit, Refused, named  # noqa: E402


@pytest.fixture(scope="module")
def target(pytestconfig: pytest.Config) -> Target:
    """The kernel that the patches are for."""
    return for_series(pytestconfig.getoption("kernel"))


@pytest.fixture(scope="module")
def tree(target: Target) -> Path:
    """Its source."""
    return prepare(target).path


@pytest.fixture
def varied(target: Target) -> Iterator[Callable[..., Target]]:
    """Change what the patches are for; a source that is prepared for that is removed at the end."""
    made: set[Path] = set()

    def do(**other: object) -> Target:
        changed = dataclasses.replace(target, **other)  # type: ignore[arg-type]
        made.add(prepare(changed).path)
        return changed

    yield do
    for path in made - {prepare(target).path}:
        shutil.rmtree(path)


@pytest.fixture(scope="module")
def modules(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The directory of all that is built here, and tried in the guest at the end."""
    folder = tmp_path_factory.mktemp("modules")
    yield folder
    shutil.rmtree(folder)


def diff(tree: Path, edits: Sequence[Edit]) -> str:
    """Return the unified diff that *edits* are; each piece of text is there exactly once."""
    files: dict[str, str] = {}
    for edit in edits:
        text = files.get(edit.file) or (tree / edit.file).read_text()
        assert text.count(edit.old) == 1, f"{edit.file} has {text.count(edit.old)} times {edit.old!r}"
        files[edit.file] = text.replace(edit.old, edit.new)
    return "".join(
        line for name, text in files.items()
        for line in difflib.unified_diff((tree / name).read_text().splitlines(keepends=True),
                                         text.splitlines(keepends=True), f"a/{name}", f"b/{name}"))


def written(folder: Path, name: str, tree: Path, edits: Sequence[Edit] | str) -> Path:
    """Write the diff of a case."""
    path = folder / f"{name}.diff"
    path.write_text(edits if isinstance(edits, str) else diff(tree, edits))
    return path


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_builds(case: Case, target: Target, tree: Path, modules: Path) -> None:
    """The patch replaces the functions that change, and no other."""
    for name in case.below:  # which another share of the cases may have
        if not (modules / f"plp_{name}.ko").exists():
            build([written(modules, name, tree, named(name).edits)], target=target, output=modules / f"plp_{name}.ko")
    path = written(modules, case.name, tree, case.edits)
    result = build([path], target=target, output=modules / f"plp_{case.name}.ko", standalone=case.foreign,
                   replace=case.replace, description=case.covers)
    names = {func.name for func in result.functions}
    assert names == case.funcs if case.funcs else bool(names) != case.called
    assert result.proved >= len(names)
    assert not case.sympos or all(func.sympos for func in result.functions)
    assert result.path == modules / f"plp_{case.name}.ko"
    assert result.verdict
    assert result.verdict.proved, result.verdict
    assert result.verdict.functions >= len(names)
    assert PatchInfo.open(result.path).proof == result.verdict


@pytest.mark.once
def test_a_signature_is_the_kernel_s_own(target: Target, tree: Path, tmp_path: Path) -> None:
    """A module that is signed as it is built is, byte for byte, one that the kernel's sign-file has signed."""
    key, certificate = tmp_path / "key", tmp_path / "certificate"
    subprocess.run(["openssl", "req", "-new", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=own/",
                    "-keyout", key, "-outform", "DER", "-out", certificate], check=True, capture_output=True)
    diffs = [written(tmp_path, "new_function", tree, named("new_function").edits)]
    ours, theirs = tmp_path / "plp_signed.ko", tmp_path / "theirs.ko"
    built = build(diffs, target=target, output=ours, sign=Signer(key, certificate))
    theirs.write_bytes(unsigned(ours.read_bytes()))
    subprocess.run([target.headers / "scripts/sign-file", target.digest, key, certificate, theirs], check=True)
    assert ours.read_bytes() == theirs.read_bytes()
    assert ModuleFile.open(ours).signed
    assert prove(ours, target=target) == built.verdict


def test_a_file_is_proved_again(target: Target, tree: Path, tmp_path: Path) -> None:
    """What the file says of itself is not believed; what was damaged is named."""
    path = tmp_path / "plp_new_function.ko"
    built = build([written(tmp_path, "new_function", tree, named("new_function").edits)], target=target, output=path)
    assert prove(path, target=target) == built.verdict
    module = Object.open(path)
    [symbol] = [each for each in module.symbols if each.name == "version_proc_show"]
    assert symbol.section is not None
    symbol.section.data[symbol.value] ^= 0x08  # its first instruction
    module.write(path)
    assert any("version_proc_show" in words for words in prove(path, target=target).complaints)


@pytest.mark.parametrize("case", REFUSED, ids=lambda case: case.name)
def test_refuses(case: Refused, target: Target, tree: Path, tmp_path: Path) -> None:
    """What cannot be patched is refused by its name, with the reason, and nothing is written."""
    path = written(tmp_path, case.name, tree, case.edits)
    with pytest.raises(BuildError) as caught:
        build([path], target=target, output=tmp_path / "x.ko")
    error = caught.value
    assert error.kind == case.kind, str(error)
    assert case.words in str(error)
    assert not case.symbol or error.symbol == case.symbol
    assert not (tmp_path / "x.ko").exists()


@pytest.mark.parametrize("name", INVALID)
def test_what_is_no_diff(name: str, target: Target, tmp_path: Path) -> None:
    """A file that is no diff of the source is said to be none."""
    text, words = INVALID[name]
    with pytest.raises(BadDataError, match=words):
        build([written(tmp_path, name, tmp_path, text)], target=target, output=tmp_path / "x.ko")


@pytest.mark.parametrize(("changed", "source", "objects"), [
    ("fs/binfmt_elf.c", "fs/compat_binfmt_elf.c", {"vmlinux"}),
    ("drivers/net/ethernet/chelsio/cxgb4/cxgb4_uld.h", "drivers/infiniband/hw/cxgb4/device.c", {"iw_cxgb4"}),
    ("sound/pci/ens1370.c", "sound/pci/ens1371.c", {"snd_ens1371"}),
])
def test_what_a_file_becomes_part_of(changed: str, source: str, objects: set[str], target: Target) -> None:
    """Sources include others, and have headers of other directories."""
    found = units(prepare(target)).including(changed)
    assert {unit.object for unit in found if unit.source == source} == objects


def test_a_diff_that_is_in_already(target: Target, tree: Path, tmp_path: Path) -> None:
    """A diff whose change the source has is told from one that does not fit."""
    text = diff(tree, named("static_local").edits)
    swap = {"+": "-", "-": "+"}
    turned = "".join(
        line if line.startswith(("---", "+++", "@@")) else swap.get(line[0], line[0]) + line[1:]
        for line in text.splitlines(keepends=True))
    head, _, rest = turned.partition("@@ -")
    old, new, end = rest.split(" ", 2)
    turned = f"{head}@@ -{new[1:]} +{old} {end}"
    with pytest.raises(BuildError, match="already") as caught:
        build([written(tmp_path, "again", tree, turned)], target=target, output=tmp_path / "x.ko")
    assert caught.value.kind == "apply"


@pytest.mark.parametrize("name", ["static_local", "cumulative"])
def test_the_same_input_gives_the_same_bytes(name: str, target: Target, tree: Path, tmp_path: Path) -> None:
    """Two builds of a diff do not differ in a byte."""
    path = written(tmp_path, name, tree, named(name).edits)
    files = [tmp_path / number / f"plp_{name}.ko" for number in ("first", "second")]
    for file in files:
        file.parent.mkdir()
        build([path], target=target, output=file, description=named(name).covers)
    assert files[0].read_bytes() == files[1].read_bytes()


def test_what_is_entered_keeps_its_mark(modules: Path) -> None:
    """The mark of indirect branches stays on what the livepatch core enters: nothing else points there."""
    for path in modules.glob("*.ko"):
        module = Object.open(path)
        pointed, sealed = (
            {(id(reloc.symbol.section), reloc.symbol.value + reloc.addend) for section in module.sections
             if section.name.startswith(name) for reloc in section.relocs
             if reloc.symbol.section is not None and reloc.symbol.section.executable}
            for name in (".data", ".ibt_endbr_seal"))
        assert pointed, path
        assert not pointed & sealed, path


def test_several_diffs_in_one_patch(target: Target, tree: Path, tmp_path: Path) -> None:
    """Diffs apply one after the other; a later one may build upon an earlier one."""
    first = written(tmp_path, "first", tree, named("static_local").edits)
    before = (tree / "fs/proc/cmdline.c").read_text()
    edit = named("static_local").edits[0]
    after = before.replace(edit.old, edit.new)
    later = after.replace("plp=%d", "PLP=%d")
    second = tmp_path / "second.diff"
    second.write_text("".join(difflib.unified_diff(
        after.splitlines(keepends=True), later.splitlines(keepends=True),
        "a/fs/proc/cmdline.c", "b/fs/proc/cmdline.c")))
    third = written(tmp_path, "third", tree, named("new_function").edits)
    result = build([first, second, third], target=target, output=tmp_path / "x.ko")
    assert {func.name for func in result.functions} == {"cmdline_proc_show", "version_proc_show"}
    assert b"PLP=%d" in (tmp_path / "x.ko").read_bytes()


def test_a_dry_run_writes_nothing(target: Target, tree: Path, tmp_path: Path) -> None:
    """It says what would be replaced, with the first changed instruction."""
    path = written(tmp_path, "static_local", tree, named("static_local").edits)
    result = build([path], target=target, output=tmp_path / "x.ko", dry_run=True, explain=True)
    assert result.path is None
    assert not (tmp_path / "x.ko").exists()
    [func] = result.functions
    assert func.original != func.patched


@pytest.fixture(scope="module")
def slim(target: Target, tree: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Target]:
    """The same kernel, with a source of little more than is compiled here: that is prepared in a shorter time.

    One function in it is another one.
    """
    source = tmp_path_factory.mktemp("slim") / "source"
    whole = re.compile(
        "(include|init|kernel|lib|mm|scripts|security|usr|arch/x86|fs/proc|tools(?!/testing|/perf))(/|$)")
    kept = re.compile("Kconfig|Makefile|Kbuild")

    def left_out(folder: str, names: list[str]) -> set[str]:
        place = Path(folder).relative_to(tree)
        if place == Path() or whole.match(str(place)):
            return {name for name in names if name.endswith((".o", ".cmd")) or name.startswith(".")}
        return {name for name in names if not kept.match(name) and not Path(folder, name).is_dir()}

    shutil.copytree(tree, source, symlinks=True, ignore=left_out)
    path = source / "kernel/utsname_sysctl.c"
    text = path.read_text()
    assert text.count("randomness(tmp_data, sizeof(tmp_data))") == 1
    path.write_text(text.replace("randomness(tmp_data, sizeof(tmp_data))", "randomness(tmp_data, 1)"))
    made = dataclasses.replace(target, source=source)
    prepared = prepare(made).path
    yield made
    shutil.rmtree(prepared)
    shutil.rmtree(source)


def test_another_compiler_is_caught(target: Target, slim: Target, tree: Path, tmp_path: Path) -> None:
    """Code of a compiler that optimises otherwise is not what runs."""
    other = tmp_path / "othercc"
    other.write_text(f'#!/bin/sh\nexec {target.compiler} "$@" -fno-omit-frame-pointer\n')
    other.chmod(0o755)
    # of the same key, so that it compiles in the source that is prepared already
    refused(dataclasses.replace(slim, toolchain=dataclasses.replace(target.toolchain, compiler=str(other))),
            tree, tmp_path)


def test_another_config_is_caught(
    target: Target, varied: Callable[..., Target], slim: Target, tree: Path, tmp_path: Path,
) -> None:
    """Code of another configuration is not what runs."""
    config = tmp_path / "config"
    text = target.config.read_text()
    changed = text.replace("CONFIG_CC_OPTIMIZE_FOR_PERFORMANCE=y", "# CONFIG_CC_OPTIMIZE_FOR_PERFORMANCE is not set")
    changed = changed.replace("# CONFIG_CC_OPTIMIZE_FOR_SIZE is not set", "CONFIG_CC_OPTIMIZE_FOR_SIZE=y")
    assert changed.count("CONFIG_CC_OPTIMIZE_FOR_SIZE=y") == 1
    config.write_text(changed)
    refused(varied(config=config, source=slim.source), tree, tmp_path, "two_functions")


def test_another_image_is_caught(
    varied: Callable[..., Target], tree: Path, tmp_path: Path, pytestconfig: pytest.Config,
) -> None:
    """Another kernel's image does not have this code."""
    flavour = for_series(pytestconfig.getoption("kernel"), "cloud")
    refused(varied(image=flavour.image), tree, tmp_path)


def test_another_source_is_caught(slim: Target, tree: Path, tmp_path: Path) -> None:
    """A source in which a function is another one does not compile to what runs; what is as it was does."""
    diff = written(tmp_path, "two_functions", tree, named("two_functions").edits)
    assert build([diff], target=slim, dry_run=True).functions
    refused(slim, tree, tmp_path, "inlined")


def refused(target: Target, tree: Path, tmp_path: Path, name: str = "static_local") -> None:
    """Make sure that a build is stopped by run-pre matching, before anything is written."""
    with pytest.raises(MismatchError, match="not what runs") as caught:
        build([written(tmp_path, name, tree, named(name).edits)], target=target, output=tmp_path / "x.ko")
    assert caught.value.kind == "mismatch"
    assert "compiled" in str(caught.value)
    assert not (tmp_path / "x.ko").exists()


def test_in_a_guest(pytestconfig: pytest.Config, request: pytest.FixtureRequest, modules: Path) -> None:
    """Each patch is loaded, enabled, seen, reverted, and gone; the kernel's log is clean."""
    chosen = {item.name for item in request.session.items}
    plan = [dataclasses.asdict(case) | {"funcs": sorted(case.funcs)} for case in CASES
            if f"test_builds[{case.name}]" in chosen]
    assert plan
    (modules / "plan.json").write_text(json.dumps(plan))
    status = lab.run(
        ["python3", str(TOP / "tests/vm/alone/built.py"), str(modules)],
        kernel=pytestconfig.getoption("kernel"), shares=[TOP, modules], cpus=1, timeout=1200, parameters=QUICK)
    assert status == 0
