# SPDX-License-Identifier: MIT
"""``pylivepatch doctor``: what is there, what is missing, and what to do about it."""

from __future__ import annotations

import contextlib
import dataclasses
import platform
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

import click

from pylivepatch.cli._session import Session, json_option
from pylivepatch.errors import LivepatchError
from pylivepatch.kernel import require_shim

if TYPE_CHECKING:
    from collections.abc import Iterator

_EXTRAS = {
    "prometheus_client": ("metrics", "pip install 'pylivepatch[metrics]'"),
    "zstandard": ("reading .ko.zst", "pip install 'pylivepatch[zstd]'"),
    "pyudev": ("events by udev", "pip install pyudev"),
}
_MOUNTS = {
    "sys/kernel/debug/kprobes/list": ("kprobes on functions", "mount -t debugfs none /sys/kernel/debug"),
    "sys/kernel/tracing/enabled_functions": ("other users of ftrace", "mount -t tracefs none /sys/kernel/tracing"),
}


@dataclasses.dataclass(frozen=True)
class Missing:
    """Something that is missing: what it is, what it is for, and how to get it."""

    subject: str
    reason: str
    remedy: str


@click.command()
@json_option
@click.pass_obj
def doctor(session: Session) -> None:
    """Show versions and abilities of package, klpctl and kernel, and what is missing with its remedy.

    Exits with 9 when this kernel cannot be live-patched at all.
    """
    root = Path(session.root)
    data: dict[str, object] = {
        "package": metadata.version("pylivepatch"),
        "python": platform.python_version(),
        "kernel": None,
        "backend": None,
        "klpctl": _text(root / "sys/module/klpctl/version"),
        "features": None,
        "lockdown": _text(root / "sys/kernel/security/lockdown"),
        "signed_only": _text(root / "sys/module/module/parameters/sig_enforce") == "Y",
    }
    missing: list[Missing] = []
    code = 0
    try:
        with session.core() as core:
            features = core.features
            names = {field.name: getattr(features, field.name) for field in dataclasses.fields(features)}
            data |= {
                "kernel": core.release,
                "backend": core.backend,
                "features": {name: value for name, value in names.items() if isinstance(value, bool)},
            }
            missing += [Missing(name, why.reason, why.remedy) for name, why in features.missing.items()]
    except LivepatchError as error:
        code = 9
        missing.append(Missing("livepatch", error.message, error.remedy))
    missing += _parts(root)
    data["missing"] = [dataclasses.asdict(each) for each in missing]
    session.result(data, "\n".join(_lines(data, missing)))
    click.get_current_context().exit(code)


def _parts(root: Path) -> Iterator[Missing]:
    """Look for what the package can do without."""
    from pylivepatch.lab import tools

    try:
        require_shim()
    except LivepatchError as error:
        yield Missing("shim", error.message, error.remedy)
    for module, (purpose, remedy) in _EXTRAS.items():
        try:
            __import__(module)
        except ImportError:
            yield Missing(module, f"needed for {purpose}", remedy)
    for path, (purpose, remedy) in _MOUNTS.items():
        with contextlib.suppress(PermissionError):
            if not (root / path).exists():
                yield Missing(f"/{path}", f"check does not see {purpose} without it", remedy)
    for tool in tools.PACKAGES:
        try:
            tools.find(tool)
        except LivepatchError as error:
            yield Missing(tool, "build, try and lab need it", error.remedy or f"apt-get install {tools.PACKAGES[tool]}")


def _lines(data: dict[str, object], missing: list[Missing]) -> Iterator[str]:
    yield f"pylivepatch {data['package']}, Python {data['python']}"
    yield f"klpctl      {data['klpctl'] or 'not loaded'}"
    yield f"kernel      {data['kernel'] or 'cannot be live-patched'}, by {data['backend'] or 'nothing'}"
    features = data["features"]
    if isinstance(features, dict):
        yield f"abilities   {', '.join(name for name, there in features.items() if there) or 'the basic ones'}"
    if data["lockdown"]:
        yield f"lockdown    {data['lockdown']}"
    if data["signed_only"]:
        yield "modules     only signed ones are loaded"
    for each in missing:
        yield f"without {each.subject}: {each.reason}"
        if each.remedy:
            yield f"    {each.remedy}"
    if not missing:
        yield "nothing is missing"


def _text(path: Path) -> str | None:
    with contextlib.suppress(OSError):
        return path.read_text().strip()
    return None
