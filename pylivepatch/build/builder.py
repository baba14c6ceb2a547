# SPDX-License-Identifier: MIT
"""From diffs to a patch module: the steps in their order."""

from __future__ import annotations

import contextlib
import functools
import os
import re
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence, Set
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from pylivepatch.build import evidence, external, insn, layout, reach, tables
from pylivepatch.build.compare import Changes, compare
from pylivepatch.build.compiler import Compiled, Compiler
from pylivepatch.build.diff import Applied, Diff
from pylivepatch.build.elf import Object
from pylivepatch.build.external import External, ExternalTree
from pylivepatch.build.extract import Extract, Extractor
from pylivepatch.build.glue import About, module_name
from pylivepatch.build.image import VMLINUX, Image
from pylivepatch.build.link import link, note, write
from pylivepatch.build.parts import Parts
from pylivepatch.build.result import BuildResult, BuiltFunc
from pylivepatch.build.runpre import Match, match
from pylivepatch.build.series import CVE
from pylivepatch.build.shadow import make_shadow
from pylivepatch.build.symbols import Symbols, exports
from pylivepatch.build.target import Target
from pylivepatch.build.tree import Tree, prepare
from pylivepatch.build.units import Unit, units
from pylivepatch.build.verify import Checker
from pylivepatch.elf.file import unpacked
from pylivepatch.errors import BadDataError, BuildError, MismatchError
from pylivepatch.lab.sandbox import LimitError
from pylivepatch.module.info import PatchInfo
from pylivepatch.module.sign import Signer
from pylivepatch.module.verdict import SECTION, Verdict

_OF_DAMAGE = frozenset({"apply", "compile", "mismatch", "not-built", "ambiguous"})
"""What a build fails with when the prepared source is not what it was."""

_BATCH = 32
"""Source files that are compiled before those of them are forgotten that become no other code."""


def build(
    diffs: Sequence[str | os.PathLike[str]], *, target: Target, output: str | os.PathLike[str] | None = None,
    name: str = "", strip: int | None = None, fuzz: int = 0, replace: bool = False,
    standalone: bool = False, description: str = "", cves: Sequence[str] = (), dry_run: bool = False,
    explain: bool = False, confined: bool = True, module_source: str | os.PathLike[str] | None = None,
    module_files: Sequence[str | os.PathLike[str]] = (), module_make: Sequence[str] = (), sign: Signer | None = None,
    say: Callable[[str], None] = lambda _: None,
) -> BuildResult:
    """Build a patch module from diffs of the kernel's source.

    Only the source files that the diffs touch are compiled. What is replaced is proved to be what runs: the
    object that the kernel's own build would make is compared with the kernel's image, byte for byte.

    Args:
        diffs: Unified diffs, applied one after the other; together they are one cumulative patch. Files, mailboxes,
            "-" for standard input, directories with a quilt series or with ``*.patch`` files; compressed or not.
        target: The kernel that the patch is for.
        output: The module file to write; after the first diff's name in the working directory by default.
        name: Name of the patch; after *output* by default.
        strip: How many leading parts of the names in the diffs to leave out; by default what the source has decides.
        fuzz: How many lines at the ends of a hunk's context may differ; the result has a note of each that did.
        replace: Make a patch that replaces all patches before it.
        standalone: Make a standalone patch, which needs no klpctl and is enabled by being loaded.
        description: What the patch is for.
        cves: What it fixes: "CVE-2026-12345"; by default what the headers of the diffs' mails name.
        dry_run: Do everything but link and write the module.
        explain: Add the first changed instruction of each function to the result.
        confined: Run the compiler, and all that works on the diff, in a sandbox (`pylivepatch.lab.sandbox.Sandbox`).
            False gives the author of a diff, or of a source, all files that the caller can read.
        module_source: Directory of the source, with its Kbuild, of modules that are not of the kernel's own tree: the
            diffs are of that source then.
        module_files: Files of these modules that are in use; those that *target* has by default.
        module_make: More arguments for their make, such as "CONFIG_FOO=m".
        sign: What signs the module, with the digest that the kernel's configuration names.
        say: Called with a line of text at the beginning of each step.

    Raises:
        BuildError: The diff cannot become a patch; nothing was written.
        MismatchError: The code that was compiled is not the code that runs.
        PatchNotFoundError: There is no such diff.
        BadDataError: A file is no diff; a CVE name is none.
        UnsupportedError: This machine makes no sandbox.
        OSError: The module cannot be written.
    """
    if not diffs:
        raise BuildError("no diff", kind="nothing")
    modules = _external(module_source, module_files, module_make)
    if modules is None and (module_files or module_make):
        raise BadDataError("module_files and module_make are for modules of their own source: give module_source, too")
    for cve in cves:
        if not CVE.fullmatch(cve):
            raise BadDataError(f"{cve!r} is not the name of a CVE", after="nothing was written",
                               remedy='they look like "CVE-2026-12345"')
    parsed = Diff.read(diffs, strip)
    output = Path(f"{module_name(name or _stem(os.fspath(diffs[0])))}.ko" if output is None else output)
    about = About(module_name(name or output.name.removesuffix(".ko")), description, tuple(cves) or parsed.cves,
                  replace, standalone, parsed.text)

    if not dry_run and not output.parent.is_dir():
        raise BuildError(f"{output.parent} is not a directory, so {output} cannot be written", kind="output",
                         remedy="make it first")
    target = target if confined else target.unconfined()

    def job() -> _Job:
        return _Job(parsed, fuzz, about, target, modules, confined, say)

    first = job()
    try:
        return first.run(None if dry_run else output, explain=explain, sign=sign)
    except LimitError as error:
        raise BuildError(error.message, kind="limit", remedy="look at what the diff has the compiler do") from error
    except BuildError as error:
        tree = first.tree
        damage = tree.damage() if tree is not None and error.kind in _OF_DAMAGE else []
        if tree is None or not damage:
            raise
        say(f"the prepared source was damaged ({damage[0]}): preparing it anew")
        tree.discard()
        return job().run(None if dry_run else output, explain=explain, sign=sign)


def _external(
    source: str | os.PathLike[str] | None, files: Sequence[str | os.PathLike[str]], make: Sequence[str]
) -> External | None:
    return External(Path(source), tuple(map(Path, files)), tuple(make)) if source else None


def prove(
    file: str | os.PathLike[str], *, target: Target, module_source: str | os.PathLike[str] | None = None,
    module_files: Sequence[str | os.PathLike[str]] = (),
    module_make: Sequence[str] = (), say: Callable[[str], None] = lambda _: None,
    use: Callable[[Checker], Verdict] | None = None,
) -> Verdict:
    """Prove a module's file: that it is what the diff that it carries makes of the source of the kernel that runs.

    Everything is compiled anew; nothing that the file says about itself is believed.

    Args:
        file: The module.
        target: The kernel that it is for.
        module_source: As for `build`, for a patch of modules that are not of the kernel's own tree.
        module_files: The same.
        module_make: The same.
        say: Called with a line of text at the beginning of each step.
        use: Asks the checker instead, which does not exist any more when this returns: about more than one file.

    Raises:
        BuildError: The module carries no diff, or that cannot become a patch of this kernel.
        MismatchError: The source, as it is compiled here, is not the code that runs.
        BadDataError: It is no module.
        OSError: The module cannot be read.
    """
    info = PatchInfo.open(file)
    if not info.diff:
        raise BuildError(f"{file} carries no diff: nothing says what its code should be", kind="proof",
                         remedy="build it with pylivepatch build")
    about = About(info.name, info.description, info.cves or (), bool(info.replace), not info.registered, info.diff)
    modules = _external(module_source, module_files, module_make)
    with tempfile.TemporaryDirectory(prefix="pylivepatch-check-") as folder:
        diff = Path(folder) / f"{info.name}.diff"
        diff.write_text(info.diff, errors="surrogateescape")
        given = Diff.read([diff])
    content = unpacked(Path(file).read_bytes())
    result = _Job(given, 0, about, target, modules, True, say).run(
        None, use=use or (lambda checker: checker.prove(content)))
    assert result.verdict is not None
    return result.verdict


@dataclass(slots=True)
class _Compared:
    unit: Unit
    match: Match
    orig: Parts
    patched: Parts
    changes: Changes


class _Job:
    def __init__(
        self, diff: Diff, fuzz: int, about: About, target: Target, modules: External | None, confined: bool,
        say: Callable[[str], None],
    ) -> None:
        self.given, self.fuzz, self.about, self.target, self.modules = diff, fuzz, about, target, modules
        self.confined, self.say = confined, say
        self.diff = Applied((), (), ())
        self.tree: Tree | None = None
        self.seconds: dict[str, float] = {}
        self.notes: list[str] = []

    @contextlib.contextmanager
    def _step(self, name: str, words: str) -> Iterator[None]:
        self.say(words)
        start = time.monotonic()
        yield
        self.seconds[name] = self.seconds.get(name, 0.0) + time.monotonic() - start

    def run(
        self, output: Path | None, *, explain: bool = False, use: Callable[[Checker], Verdict] | None = None,
        sign: Signer | None = None,
    ) -> BuildResult:
        """Build, and write the module to *output*; with *use* have that ask the checker about another module."""
        of = self.modules.source if self.modules else self.target.release
        with self._step("prepare", f"preparing the source of {of}"):
            tree = self.tree = (
                external.prepare(self.target, self.modules, say=self.say, confined=self.confined) if self.modules else
                prepare(self.target, say=self.say, confined=self.confined))
            self.diff = self.given.against(tree, self.fuzz)
            self.notes += [f"{path} is not part of this kernel's code, and was left out" for path in self.diff.ignored]
            self.notes += self.diff.notes
            found = reach.reach(tree, units(tree), self.diff.files, self.say)
            touched = found.units
            self.notes += found.notes
            compiler = Compiler(tree)
        symbols = Symbols(exports(tree.symvers), self._image)
        with tempfile.TemporaryDirectory(prefix="pylivepatch-build-") as folder:
            work = Path(folder)
            with self._step("compile", f"compiling {_listed(touched)} as the kernel's own build does"):
                compiler.as_built(touched)  # makes headers, too, which the shadow has to have
                shadow = make_shadow(tree, work / "shadow", self.diff.files, touched)
            pairs, compiled = self._compiled(compiler, touched, shadow, work, symbols)
            with self._step("extract", "taking out what changed"):
                extract = Extract()
                for extractor in [Extractor(extract, item.unit.object, item.match, item.changes, item.patched, symbols)
                                  for item in compiled]:
                    extractor.run()
                if not (extract.replaced or extract.callbacks):
                    raise BuildError("the diff changes no code that runs", kind="nothing",
                                     remedy="a patch replaces functions: comments and unused code need none")
            verdict = None
            if output is not None or use is not None:
                klpctl = None if self.about.standalone else self.target.klpctl()
                with self._step("link", f"linking {self.about.name}"):
                    (work / "module").mkdir()
                    module = link(extract, self.about, self.target, work / "module", symbols=symbols,
                                  objtool=compiler.objtool(compiled[0].unit), klpctl=klpctl,
                                  box=tree.sandbox(work / "module"))
                with self._step("verify", "proving the finished module"):
                    (work / "verify").mkdir()
                    box = tree.sandbox(work / "verify").seeing(work / "module", *([klpctl] if klpctl else []))
                    checker = Checker(evidence.gather(
                        pairs, work / "module", work / "verify", target=self.target, symbols=symbols,
                        symvers=tree.symvers, box=box))
                    verdict = _proved(module, checker) if use is None else use(checker)
                if output is not None:
                    content = module.pack()
                    write(sign.signed(content, self.target.digest) if sign else content, output)
            return self._result(compiled, extract, output, verdict, explain=explain)

    def _compiled(
        self, compiler: Compiler, touched: list[Unit], shadow: Path, work: Path, symbols: Symbols,
    ) -> tuple[list[tuple[Compiled, Compiled]], list[_Compared]]:
        """Compile the sources and compare them, some at a time: of thousands that a header concerns, few change.

        Those are forgotten of which the compiler made the same.
        """
        kept, found = [], []
        for start in range(0, len(touched), _BATCH):
            some = touched[start:start + _BATCH]
            more = f", {len(touched) - start} of {len(touched)} left" if len(touched) > _BATCH else ""
            with self._step("compile", f"compiling {_listed(some)} with the diff and without{more}"):
                pairs = self._compile(compiler, some, shadow, work)
            with self._step("compare", "comparing with the code that runs, and with the patched code"):
                for orig, patched in pairs:
                    item = self._compare(orig, patched, symbols, touched)
                    if item is not None:
                        found.append(item)
                    if item is not None or orig.text.read_bytes() != patched.text.read_bytes():
                        kept.append((orig, patched))
                    else:
                        shutil.rmtree(patched.folder)
        return kept, found

    def _compile(
        self, compiler: Compiler, touched: list[Unit], shadow: Path, work: Path,
    ) -> list[tuple[Compiled, Compiled]]:
        """Compile each source as it is and with the diff, on all processors."""
        def patched(unit: Unit) -> Compiled:
            return compiler.patched(unit, shadow, work / "units" / f"{unit.goal}.{unit.object}")

        with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
            ends = [pool.submit(one, unit) for unit in touched for one in (patched, compiler.original)]
        failed = [error for error in (end.exception() for end in ends) if error is not None]
        refused = [error for error in failed if isinstance(error, BuildError)]
        if len(refused) > 1:
            raise BuildError("\n".join(error.message for error in refused), kind="compile", file=refused[0].file)
        if failed:
            raise failed[0]
        return [(orig.result(), after.result()) for after, orig in zip(ends[::2], ends[1::2], strict=True)]

    def _compare(
        self, before: Compiled, after: Compiled, symbols: Symbols, touched: Sequence[Unit],
    ) -> _Compared | None:
        unit = before.unit
        orig, patched = Parts(before.named), Parts(after.named)
        recalled: Set[str] = frozenset()
        if before.types_digest != after.types_digest:
            exported = {part.name for part in orig.functions() if part.is_global and part.name in symbols.exports}
            found = layout.check(unit.source, before.types, after.types, exported)
            self.notes += [note for note in found.notes if note not in self.notes]
            recalled = found.recalled
            for name in sorted(recalled):
                part = orig.named(name)
                if part is not None and part.is_global:
                    self._check_callers(name, unit.source, {one.source for one in touched})
        changes = compare(unit.source, orig, patched)
        changes.recalled = recalled
        declares = any(part.section.name.startswith(tables.CALLBACK) for part in patched.all)
        if not (changes.functions or changes.new_names(patched) or declares):
            return None
        proof = match(unit.source, before.plain, symbols.image(unit.object))
        proof.prove()
        if after.module is not after.named:
            module = Parts(after.module)
            patched, changes = module, changes.within(patched, module)
        return _Compared(unit, proof, orig, patched, changes)

    def _check_callers(self, name: str, source: str, touched: set[str]) -> None:
        """Make sure that all are compiled that may call a function which is called in another way."""
        assert self.tree is not None
        for file in reach.users(self.tree, name):
            if file not in touched and (file.endswith(".S") or units(self.tree).get(file)):
                raise BuildError(
                    f"{source} changes how {name}() is called, and {file} has it, too, which nothing changes",
                    kind="export", symbol=name, file=source,
                    remedy="keep it as it is, and give the new one a name of its own")

    def _image(self, name: str) -> Image:
        if name == VMLINUX:
            stat = self.target.image.stat()
            image = _kernel(self.target.image, stat.st_size, stat.st_mtime_ns)
            release = image.release()
            if release != self.target.release:
                raise MismatchError(
                    f"{image.path} is the image of {release}, and not what runs as {self.target.release}: the patch "
                    "would be compiled for one and proved on the other", kind="mismatch",
                    remedy="name the image of that release (--image)")
            return image
        found = (self.tree.in_use(name) if isinstance(self.tree, ExternalTree) else
                 external.find(self.target.modules, name))
        return Image.module(name, found)

    def _result(
        self, compiled: list[_Compared], extract: Extract, output: Path | None, verdict: Verdict | None, *,
        explain: bool,
    ) -> BuildResult:
        parts = {item.unit.source: item for item in compiled}
        functions = []
        for item in extract.replaced:
            words = ("", "")
            if explain:
                pair = next((pair for pair in parts[item.source].changes.functions if pair[0].name == item.name), None)
                if pair:
                    words = _words(pair[0].data, pair[1].data, item.first_change)
            functions.append(BuiltFunc(item.object, item.name, item.sympos, item.source, item.first_change, *words))
        told = [*(note for item in compiled for note in item.changes.notes), *extract.notes,
                *(verdict.notes if verdict else ()),
                *(f"not proved: {words}" for words in (verdict.unproved if verdict else ()))]
        return BuildResult(
            name=self.about.name, path=output, release=self.target.release, functions=tuple(functions),
            added=tuple(extract.added), proved=sum(len(item.match.matched) for item in compiled),
            replace=self.about.replace, standalone=self.about.standalone,
            units=tuple(item.unit.source for item in compiled),
            notes=(*self.notes, *dict.fromkeys(told)), seconds=self.seconds, verdict=verdict)


def _proved(module: Object, checker: Checker) -> Verdict:
    """Prove a module, and have it carry the verdict.

    Raises:
        BuildError: It is not what the diff says.
    """
    verdict = checker.prove(module.pack())
    if not verdict.complaints:
        module.sections.append(note(SECTION, verdict.pack()))
        again = checker.prove(module.pack())
        if again == verdict:
            return verdict
        verdict = again
    raise BuildError("the finished module is not what the diff says:\n" + "\n".join(verdict.complaints), kind="proof",
                     remedy="this is a fault of the builder: report it, with the diff")


@functools.lru_cache(maxsize=1)
def _kernel(path: Path, size: int, changed: int) -> Image:  # noqa: ARG001
    """Read the kernel's image, once for all builds of a process: the file is known by its size and last change."""
    return Image.vmlinux(path)


def _listed(some: Sequence[Unit]) -> str:
    """Return what a person is told of sources, be they many."""
    return ", ".join(unit.source for unit in some[:3]) + (f" and {len(some) - 3} more" if len(some) > 3 else "")


def _stem(name: str) -> str:
    """Return what a module is called after a diff of this name."""
    if name == "-":
        raise BadDataError("standard input has no name that the patch could have", after="nothing was written",
                           remedy="name the module file: -o fix.ko")
    return re.sub(r"(?:\.(?:diff|patch|mbox|mbx|eml))?(?:\.(?:gz|xz|bz2|zst))?\Z", "", Path(name).resolve().name)


def _words(old: bytes, new: bytes, at: int) -> tuple[str, str]:
    """Return the first changed instruction of both, which begins at *at* or before."""
    starts = [start for start in insn.boundaries(new) if start <= at]
    start = starts[-1] if starts else at
    before, after = (insn.disassemble(code[start:start + 16], 0, 1) for code in (old, new))
    return (before or [""])[0], (after or [""])[0]

