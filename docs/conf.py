# SPDX-License-Identifier: MIT
# ruff: noqa: ARG001 (Sphinx passes more than is needed)
"""Sphinx, nitpicky: `make docs`."""

from __future__ import annotations

import builtins
import enum
import re
from importlib import metadata
from typing import TYPE_CHECKING, Any

import click
from docutils import nodes
from docutils.parsers.rst import Directive

import pylivepatch
from pylivepatch.cli._main import group

if TYPE_CHECKING:
    from pathlib import Path

    from sphinx.application import Sphinx
    from sphinx.environment import BuildEnvironment

project = "pylivepatch"
author = "The pylivepatch developers"
copyright = author  # noqa: A001
release = metadata.version("pylivepatch")

extensions = ["sphinx.ext.autodoc", "sphinx.ext.napoleon"]
html_theme = "furo"
html_title = f"pylivepatch {release}"
highlight_language = "none"

default_role = "py:obj"
autodoc_member_order = "bysource"
autodoc_inherit_docstrings = False
napoleon_numpy_docstring = False
napoleon_use_ivar = True
napoleon_use_rtype = False

# What is not of this project: its documentation is elsewhere.
_ELSEWHERE = ("asyncio", "collections", "enum", "os", "pathlib", "time", "types", "typing")
nitpick_ignore_regex = [
    ("py:.*", rf"({'|'.join(_ELSEWHERE)})(\..*)?"),
    ("py:.*", rf"({'|'.join(vars(builtins))})(\..*)?"),
    ("py:.*", r"pylivepatch\.(_|elf|kernel).*"),
    ("py:.*", r"(Iterator|Mapping|Path|Literal|Self|MappingProxyType)"),
]
# An attribute, and napoleon makes no target of it.
nitpick_ignore = [("py:obj", "missing")]
_MADE_INSIDE = (
    "pylivepatch.Patch",
    "pylivepatch.Transition",
    "pylivepatch.Features",
    "pylivepatch.aio.Patch",
    "pylivepatch.aio.Transition",
    "pylivepatch.Step",
    "pylivepatch.StepReport",
    "pylivepatch.PlannedStep",
)
_LITERALS = {
    **{name: name for name in ("BackendChoice", "BackendName", "EventSource", "OnProgress", "OnTimeout", "Params")},
    "_P": "Patch",
}


class CommandHelp(Directive):
    """What ``--help`` says, so that it is written once: ``.. command-help:: load``."""

    required_arguments = 1
    final_argument_whitespace = True

    def run(self) -> list[nodes.Node]:
        """Ask click."""
        command: click.Command = group
        context = click.Context(command, info_name="pylivepatch", terminal_width=88)
        for name in self.arguments[0].split():
            if name != "pylivepatch":
                assert isinstance(command, click.Group)
                found = command.get_command(context, name)
                assert found is not None, name
                command, context = found, click.Context(found, context, name, terminal_width=88)
        text = command.get_help(context)
        return [nodes.literal_block(text, text, language="none")]


def short_names(app: Sphinx, env: BuildEnvironment, node: nodes.Element, text: nodes.Element) -> nodes.Element | None:
    """Lead names as the code has them, pylivepatch.core.Core, to where users import them."""
    head, _, name = node["reftarget"].rpartition(".")
    if name in _LITERALS:
        return nodes.literal(name, _LITERALS[name])
    if node["reftarget"] == name or (head.startswith("pylivepatch") and not head.startswith("pylivepatch.build")):
        if name not in pylivepatch.__all__:
            return None
        target = f"pylivepatch.{name}"
    elif head.rpartition(".")[2] in pylivepatch.__all__:
        target = f"pylivepatch.{head.rpartition('.')[2]}.{name}"
    else:
        return None
    domain = env.domains.python_domain
    return domain.resolve_xref(env, node["refdoc"], app.builder, "obj", target, node, text)


def hide_constructor(
    app: Sphinx, what: str, name: str, obj: object, options: Any, signature: str | None, returned: str | None
) -> tuple[str, None] | None:
    """Leave out how the package makes what users never make themselves."""
    if what == "exception" or name in _MADE_INSIDE or isinstance(obj, enum.EnumType):
        return "", None
    return None


def plain_attribute(app: Sphinx, what: str, name: str, obj: object, options: Any, lines: list[str]) -> None:
    """Keep napoleon from taking what stands before a colon for an attribute's type."""
    if what in ("attribute", "property"):
        lines[:0] = ["..", ""]


def markdown(app: Sphinx, path: Path, parent: str, content: list[str]) -> None:
    """Turn the little Markdown that CHANGELOG.md uses into reStructuredText."""
    if path.suffix != ".md":
        return
    text = re.sub(r"<!--.*?-->\n", "", content[0], flags=re.DOTALL)
    text = re.sub(r"`([^`]+)`", r"``\1``", text)
    for mark, line in (("#", "="), ("##", "-")):
        for heading in re.findall(rf"^{mark} (.*)$", text, flags=re.MULTILINE):
            text = text.replace(f"{mark} {heading}\n", f"{heading}\n{line * len(heading)}\n")
    content[0] = text


def setup(app: Sphinx) -> None:
    """Connect these."""
    app.add_directive("command-help", CommandHelp)
    app.connect("missing-reference", short_names)
    app.connect("autodoc-process-signature", hide_constructor)
    app.connect("autodoc-process-docstring", plain_attribute, priority=400)
    app.connect("include-read", markdown)
