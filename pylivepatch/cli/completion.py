# SPDX-License-Identifier: MIT
"""``pylivepatch completion``, and what completes names of patches."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

import click
from click.shell_completion import CompletionItem, ShellComplete, get_completion_class

from pylivepatch.boot.store import Store
from pylivepatch.cli._session import Session, json_option
from pylivepatch.core import Core
from pylivepatch.errors import LivepatchError

if TYPE_CHECKING:
    from collections.abc import Iterable

_VARIABLE = "_PYLIVEPATCH_COMPLETE"
_SHELLS = ("bash", "fish", "zsh")


def patch_names(ctx: click.Context, _: click.Parameter, incomplete: str) -> list[str]:
    """Complete the name of a patch, from the kernel as anybody may read it."""
    # Not through klpctl: pressing Tab loads no module.
    with contextlib.suppress(LivepatchError, OSError), Core("sysfs", root=_root(ctx)) as core:
        return _starting((status.name for status in core.status()), incomplete)
    return []


def patch_names_and_files(ctx: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Complete the name of a patch, or leave it to the shell to complete that of a file."""
    names = [] if "/" in incomplete else patch_names(ctx, parameter, incomplete)
    return [*map(CompletionItem, names), CompletionItem(incomplete, type="file")]


def installed_names(ctx: click.Context, _: click.Parameter, incomplete: str) -> list[str]:
    """Complete the name of an installed patch."""
    with contextlib.suppress(LivepatchError, OSError):
        store = Store(root=_root(ctx))
        return _starting((each.name for release in store.releases() for each in store.patches(release)), incomplete)
    return []


@click.command()
@click.argument("shell", type=click.Choice(_SHELLS))
@json_option
@click.pass_context
def completion(ctx: click.Context, shell: str) -> None:
    """Print what makes the shell complete commands, options and names of patches.

    \b
    bash:  pylivepatch completion bash >/etc/bash_completion.d/pylivepatch
    zsh:   pylivepatch completion zsh >/usr/local/share/zsh/site-functions/_pylivepatch
    fish:  pylivepatch completion fish >/etc/fish/completions/pylivepatch.fish
    """  # noqa: D301 (click's mark)
    kind = get_completion_class(shell)
    assert kind is not None
    # Of the base class: that of bash wants to run the bash of this machine first.
    script = ShellComplete.source(kind(ctx.find_root().command, {}, "pylivepatch", _VARIABLE))
    ctx.ensure_object(Session).result({"shell": shell, "script": script}, script)


def _root(ctx: click.Context) -> str:
    return str(ctx.find_root().params.get("root") or "/")


def _starting(names: Iterable[str], incomplete: str) -> list[str]:
    spelled = incomplete.replace("-", "_")
    return sorted({name for name in names if name.startswith(spelled)})
