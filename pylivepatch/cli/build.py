# SPDX-License-Identifier: MIT
"""``pylivepatch build`` and ``pylivepatch try``."""

from __future__ import annotations

import dataclasses
import getpass
import platform
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import click

from pylivepatch.build import build as build_patch
from pylivepatch.build import for_release, for_series
from pylivepatch.build.trial import trial
from pylivepatch.cli._session import Session, json_option
from pylivepatch.errors import LivepatchError
from pylivepatch.module.sign import PASSPHRASE, Signer
from pylivepatch.state import printable

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pylivepatch.build import BuildResult
    from pylivepatch.build.target import Given
    from pylivepatch.build.trial import Trial

_EXISTING = click.Path(exists=True, path_type=Path)


@click.command()
@click.argument("diffs", nargs=-1, required=True, type=click.Path(), metavar="DIFF…")
@click.option("--kernel", metavar="SERIES", help="For the newest stock kernel of a series, e.g. 6.1.")
@click.option("--flavour", type=click.Choice(["standard", "cloud", "rt"]), default="standard", show_default=True)
@click.option("--suite", default="", metavar="SUITE",
              help="Take the kernel of --kernel from this suite or distribution, e.g. bookworm; the newest by default.")
@click.option("--release", help="For this release; the running kernel's by default.")
@click.option("--source", type=_EXISTING, help="The kernel's source, instead of the distribution's package of it.")
@click.option("--config", type=_EXISTING, help="The kernel's configuration.")
@click.option("--image", type=_EXISTING, help="The kernel's image: vmlinuz, or the ELF file in it.")
@click.option("--headers", type=_EXISTING, help="The build directory for the kernel's modules.")
@click.option("--modules", type=_EXISTING, help="The directory /lib/modules/RELEASE of the kernel.")
@click.option("--compiler", help="The C compiler, when it is not the one that the configuration names.")
@click.option("--module-source", type=click.Path(exists=True, file_okay=False, path_type=Path), metavar="DIR",
              help="The diffs are of the source of modules that are not of the kernel's tree, with its Kbuild in DIR.")
@click.option("--module-file", "module_files", multiple=True, metavar="FILE",
              type=click.Path(exists=True, dir_okay=False, path_type=Path),
              help="Such a module that is in use, when it is not in /lib/modules; more than once for several.")
@click.option("--module-make", multiple=True, metavar="ARGUMENT", help="One more argument for their make.")
@click.option("-p", "--strip", type=click.IntRange(0, 11), metavar="N",
              help="Leave out N leading parts of the names in the diffs; by default what the source has decides.")
@click.option("--fuzz", type=click.IntRange(0, 3), default=0, show_default=True, metavar="N",
              help="Lines at the ends of a hunk's context that may differ from the source.")
@click.option("-o", "--output", type=click.Path(dir_okay=False, path_type=Path), help="The module file to write.")
@click.option("--replace", is_flag=True, help="Replace all patches before this one.")
@click.option("--standalone", is_flag=True,
              help="A standalone patch: it does without klpctl, and is enabled by being loaded.")
@click.option("--describe", "description", default="", metavar="TEXT", help="What the patch is for.")
@click.option("--cve", "cves", multiple=True, metavar="CVE",
              help="What it fixes; more than once for several. By default what the header of the diff's mail names.")
@click.option("--sign", nargs=2, type=click.Path(path_type=Path), metavar="KEY CERTIFICATE",
              help="Sign the module, for kernels that load signed ones only; the passphrase of an encrypted key is "
              f"asked for, or in {PASSPHRASE}.")
@click.option("--dry-run", is_flag=True, help="Do everything but write the module.")
@click.option("--unconfined", is_flag=True,
              help="Run the compiler without a sandbox: whoever wrote the diff can then read what you can read.")
@click.option("--explain", is_flag=True, help="Show the first changed instruction of each function.")
@json_option
@click.pass_obj
def build(
    session: Session, diffs: tuple[str, ...], kernel: str | None, flavour: str, suite: str, release: str | None,
    source: Path | None, config: Path | None, image: Path | None, headers: Path | None, modules: Path | None,
    compiler: str | None, module_source: Path | None, module_files: tuple[Path, ...], module_make: tuple[str, ...],
    strip: int | None, fuzz: int, output: Path | None, replace: bool, standalone: bool, description: str,
    cves: tuple[str, ...],
    sign: tuple[Path, Path] | None, dry_run: bool, unconfined: bool, explain: bool,
) -> None:
    """Build a patch module from one or more diffs of the kernel's source.

    A DIFF is a file, compressed or not, a mailbox, a directory with a quilt series or *.patch files, or - for
    standard input.

    Only the files that the diffs touch are compiled. The code that is replaced is proved to be what runs.
    """
    if kernel and release:
        raise click.UsageError("--kernel and --release: give one of them")
    signer = signer_of(sign) if sign else None
    given: Given = {}
    if source:
        given["source"] = source
    if config:
        given["config"] = config
    if image:
        given["image"] = image
    if headers:
        given["headers"] = headers
    if modules:
        given["modules"] = modules
    if compiler:
        given["compiler"] = compiler
    start = time.monotonic()

    def say(words: str) -> None:
        if not session.json:
            click.echo(f"{time.monotonic() - start:6.1f} s  {words}", err=True)

    try:
        target = (for_series(kernel, flavour, suite, **given) if kernel else
                  for_release(release or platform.release(), **given))
        result = build_patch(diffs, target=target, output=output, strip=strip, fuzz=fuzz, replace=replace,
                             standalone=standalone, description=description, cves=cves, dry_run=dry_run,
                             explain=explain,
                             module_source=module_source, module_files=module_files, module_make=module_make,
                             confined=not unconfined, sign=signer, say=say)
    except ValueError as error:
        if isinstance(error, LivepatchError):
            raise
        raise click.UsageError(str(error)) from error
    session.result(build_data(result), "\n".join(_lines(result, time.monotonic() - start)))


def signer_of(files: tuple[Path, Path]) -> Signer:
    """What ``--sign`` names; on a terminal, an encrypted key's passphrase is asked for."""
    return Signer(*files, passphrase=getpass.getpass if sys.stdin.isatty() else None)


def build_data(result: BuildResult) -> dict[str, object]:
    """What was built, as the JSON output shows it."""
    return {**dataclasses.asdict(result), "path": str(result.path) if result.path else None}


def _lines(result: BuildResult, seconds: float) -> Iterator[str]:
    where = result.path or "a dry run: nothing written"
    yield f"{result.name}: {where}, for {result.release}, in {seconds:.1f} s"
    yield f"proved: {result.proved} functions of {', '.join(result.units)} are what runs"
    if result.verdict:
        yield (f"proved: {result.verdict.functions} functions of the module and {result.verdict.references} references "
               "in it are what the kernel's own build makes of the patched source")
    for func in result.functions:
        place = f",{func.sympos}" if func.sympos else ""
        yield f"  {func.object}: {func.name}{place}"
        if func.original or func.patched:
            yield f"      +{func.first_change:#x}  {func.original or '(end)'}"
            yield f"       becomes  {func.patched or '(end)'}"
    yield from (f"  with: {name}" for name in result.added)
    yield from (f"note: {note}" for note in result.notes)


@click.command("try")
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--kernel", default="", metavar="SERIES|RELEASE", help="On this kernel; the module's own by default.")
@click.option("--check", default="", metavar="COMMAND", help="Run in the guest when the patch is enabled.")
@click.option("--timeout", type=float, default=120.0, show_default=True, metavar="SECONDS",
              help="Deadline of each transition, and of the check.")
@click.option("--cpus", type=click.IntRange(1, 64), default=1, show_default=True)
@json_option
@click.pass_obj
def try_(session: Session, file: Path, kernel: str, check: str, timeout: float, cpus: int) -> None:
    """Try the patch module FILE in a guest: load, enable, check, revert, unload.

    Exits with 1 when a step failed, or when the kernel warned of something.
    """
    report = trial(file, kernel=kernel, check=check, timeout=timeout, cpus=cpus)
    lines = [f"{report.patch} on {report.release}:"]
    for step in report.steps:
        lines.append(printable(f"  {step.name:8}{step.seconds:8.3f} s  {step.failure or 'done'}"))
        lines += [f"           {line}" for line in step.output.splitlines()[:20]]
    lines += [printable(f"  kernel:  {line}") for line in report.log]
    lines.append("passed" if report.passed else "FAILED")
    session.result(trial_data(report), "\n".join(lines))
    if not report.passed:
        sys.exit(1)


def trial_data(report: Trial) -> dict[str, object]:
    """How a trial went, as the JSON output shows it."""
    return {**dataclasses.asdict(report), "passed": report.passed}
