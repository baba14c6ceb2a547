# SPDX-License-Identifier: MIT
"""``pylivepatch load`` and ``unload``."""

from __future__ import annotations

import time

import click

from pylivepatch.cli._session import (
    Session,
    changed,
    if_needed_option,
    json_option,
    policy,
    progress_bar,
    waiting_options,
)
from pylivepatch.cli.completion import patch_names
from pylivepatch.kernel.names import patch_name
from pylivepatch.module import ModuleFile


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
@if_needed_option
@json_option
@click.pass_obj
def load(
    session: Session,
    file: str,
    params: dict[str, str | int | bool],
    timeout: float | None,
    on_timeout: str,
    no_wait: bool,
    if_needed: bool,
) -> None:
    """Load the patch module FILE.

    One that registers with klpctl changes nothing until it is enabled. A standalone
    patch is enabled by being loaded; when its deadline passes it is reversed and
    unloaded.
    """
    session.subject = patch_name(ModuleFile.open(file).name)
    with session.core() as core, progress_bar(session, session.subject) as show:
        there, start = session.subject in core, time.monotonic()
        patch = core.load(
            file,
            params=params,
            timeout=timeout,
            on_timeout=policy(on_timeout),
            wait=not no_wait,
            if_needed=if_needed,
            on_progress=show,
        )
        took = None if there or no_wait or patch.registered else time.monotonic() - start
        changed(session, patch, took, changed=not there)


@click.command()
@click.argument("name", required=False, shell_complete=patch_names)
@click.option("--replaced", is_flag=True, help="Unload all patches that another one replaced, instead of NAME.")
@if_needed_option
@json_option
@click.pass_obj
def unload(session: Session, name: str | None, replaced: bool, if_needed: bool) -> None:
    """Unload the module of the patch NAME, which must not be enabled."""
    if (name is None) != replaced:
        raise click.UsageError("give the NAME of a patch, or --replaced")
    with session.core() as core:
        if name is None:
            names = core.unload_replaced()
            text = "\n".join(f"{each}: unloaded" for each in names) or "no patch was replaced"
            session.result({"unloaded": names, "changed": bool(names)}, text)
            return
        session.subject = name = patch_name(name)
        was_loaded = name in core or not if_needed
        if was_loaded:
            core.patch(name).unload()
        text = f"{name}: {'unloaded' if was_loaded else 'not loaded already'}"
        session.result({"name": name, "unloaded": [name] if was_loaded else [], "changed": was_loaded}, text)
