# SPDX-License-Identifier: MIT
"""What modules that are installed tell of a kernel: the CRCs of its exports, and how its modules look."""

from __future__ import annotations

import contextlib
import gzip
import itertools
from pathlib import Path
from typing import TYPE_CHECKING

from pylivepatch.elf.file import Image

if TYPE_CHECKING:
    from collections.abc import Mapping


def symvers(root: Path, release: str) -> tuple[Path, Mapping[str, int]] | None:
    """Read the CRCs that the kernel's build left behind, if they are installed.

    Returns:
        The file, and the CRC of each symbol; None without such a file.

    Source: Module.symvers.
    """
    for path in (
        root / "lib/modules" / release / "build/Module.symvers",
        root / "boot" / f"symvers-{release}.gz",
        root / "lib/modules" / release / "symvers.gz",
    ):
        with contextlib.suppress(OSError, ValueError, EOFError):
            data = path.read_bytes()
            text = gzip.decompress(data) if path.suffix == ".gz" else data
            lines = (line.split("\t") for line in text.decode().splitlines())
            return path, {name: int(crc, 16) for crc, name, *_ in lines}
    return None


def sibling(root: Path, release: str) -> Image | None:
    """Find a module that came with the kernel, which tells what modules of it look like."""
    top = root / "lib/modules" / release
    try:
        with (top / "modules.dep").open() as index:
            paths = [top / line.partition(":")[0] for line in itertools.islice(index, 16)]
    except OSError:
        return None
    for path in paths:
        if "kernel" in path.parts:
            with contextlib.suppress(Exception):  # whatever is wrong with it, the next may do
                return Image.read(path)
    return None
