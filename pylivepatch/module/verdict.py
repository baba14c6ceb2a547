# SPDX-License-Identifier: MIT
"""What was proved of a patch module before it was written, by what, and what was not. The module carries it."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Self

SECTION = ".klpctl.proof"
"""The section of a module that has the verdict."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What was found out about a patch module by the checker, which shares no code with what made the module.

    Attributes:
        release: The kernel release that the module is for.
        build_ids: Build ids, in hexadecimal, of vmlinux and of each module that it was proved against, by name.
        sources: The source files that were compiled.
        compiler: What compiled them, as it names itself; "" when nothing was compiled.
        matched: How many functions of these sources are, byte for byte, what runs.
        functions: How many functions of the module are, byte for byte, what the kernel's own build makes.
        references: How many references of the module were followed to what they mean.
        notes: What a person should know.
        unproved: What was not proved, with the reason.
        complaints: What is wrong. A module with any is not written.
    """

    release: str
    build_ids: dict[str, str]
    sources: tuple[str, ...] = ()
    compiler: str = ""
    matched: int = 0
    functions: int = 0
    references: int = 0
    notes: tuple[str, ...] = ()
    unproved: tuple[str, ...] = ()
    complaints: tuple[str, ...] = ()

    @property
    def proved(self) -> bool:
        """Whether nothing is wrong, and nothing was left unproved."""
        return not self.complaints and not self.unproved

    def pack(self) -> bytes:
        """Return it as it stands in a module."""
        return json.dumps(asdict(self), sort_keys=True, separators=(",", ":")).encode() + b"\n"

    @classmethod
    def unpack(cls, data: bytes) -> Self:
        """Read it from a module.

        Raises:
            ValueError: It is none.
        """
        try:
            found: dict[str, object] = json.loads(data)
            ids = found["build_ids"]
            if not isinstance(ids, dict):
                raise TypeError("build_ids")
            matched, functions, references = (int(str(found[name])) for name in ("matched", "functions", "references"))
            return cls(
                release=str(found["release"]), build_ids={str(name): str(value) for name, value in ids.items()},
                sources=_texts(found["sources"]), compiler=str(found["compiler"]), matched=matched,
                functions=functions, references=references, notes=_texts(found["notes"]),
                unproved=_texts(found["unproved"]), complaints=_texts(found["complaints"]))
        except (TypeError, KeyError, AttributeError) as error:
            raise ValueError(f"no verdict: {error}") from error


def _texts(value: object) -> tuple[str, ...]:
    return tuple(map(str, value)) if isinstance(value, list) else ()
