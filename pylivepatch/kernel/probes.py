# SPDX-License-Identifier: MIT
"""Who else has a hand in a function: kprobes, and users of ftrace that change where it goes."""

from __future__ import annotations

import contextlib
import re
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from pathlib import Path

_KPROBE = re.compile(r"[0-9a-f]+\s+(?P<kind>[kr])\s+(?P<name>[^\s+]+)\+0x(?P<offset>[0-9a-f]+)\s+(?P<rest>.*)")
_FTRACE = re.compile(r"(?P<name>\S+)(?: \[(?P<module>[^\]]+)\])? \(\d+\)(?P<flags>[ RIDOM]*)(?P<rest>.*)")
_HANDLER = re.compile(r"\(?([A-Za-z_][\w.]*)\+0x")
_WHERE = ("sys/kernel/tracing/enabled_functions", "sys/kernel/debug/tracing/enabled_functions")


class Kprobe(NamedTuple):
    """A kprobe; `module` is "" for the kernel image."""

    func: str
    module: str
    offset: int
    kretprobe: bool
    disabled: bool
    ftrace: bool


class Traced(NamedTuple):
    """A function that ftrace diverts; `handlers` are the functions it goes to, where the kernel tells."""

    func: str
    module: str
    ipmodify: bool
    direct: bool
    handlers: tuple[str, ...]


def kprobes(root: Path) -> list[Kprobe]:
    """Read all kprobes.

    Raises:
        OSError: They cannot be read: only root may, and debugfs must be mounted.

    Source: /sys/kernel/debug/kprobes/list.
    """
    found = []
    for line in (root / "sys/kernel/debug/kprobes/list").read_text().splitlines():
        if match := _KPROBE.match(line):
            words = re.findall(r"\[([^\]]+)\]", match["rest"])
            module = next((word for word in match["rest"].split() if not word.startswith("[")), "")
            found.append(
                Kprobe(
                    match["name"],
                    module,
                    int(match["offset"], 16),
                    match["kind"] == "r",
                    bool({"DISABLED", "GONE"} & set(words)),
                    "FTRACE" in words,
                )
            )
    return found


def traced(root: Path) -> list[Traced]:
    """Read all functions that ftrace diverts.

    Raises:
        OSError: They cannot be read: only root may, and tracefs must be mounted.

    Source: enabled_functions of tracefs: "I" for IPMODIFY, "D" for a direct call.
    """
    text = None
    for where in _WHERE:
        with contextlib.suppress(FileNotFoundError):
            text = (root / where).read_text()
            break
    if text is None:
        raise FileNotFoundError("enabled_functions is not there")
    # What belongs to the line before it starts with a tab: "\n\tdirect-->".
    return [
        Traced(
            match["name"],
            match["module"] or "",
            "I" in match["flags"],
            "D" in match["flags"],
            tuple(dict.fromkeys(_HANDLER.findall(match["rest"]))),
        )
        for line in text.replace("\n\t", "\t").splitlines()
        if (match := _FTRACE.match(line))
    ]
