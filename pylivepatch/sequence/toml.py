# SPDX-License-Identifier: MIT
"""Sequence files: TOML, checked to the last key before anything is done."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from pylivepatch.errors import BadDataError, PatchNotFoundError
from pylivepatch.sequence.step import NOTHING, Step, bad

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping


_COMMON = ("timeout", "on_timeout", "check_timeout")


def read(path: Path) -> list[Step]:
    """Read a sequence file.

    Args:
        path: The file.

    Raises:
        PatchNotFoundError: There is no such file.
        BadDataError: It cannot be used; file, key and reason are named.
    """
    import tomllib

    try:
        data = tomllib.loads(path.read_bytes().decode())
    except FileNotFoundError:
        raise PatchNotFoundError(f"there is no sequence file {path}", after=NOTHING, remedy="check the path") from None
    except OSError as error:
        raise BadDataError(f"{path}: it cannot be read: {error.strerror}", after=NOTHING) from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise BadDataError(f"{path}: it is not TOML: {error}", after=NOTHING, remedy="correct it there") from None
    try:
        return _steps(data, path.parent)
    except BadDataError as error:
        raise BadDataError(f"{path}: {error.message}", after=NOTHING, remedy=error.remedy) from None


def _steps(data: Mapping[str, object], folder: Path) -> list[Step]:
    _known(data, ("defaults", "step"))
    defaults = data.get("defaults", {})
    if not isinstance(defaults, dict):
        raise bad("defaults", "it is not a table")
    _known(defaults, _COMMON, "defaults: ")
    steps = data.get("step")
    if not isinstance(steps, list) or not steps or not all(isinstance(step, dict) for step in steps):
        raise bad("step", "there is no [[step]]")
    found = []
    for number, step in enumerate(steps, start=1):
        try:
            found.append(_step({**defaults, **step}, folder))
        except BadDataError as error:
            raise BadDataError(f"step {number}: {error.message}", remedy=error.remedy) from None
    return found


def _step(table: Mapping[str, object], folder: Path) -> Step:
    _known(table, tuple(_KINDS))
    values = {key: _KINDS[key](key, value) for key, value in table.items()}
    if isinstance(file := values.get("file"), Path):
        values["file"] = folder / file
    return Step(**values)  # type: ignore[arg-type]


def _known(table: Mapping[str, object], keys: tuple[str, ...], where: str = "") -> None:
    for key in table:
        if key not in keys:
            raise BadDataError(f"{where}{key}: unknown key", remedy=f"give one of {', '.join(keys)}")


def _text(key: str, value: object) -> str:
    if not isinstance(value, str):
        raise bad(key, "it is not a string")
    return value


def _path(key: str, value: object) -> Path:
    return Path(_text(key, value))


def _seconds(key: str, value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise bad(key, "it is not a number of seconds")
    try:
        return float(value)
    except OverflowError:
        raise bad(key, "that many seconds cannot be waited for; inf waits for ever") from None


def _command(key: str, value: object) -> str | tuple[str, ...]:
    if isinstance(value, list) and all(isinstance(word, str) for word in value):
        return tuple(value)
    if isinstance(value, str):
        return value
    raise bad(key, "it is neither a string nor an array of strings")


def _params(key: str, value: object) -> dict[str, str | int | bool]:
    if not isinstance(value, dict) or not all(isinstance(each, str | int | bool) for each in value.values()):
        raise bad(key, "it is not a table of strings, integers and booleans")
    return dict(value)


_KINDS: dict[str, Callable[[str, object], object]] = {
    "file": _path,
    "name": _text,
    "action": _text,
    "params": _params,
    "timeout": _seconds,
    "on_timeout": _text,
    "check": _command,
    "check_timeout": _seconds,
    "confirm_within": _seconds,
}
