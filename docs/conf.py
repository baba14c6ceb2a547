# SPDX-License-Identifier: MIT
# ruff: noqa: ARG001 (Sphinx passes more than is needed)
"""Sphinx, nitpicky: `make docs`."""

from __future__ import annotations

import builtins
import enum
import re
from importlib import metadata
from typing import TYPE_CHECKING, Any

from docutils import nodes

import pylivepatch

if TYPE_CHECKING:
    from sphinx.application import Sphinx
    from sphinx.environment import BuildEnvironment

project = "pylivepatch"
author = "The pylivepatch developers"
copyright = author  # noqa: A001
release = metadata.version("pylivepatch")

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx_click"]
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


def help_as_text(app: Sphinx, context: object, lines: list[str]) -> None:
    """Keep what a terminal shows of a help text from being taken for markup."""
    lines[:] = [re.sub(r"`([^`]+)`", r"``\1``", line).replace("*", "\\*") for line in lines]


def setup(app: Sphinx) -> None:
    """Connect these."""
    for part in ("description", "options", "arguments", "epilog"):
        app.connect(f"sphinx-click-process-{part}", help_as_text)
    app.connect("missing-reference", short_names)
    app.connect("autodoc-process-signature", hide_constructor)
    app.connect("autodoc-process-docstring", plain_attribute, priority=400)
