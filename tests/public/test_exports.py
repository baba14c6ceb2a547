# SPDX-License-Identifier: MIT
"""The public names: what is exported, and that it is documented and typed."""

from __future__ import annotations

import dataclasses
import importlib
import inspect
import pkgutil
import typing
from pathlib import Path
from types import ModuleType

import pytest

import pylivepatch

HERE = Path(pylivepatch.__file__).parent
NOUNS = [
    name for _, name, package in pkgutil.iter_modules(pylivepatch.__path__) if not name.startswith("_") and not package
]
EXPORTS = [(name, getattr(pylivepatch, name)) for name in pylivepatch.__all__]


def noun(name: str) -> ModuleType:
    """Import a public module."""
    return importlib.import_module(f"pylivepatch.{name}")


def public_members(kind: type) -> list[tuple[str, object]]:
    """What a class itself offers."""
    return [
        (name, member)
        for name, member in vars(kind).items()
        if not name.startswith("_") and (inspect.isfunction(member) or isinstance(member, property | classmethod))
    ]


def test_all_is_sorted_and_complete() -> None:
    """`__all__` is sorted and is what the package has without a leading underscore."""
    assert pylivepatch.__all__ == sorted(pylivepatch.__all__)
    there = {
        name for name, value in vars(pylivepatch).items() if not name.startswith("_") and not inspect.ismodule(value)
    }
    assert pylivepatch.__version__
    assert there == set(pylivepatch.__all__)


@pytest.mark.parametrize("name", NOUNS)
def test_each_noun_says_what_is_public(name: str) -> None:
    """Each public module has `__all__`, sorted, without a private name."""
    names = noun(name).__all__
    assert names == sorted(names)
    assert not [public for public in names if public.startswith("_")]
    assert all(hasattr(noun(name), public) for public in names)


def test_every_exception_is_exported() -> None:
    """Every exception of `pylivepatch.errors` is in the package, under the one base."""
    for name in noun("errors").__all__:
        assert name in pylivepatch.__all__
        assert issubclass(getattr(pylivepatch, name), pylivepatch.LivepatchError)


@pytest.mark.parametrize(("name", "value"), EXPORTS)
def test_each_export_is_documented(name: str, value: object) -> None:
    """Each export, and each public member of it, has a docstring of its own."""
    assert vars(value)["__doc__"], name
    if inspect.isclass(value):
        for member, found in public_members(value):
            assert inspect.getdoc(found), f"{name}.{member}"


@pytest.mark.parametrize(("name", "value"), EXPORTS)
def test_no_any_in_signatures(name: str, value: type) -> None:
    """No public signature mentions Any."""
    for member, found in public_members(value):
        function = found.fget if isinstance(found, property) else found
        annotations = getattr(getattr(function, "__func__", function), "__annotations__", {})
        for annotation in annotations.values():
            assert "Any" not in str(annotation), f"{name}.{member}"
    if dataclasses.is_dataclass(value):
        assert not [field for field in dataclasses.fields(value) if field.type is typing.Any]


def test_no_getters() -> None:
    """Nothing public is called get_something."""
    for name, value in EXPORTS:
        members = [member for member, _ in public_members(value)]
        assert not [word for word in [name, *members] if word.startswith("get_")]


def test_files_are_short_and_licensed() -> None:
    """Each file is short enough to be read, and starts with its licence."""
    for path in HERE.rglob("*.py"):
        lines = path.read_text().splitlines()
        assert len(lines) <= (600 if path.relative_to(HERE).parts[0] in ("build", "lab") else 450), path
        assert lines[0] == "# SPDX-License-Identifier: MIT", path


def test_the_top_is_a_contents_page() -> None:
    """A public noun is a module, one of several files a package; private at the top are flows and the shim alone."""
    files = {path.name for path in HERE.glob("*.py")}
    assert len(files) <= 14
    assert {name for name in files if name.startswith("_") and not name.startswith("__")} == {"_flow.py"}


def test_the_package_is_marked_as_typed() -> None:
    """py.typed is there."""
    assert (HERE / "py.typed").exists()
