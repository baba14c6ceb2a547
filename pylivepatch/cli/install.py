# SPDX-License-Identifier: MIT
"""``pylivepatch install`` and ``uninstall``."""

from __future__ import annotations

import contextlib
from pathlib import Path

import click

from pylivepatch.boot import system as units
from pylivepatch.boot.store import Installed, Store
from pylivepatch.cli._data import installed_data
from pylivepatch.cli._session import Session, if_needed_option, json_option
from pylivepatch.cli.completion import installed_names
from pylivepatch.cli.load import parameters
from pylivepatch.errors import ModuleFileError, PatchNotFoundError, UnsupportedError
from pylivepatch.kernel.names import patch_name
from pylivepatch.module import ModuleFile
from pylivepatch.preflight import Severity

NOTHING = "nothing was installed"
_LASTING = ("function", "ambiguous", "symbol", "vermagic", "crc", "parameter")
"""What the preflight finds that a reboot of the same kernel does not change."""

CRASHED = "the machine crashed within a minute of applying it; install it again to have it applied again"


@click.command()
@click.argument("file", type=click.Path(), required=False)
@click.argument("params", nargs=-1, metavar="[PARAM=VALUE]...", callback=parameters)
@click.option("--release", metavar="RELEASE", help="Refuse a file that is for another kernel release.")
@click.option("--list", "show", is_flag=True, help="List what is installed, for all kernels, and what crashed.")
@click.option("--system", is_flag=True, help="Write the systemd unit, the udev rule and its hook runner.")
@json_option
@click.pass_obj
def install(
    session: Session,
    file: str | None,
    params: dict[str, str | int | bool],
    release: str | None,
    show: bool,
    system: bool,
) -> None:
    """Have the patch module FILE applied at each boot of the kernel that it is for.

    It is copied to /var/lib/pylivepatch, and nothing is loaded now. Installing it
    again gives it a new file and new parameters, and another try when the machine
    crashed after it. The systemd unit pylivepatch.service does the rest at boot:
    see `pylivepatch boot`.
    """
    if [file is not None, show, system].count(True) != 1:
        raise click.UsageError("give a FILE, or --list, or --system")
    store = Store(root=session.root)
    if show:
        _list(session, store, release)
    elif system:
        files = [str(path) for path in units.install(Path(session.root))]
        run = [*units.RELOAD, units.ENABLE]
        lines = [*(f"wrote {path}" for path in files), "now run:", *(f"  {line}" for line in run)]
        session.result({"files": files, "run": run}, "\n".join(lines))
    elif file is not None:
        _refuse_what_cannot_work(session, file, params)
        before = _files(store)
        patch = store.install(file, release=release, params=params)
        changed = _files(store) != before
        text = f"{patch.name}: installed for kernel {patch.release}{'' if changed else ' already'}"
        session.result({**installed_data(patch), "changed": changed}, text)


def _refuse_what_cannot_work(session: Session, file: str, params: dict[str, str | int | bool]) -> None:
    """Refuse a file for the running kernel that will not fit it at the next boot either."""
    with contextlib.suppress(UnsupportedError), session.core() as core:
        if ModuleFile.open(file).release != core.release:
            return
        for finding in core.preflight(file, params=params):
            if finding.code in _LASTING and finding.severity is Severity.FATAL:
                raise ModuleFileError(
                    f"{finding.subject}: {finding.message}", filename=file, after=NOTHING, remedy=finding.remedy
                )


def _files(store: Store) -> dict[tuple[str, str], tuple[Installed, bytes]]:
    """What is installed, to see whether it has changed."""
    return {
        (each.release, each.name): (each, each.path.read_bytes() if each.path.is_file() else b"")
        for release in store.releases()
        for each in store.patches(release)
    }


@click.command()
@click.argument("name", metavar="NAME|FILE", required=False, shell_complete=installed_names)
@click.option("--release", metavar="RELEASE", help="For that kernel, instead of FILE's, or the running one.")
@click.option("--system", is_flag=True, help="Remove what `install --system` wrote.")
@if_needed_option
@json_option
@click.pass_obj
def uninstall(session: Session, name: str | None, release: str | None, system: bool, if_needed: bool) -> None:
    """Have the patch NAME no longer applied at boot.

    One that is loaded stays as it is.
    """
    if (name is None) is not system:
        raise click.UsageError("give a NAME or a FILE, or --system")
    if name is None:
        files = [str(path) for path in units.uninstall(Path(session.root))]
        run = list(units.RELOAD) if files else []
        lines = [*(f"removed {path}" for path in files), *(["now run:"] if run else []), *(f"  {line}" for line in run)]
        session.result({"files": files, "run": run}, "\n".join(lines))
        return
    if "/" in name or ".ko" in name:
        found = ModuleFile.open(name)
        name, release = found.name, release or found.release
    store = Store(root=session.root)
    try:
        patch = store.uninstall(name, release)
    except PatchNotFoundError:
        if not if_needed:
            raise
        release = release or store.release
        session.result(
            {"name": patch_name(name), "release": release, "changed": False},
            f"{name}: not installed for kernel {release} already",
        )
        return
    text = f"{patch.name}: no longer installed for kernel {patch.release}"
    session.result({"name": patch.name, "release": patch.release, "changed": True}, text)


def _list(session: Session, store: Store, release: str | None) -> None:
    releases = store.releases() if release is None else [release]
    patches = [patch for each in releases for patch in store.patches(each)]
    lines = []
    for patch in patches:
        params = " ".join(f"{key}={value}" for key, value in patch.params.items())
        line = f"{patch.release}  {patch.name}  {params}".rstrip()
        lines.append(f"{line}  (not applied: {CRASHED})" if patch.crashed else line)
    session.result({"installed": [installed_data(patch) for patch in patches]}, "\n".join(lines))
