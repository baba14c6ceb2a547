# SPDX-License-Identifier: MIT
"""``pylivepatch klpctl``: the kernel module, by DKMS."""

from __future__ import annotations

import getpass
import sys
from pathlib import Path

import click

from pylivepatch.boot import dkms
from pylivepatch.cli._session import Session, if_needed_option, json_option
from pylivepatch.module.sign import Signer


@click.group()
def klpctl() -> None:
    """Install the kernel module klpctl by DKMS, for each kernel of this machine."""


def _say(session: Session, words: str) -> None:
    if not session.json:
        click.echo(words, err=True)


@klpctl.command()
@click.option(
    "--sign",
    nargs=2,
    type=click.Path(path_type=Path),
    metavar="KEY CERTIFICATE",
    help="What DKMS signs with from now on, all that it builds; by default a key of its own.",
)
@json_option
@click.pass_obj
def install(session: Session, sign: tuple[Path, Path] | None) -> None:
    """Build klpctl for each kernel whose headers are installed, sign it, and have it loaded at boot.

    DKMS builds it for kernels that are installed later, too. The sources are those of
    this very package: after an upgrade, run it again. Nothing is loaded now: that is
    `modprobe klpctl`, or the next command that root runs.
    """
    signer = Signer(*sign, passphrase=getpass.getpass if sys.stdin.isatty() else None) if sign else None
    before = _contents(dkms.status())
    after = dkms.install(sign=signer, say=lambda words: _say(session, words))
    _report(session, after, changed=_contents(after) != before)


@klpctl.command()
@json_option
@click.pass_obj
def status(session: Session) -> None:
    """Show for which kernels of this machine klpctl is built, and whether it is signed."""
    _report(session, dkms.status(Path(session.root)))


@klpctl.command()
@if_needed_option
@json_option
@click.pass_obj
def remove(session: Session, if_needed: bool) -> None:
    """Remove what `klpctl install` has installed, for all kernels.

    klpctl stays loaded, if it is, until the next boot.
    """
    removed = dkms.remove(say=lambda words: _say(session, words))
    if not removed and not if_needed:
        session.error({"type": "PatchNotFoundError", "message": "DKMS has no klpctl"}, "DKMS has no klpctl")
        sys.exit(4)
    session.result({"removed": removed, "changed": bool(removed)}, f"removed: {', '.join(removed) or 'nothing'}")


def _report(session: Session, found: list[dkms.Built], changed: bool | None = None) -> None:
    loaded = Path(session.root, "sys/module/klpctl/version")
    data: dict[str, object] = {
        "version": dkms.version(),
        "loaded": loaded.read_text().strip() if loaded.is_file() else None,
        "kernels": [
            {
                "release": each.release,
                "running": each.running,
                "headers": each.headers,
                "path": each.path and str(each.path),
                "signed": each.signed if each.path else None,
            }
            for each in found
        ],
    }
    if changed is not None:
        data["changed"] = changed
    lines = [f"klpctl {data['version']}, loaded: {data['loaded'] or 'no'}"]
    for each in found:
        running = " (running)" if each.running else ""
        lines.append(f"  {each.release}{running}: {_words(each)}")
    session.result(data, "\n".join(lines))


def _contents(found: list[dkms.Built]) -> dict[str, bytes]:
    """What is built, to see whether it has changed."""
    return {each.release: each.path.read_bytes() for each in found if each.path}


def _words(built: dkms.Built) -> str:
    if built.path:
        return f"built, {'signed' if built.signed else 'not signed'}"
    if built.headers:
        return "not built"
    return f"not built: its headers are not installed (linux-headers-{built.release})"
