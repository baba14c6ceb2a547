# SPDX-License-Identifier: MIT
"""Pairs: a source by chance and an edit of it; modules of several of them, built, edited, and patched by the builder."""

from __future__ import annotations

import difflib
import json
import os
import re
import shutil
import subprocess
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from oracle.code import Program
from oracle.edits import edited
from oracle.shapes import program

from pylivepatch import BuildError
from pylivepatch.build import Target, build
from pylivepatch.lab import module as lab_module
from pylivepatch.lab import toolchain

HERE = Path(__file__).parent
DRIVER = HERE / "driver"
CALLS = 40
"""How often the entries of a source are called in each phase."""


@dataclass(frozen=True)
class Pair:
    """A source and what an edit makes of it.

    Attributes:
        seed: What it was made of.
        before: The source.
        after: The edited source.
        edits: What was done.
    """

    seed: str
    before: Program
    after: Program
    edits: tuple[str, ...]

    @property
    def name(self) -> str:
        """Its file is NAME.c."""
        return self.before.name

    @classmethod
    def of(cls, seed: str) -> Pair:
        """Return the pair of a seed."""
        before = program(f"u{seed}", f"program {seed}")
        after, edits = edited(before, f"edit {seed}")
        return cls(seed, before, after, tuple(edits))

    def diff(self, folder: str) -> str:
        """Return the edit as a unified diff, of files in *folder*."""
        files = ((f"{self.name}.c", self.before.source(), self.after.source()),
                 (f"{self.name}.h", self.before.header(), self.after.header()))
        return "".join(line for name, old, new in files for line in difflib.unified_diff(
            old.splitlines(keepends=True), new.splitlines(keepends=True), f"a/{folder}/{name}", f"b/{folder}/{name}"))


@dataclass
class Group:
    """A module of some sources, and one patch of their edits.

    Attributes:
        name: The module's name.
        pairs: Its sources.
        refused: For each source that the builder made no patch of, the kind and the words.
        unchanged: Sources of which the builder says that the edit changes no code: they must behave alike.
        notes: What it noted.
    """

    name: str
    pairs: list[Pair]
    refused: dict[str, tuple[str, str]] = field(default_factory=dict)
    unchanged: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def built(self) -> list[Pair]:
        """Those that are compared: with a patch, or since they need none."""
        return [pair for pair in self.pairs if pair.name not in self.refused]

    @cached_property
    def glue(self) -> str:
        """What registers the sources with the harness when the module loads."""
        units = [f"unit_{pair.name}" for pair in self.pairs]
        return ("#include <linux/module.h>\n#include \"oracle.h\"\n\n"
                + "".join(f"extern const struct oracle_unit {unit};\n" for unit in units)
                + f"static const struct oracle_unit *const units[] = {{ {', '.join('&' + unit for unit in units)} }};\n\n"
                "static int __init enter(void)\n{\n\treturn oracle_register(KBUILD_MODNAME, units, ARRAY_SIZE(units));\n}\n"
                "module_init(enter);\n\nstatic void __exit leave_module(void)\n{\n\toracle_unregister(KBUILD_MODNAME);\n}\n"
                'module_exit(leave_module);\nMODULE_LICENSE("GPL");\n')

    def write(self, top: Path, *, after: Iterable[str] = ()) -> None:
        """Write the module's source below *top*; of the sources that *after* names, as edited."""
        folder = top / self.name
        folder.mkdir(parents=True)
        shutil.copy(DRIVER / "oracle.h", folder)
        alone = len(self.pairs) == 1
        for pair in self.pairs:
            code = pair.after if pair.name in after else pair.before
            (folder / f"{pair.name}.h").write_text(code.header())
            (folder / f"{pair.name}.c").write_text(code.source() + (self.glue if alone else ""))
        objects = " ".join(f"{pair.name}.o" for pair in self.pairs)
        if alone:
            lines = f"obj-m := {objects}\n"
        else:
            (folder / "glue.c").write_text(self.glue)
            lines = f"obj-m := {self.name}.o\n{self.name}-y := glue.o {objects}\n"
        (folder / "Kbuild").write_text("# SPDX-License-Identifier: MIT\nccflags-y := -w\n" + lines)

    @property
    def module(self) -> str:
        """The name of its module: that of the source when there is one."""
        return self.pairs[0].name if len(self.pairs) == 1 else self.name

    def patch(self, target: Target, source: Path, modules: Sequence[Path], output: Path) -> None:
        """Build the patch; sources that the builder refuses are left out of it, each by itself."""
        def attempt(pairs: list[Pair], *, dry_run: bool = False) -> BuildError | None:
            diff = output.with_suffix(".diff")
            diff.write_text("".join(pair.diff(self.name) for pair in pairs))
            try:
                made = build([diff], target=target, output=output, module_source=source, module_files=modules,
                             module_make=[f"KBUILD_EXTRA_SYMBOLS={lab_module.build(target.kernel, DRIVER).symbols}"],
                             dry_run=dry_run)
            except BuildError as error:
                return error
            self.notes = list(made.notes)
            return None

        failed = attempt(self.pairs)
        if failed is None:
            return
        for pair in self.pairs:
            error = failed if len(self.pairs) == 1 else attempt([pair], dry_run=True)
            if error is not None and error.kind == "nothing":
                self.unchanged.append(pair.name)
            elif error is not None:
                self.refused[pair.name] = error.kind, error.message
        patched = [pair for pair in self.built if pair.name not in self.unchanged]
        again = attempt(patched) if patched else None
        if again is not None:
            self.refused |= {pair.name: ("together", again.message) for pair in patched}

    def plan(self, before: Path, after: Path) -> dict[str, object]:
        """Return what the guest needs to know; *before* and *after* are the directories with the objects."""
        units = []
        for pair in self.built:
            old, new = (_statics(top / self.name / f"{pair.name}.o") for top in (before, after))
            shared = {one.name for one in pair.before.variables} & {one.name for one in pair.after.variables}
            units.append({
                "name": pair.name, "seed": pair.seed, "edits": pair.edits,
                # what one of both has optimized away does not keep its value across the change
                "keeps": not {name for name, count in new.items() if count > old[name]} & shared,
                "returns": not {name for name, count in old.items() if count > new[name]},
            })
        return {"name": self.name, "module": self.module, "units": units, "calls": CALLS,
                "patched": len(self.unchanged) < len(self.built)}


def _statics(path: Path) -> Counter[str]:
    """Return how many variables of each name an object has."""
    said = subprocess.run(["nm", path], capture_output=True, text=True, check=True).stdout
    rows = (line.split() for line in said.splitlines())
    return Counter(re.sub(r"\.\d+\Z", "", row[2]) for row in rows if len(row) == 3 and row[1] in "bBdD")


def grouped(seeds: Sequence[str], sizes: Sequence[int]) -> list[Group]:
    """Return groups of the pairs of *seeds*, of these sizes over and over."""
    groups, at = [], 0
    while at < len(seeds):
        size = sizes[len(groups) % len(sizes)]
        groups.append(Group(f"rnd_{len(groups)}", [Pair.of(seed) for seed in seeds[at:at + size]]))
        at += size
    return groups


def compiled(target: Target, groups: Sequence[Group], work: Path, *, after: bool) -> Path:
    """Build the modules of all groups in one go, as they are or as they are edited; return their directory."""
    top = work / ("after" if after else "before")
    for group in groups:
        group.write(top, after=[pair.name for pair in group.built] if after else ())
    (top / "Kbuild").write_text("# SPDX-License-Identifier: MIT\n" + "".join(
        f"obj-m += {group.name}/\n" for group in groups))
    driver, headers = lab_module.build(target.kernel, DRIVER), lab_module.headers(target.kernel)
    toolchain.resolve(target.kernel).run(
        ["make", "-s", "-C", headers, f"M={top}", f"-j{os.cpu_count() or 1}", f"KBUILD_EXTRA_SYMBOLS={driver.symbols}",
         "CONFIG_DEBUG_INFO_BTF_MODULES=", "modules"],
        what=f"building {top.name}", cwd=top, read=[*lab_module.around(headers), driver.path], write=[top])
    return top


def prepare(target: Target, seeds: Sequence[str], sizes: Sequence[int], work: Path) -> list[Group]:
    """Make everything that a guest needs to compare pairs, in *work*: modules, edited modules, patches, and a plan."""
    groups = grouped(seeds, sizes)
    before = compiled(target, groups, work, after=False)
    modules = sorted(before.rglob("*.ko")) + list(lab_module.build(target.kernel, DRIVER).modules)
    source = work / "source"
    for group in groups:
        group.write(source)
    shutil.copy(before / "Kbuild", source)
    for group in groups:
        group.patch(target, source, modules, work / f"plp_{group.name}.ko")
    groups_built = [group for group in groups if group.built]
    after = compiled(target, groups_built, work, after=True)
    driver = lab_module.build(target.kernel, DRIVER)
    shutil.copy(driver.modules[0], work)
    (work / "plan.json").write_text(json.dumps([group.plan(before, after) for group in groups_built]))
    return groups
