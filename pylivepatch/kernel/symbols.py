# SPDX-License-Identifier: MIT
"""The running kernel's symbol table, of which some names are wanted."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

_CHUNK = 1 << 20


class Found(NamedTuple):
    """A symbol; `module` is "" for the kernel image, `address` 0 for those who may not see it."""

    address: int
    module: str


class Kallsyms:
    """What the kernel's symbol table says about some names.

    Args:
        root: Where /proc is found.
        names: The names.

    Raises:
        OSError: The table cannot be read.

    Source: /proc/kallsyms; the addresses are for root alone.
    """

    def __init__(self, root: Path, names: Iterable[str]) -> None:
        data = _all(root / "proc/kallsyms")
        self._found = {name: list(_find(data, name.encode())) for name in names}

    def count(self, name: str, module: str) -> int:
        """Count symbols of a name in a module, or in the kernel image ("")."""
        return sum(found.module == module for found in self._found.get(name, ()))

    def find(self, name: str) -> Found | None:
        """Find a symbol by name: that of the kernel image, or else the first of a module."""
        found = self._found.get(name)
        if not found:
            return None
        return next((each for each in found if not each.module), found[0])

    def address(self, name: str) -> int:
        """Find the address of a symbol of the kernel image; 0 when it is not known."""
        found = self.find(name)
        return found.address if found and not found.module else 0


def _all(path: Path) -> bytes:
    data = bytearray()
    with path.open("rb", buffering=0) as file:
        while chunk := file.read(_CHUNK):
            data += chunk
    return bytes(data)


def _find(data: bytes, name: bytes) -> Iterator[Found]:
    wanted = b" " + name
    at = data.find(wanted)
    while at >= 0:
        end = data.find(b"\n", at)
        fields = data[data.rfind(b"\n", 0, at) + 1 : end if end >= 0 else len(data)].split()
        if fields[2] == name:
            yield Found(int(fields[0], 16), fields[3].strip(b"[]").decode() if len(fields) > 3 else "")
        at = data.find(wanted, at + 1)
