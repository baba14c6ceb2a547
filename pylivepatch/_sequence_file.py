# SPDX-License-Identifier: MIT
"""Sequence files: TOML, checked to the last key before anything is done."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from pylivepatch.errors import BadDataError, PatchNotFoundError
from pylivepatch.kernel.names import confirm_seconds, module_options, patch_name, timeout_seconds

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from pylivepatch._step import Step

_ACTIONS = ("enable", "revert")
_POLICIES = ("reverse", "report")
_COMMON = ("timeout", "on_timeout", "check_timeout")
_NOTHING = "nothing has changed"


def check(step: Step) -> None:
    """Insist on a step that makes sense.

    Raises:
        BadDataError: It does not; the key is named.
    """
    if (step.file is None) == (step.name is None):
        raise _bad("file, name", "exactly one of them is needed")
    if step.name is not None:
        _checked("name", lambda: patch_name(step.name or ""))
        if step.params:
            raise _bad("params", "they are for a file that is loaded")
    if step.action not in _ACTIONS:
        raise _bad("action", f"{step.action!r} is not {' or '.join(_ACTIONS)}")
    if step.on_timeout not in _POLICIES:
        raise _bad("on_timeout", f"{step.on_timeout!r} is not {' or '.join(_POLICIES)}")
    _checked("params", lambda: module_options(step.params))
    _checked("timeout", lambda: timeout_seconds(step.timeout))
    _checked("check_timeout", lambda: timeout_seconds(step.check_timeout))
    if step.confirm_within is not None:
        if step.action != "enable":
            raise _bad("confirm_within", "only what is enabled can be confirmed")
        _checked("confirm_within", lambda: confirm_seconds(step.confirm_within, owned=True))
    if step.check is not None and not step.check:
        raise _bad("check", "it is empty")
    if any("\0" in word for word in step.check or ()):
        raise _bad("check", "a NUL cannot be passed")


def read(path: Path, make: Callable[..., Step]) -> list[Step]:
    """Read a sequence file.

    Args:
        path: The file.
        make: Makes a step of keywords, and checks it.

    Raises:
        PatchNotFoundError: There is no such file.
        BadDataError: It cannot be used; file, key and reason are named.
    """
    import tomllib

    try:
        data = tomllib.loads(path.read_bytes().decode())
    except FileNotFoundError:
        raise PatchNotFoundError(f"there is no sequence file {path}", after=_NOTHING, remedy="check the path") from None
    except OSError as error:
        raise BadDataError(f"{path}: it cannot be read: {error.strerror}", after=_NOTHING) from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise BadDataError(f"{path}: it is not TOML: {error}", after=_NOTHING, remedy="correct it there") from None
    try:
        return _steps(data, path.parent, make)
    except BadDataError as error:
        raise BadDataError(f"{path}: {error.message}", after=_NOTHING, remedy=error.remedy) from None


def _steps(data: Mapping[str, object], folder: Path, make: Callable[..., Step]) -> list[Step]:
    _known(data, ("defaults", "step"))
    defaults = data.get("defaults", {})
    if not isinstance(defaults, dict):
        raise _bad("defaults", "it is not a table")
    _known(defaults, _COMMON, "defaults: ")
    steps = data.get("step")
    if not isinstance(steps, list) or not steps or not all(isinstance(step, dict) for step in steps):
        raise _bad("step", "there is no [[step]]")
    found = []
    for number, step in enumerate(steps, start=1):
        try:
            found.append(_step({**defaults, **step}, folder, make))
        except BadDataError as error:
            raise BadDataError(f"step {number}: {error.message}", remedy=error.remedy) from None
    return found


def _step(table: Mapping[str, object], folder: Path, make: Callable[..., Step]) -> Step:
    _known(table, tuple(_KINDS))
    values = {key: _KINDS[key](key, value) for key, value in table.items()}
    if isinstance(file := values.get("file"), Path):
        values["file"] = folder / file
    return make(**values)


def _known(table: Mapping[str, object], keys: tuple[str, ...], where: str = "") -> None:
    for key in table:
        if key not in keys:
            raise BadDataError(f"{where}{key}: there is no such key", remedy=f"take {', '.join(keys)}")


def _bad(key: str, reason: str) -> BadDataError:
    return BadDataError(f"{key}: {reason}", after=_NOTHING, remedy="correct it")


def _checked(key: str, look: Callable[[], object]) -> None:
    try:
        look()
    except BadDataError as error:
        raise _bad(key, error.message) from None


def _text(key: str, value: object) -> str:
    if not isinstance(value, str):
        raise _bad(key, "it is not a string")
    return value


def _path(key: str, value: object) -> Path:
    return Path(_text(key, value))


def _seconds(key: str, value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise _bad(key, "it is not a number of seconds")
    try:
        return float(value)
    except OverflowError:
        raise _bad(key, "that many seconds cannot be waited for; inf waits for ever") from None


def _command(key: str, value: object) -> str | tuple[str, ...]:
    if isinstance(value, list) and all(isinstance(word, str) for word in value):
        return tuple(value)
    if isinstance(value, str):
        return value
    raise _bad(key, "it is neither a string nor an array of strings")


def _params(key: str, value: object) -> dict[str, str | int | bool]:
    if not isinstance(value, dict) or not all(isinstance(each, str | int | bool) for each in value.values()):
        raise _bad(key, "it is not a table of strings, integers and booleans")
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
