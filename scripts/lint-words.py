# SPDX-License-Identifier: MIT
"""Find words that the glossary has other words for, in the docs and in what the package tells its users."""

from __future__ import annotations

import re
import sys
from pathlib import Path

INSTEAD = {
    r"\bturn(?:s|ed|ing)?\s+(?:\S+\s+){0,3}round\b": "reverse",
    r"\b(?:taken|takes?|took|taking)\s+(?:\S+\s+){0,3}?back\b": "revert",
    r"\b(?:foreign|ordinary)\s+(?:live\s+)?patch": "standalone patch",
    r"\bis\s+gone\b": "does not exist any more, has ended, was unloaded",
    r"\b(?:lets?|letting)\s+go\s+of\b": "release",
    r"\bno\s+(?:policy|backend)\s'": "unknown ... '",
}
"""What is not written, as a pattern, and what is."""


def findings(text: str) -> list[tuple[int, str, str]]:
    """Return the line, the words, and what to write instead; words may be on two lines."""
    return sorted(
        (text.count("\n", 0, match.start()) + 1, " ".join(match[0].split()), better)
        for pattern, better in INSTEAD.items()
        for match in re.finditer(pattern, text, re.IGNORECASE)
    )


def main(top: Path) -> int:
    """Print what is found below *top*, and return whether that is anything."""
    files = [*top.glob("*.md"), *top.glob("docs/**/*.rst"), *top.glob("pylivepatch/**/*.py")]
    bad = 0
    for path in sorted(files):
        name = path.relative_to(top).as_posix()
        for line, words, better in findings(path.read_text()):
            print(f"{name}:{line}: write {better!r}, not {words!r}")
            bad = 1
    return bad


if __name__ == "__main__":
    sys.exit(main(Path(__file__).parents[1]))
