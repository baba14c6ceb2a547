# SPDX-License-Identifier: MIT
"""``pylivepatch load`` and ``unload``."""

from __future__ import annotations

import click

from pylivepatch.cli._session import (
    Session,
    changed,
    follow,
    interruptible,
    json_option,
    policy,
    waiting_options,
)
from pylivepatch.cli.completion import patch_names
from pylivepatch.errors import TransitionReversedError, TransitionTimeoutError
from pylivepatch.module import ModuleFile
from pylivepatch.state import Target


def parameters(_: click.Context, __: click.Parameter, words: tuple[str, ...]) -> dict[str, str | int | bool]:
    """Read PARAM=VALUE words."""
    params: dict[str, str | int | bool] = {}
    for word in words:
        key, equals, value = word.partition("=")
        if not equals or not key:
            raise click.BadParameter(f"{word!r} is not PARAM=VALUE")
        params[key] = value
    return params


@click.command()
@click.argument("file", type=click.Path())
@click.argument("params", nargs=-1, metavar="[PARAM=VALUE]...", callback=parameters)
@waiting_options
@json_option
@click.pass_obj
def load(
    session: Session,
    file: str,
    params: dict[str, str | int | bool],
    timeout: float | None,
    on_timeout: str,
    no_wait: bool,
) -> None:
    """Load the patch module FILE.

    One that registers with klpctl changes nothing until it is enabled. Any other
    is enabled by being loaded; when its deadline passes it is reversed and
    unloaded.
    """
    with session.core() as core:
        find = lambda: core.patch(ModuleFile.open(file).name)  # noqa: E731
        with interruptible(session, find, Target.PATCHED, unload=True):
            patch = core.load(file, **params)
            transition = patch.transition
            if transition is not None:
                transition.within(timeout, policy(on_timeout))
                if not no_wait:
                    try:
                        follow(session, transition)
                    except (TransitionTimeoutError, TransitionReversedError) as error:
                        if not error.state.in_transition:
                            patch.unload()
                            error.after = "it was reversed and unloaded"
                        raise
            changed(session, patch, transition)


@click.command()
@click.argument("name", required=False, shell_complete=patch_names)
@click.option("--replaced", is_flag=True, help="Unload all patches that another one replaced, instead of NAME.")
@json_option
@click.pass_obj
def unload(session: Session, name: str | None, replaced: bool) -> None:
    """Unload the module of the patch NAME, which must not be enabled."""
    if (name is None) != replaced:
        raise click.UsageError("give the NAME of a patch, or --replaced")
    with session.core() as core:
        if name is None:
            names = core.unload_replaced()
            session.result({"unloaded": names}, "\n".join(f"{each}: unloaded" for each in names) or "none is replaced")
            return
        patch = core.patch(name)
        patch.unload()
        session.result({"name": patch.name, "state": "unloaded"}, f"{patch.name}: unloaded")
