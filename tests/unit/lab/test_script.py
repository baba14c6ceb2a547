# SPDX-License-Identifier: MIT
"""The shell text that the guest runs."""

from __future__ import annotations

import subprocess
from pathlib import Path

from pylivepatch.lab import script
from pylivepatch.lab.share import Share


def text(command: list[str], cwd: str = "/", environment: dict[str, str] | None = None) -> str:
    """Return the settings for *command*."""
    shares = [Share(Path("/a b"), "/a b", readonly=False), Share(Path("/c"), "/c")]
    return script.settings(command, shares=shares, cwd=cwd, environment=environment or {}, layer="x", nonce="n")


def test_arguments_survive_quoting(tmp_path: Path) -> None:
    """Spaces, quotes, dollars and empty arguments reach the command as they are."""
    words = ["printf", "%s|", "", "a b", "$HOME", "it's", '"', "`id`", "\\n", "new\nline", "*"]
    place = tmp_path / "with ' quote"
    place.mkdir()
    shell = text(words, str(place), {"X": "1 2"}) + "(command); (cd /; exec 9>&-)"
    done = subprocess.run(["/bin/sh", "-c", shell], capture_output=True, text=True, check=True)
    assert done.stdout == "".join(f"{word}|" for word in words[2:])


def test_the_start_script_is_a_shell_script() -> None:
    """The shell finds no fault in what the guest starts with."""
    for part in (script.START, text(["true"])):
        subprocess.run(["/bin/sh", "-n"], input=part, text=True, check=True)


def test_mounts() -> None:
    """Each share is mounted where it belongs, read-only ones so."""
    lines = text(["true"])
    assert "mount -t virtiofs share0 '/a b'" in lines
    assert "mount -t virtiofs -o ro share1 /c" in lines
