# SPDX-License-Identifier: MIT
"""CRCs as the kernel's build left them behind."""

from __future__ import annotations

import gzip
from typing import TYPE_CHECKING

from pylivepatch.module.versions import symvers

if TYPE_CHECKING:
    from pathlib import Path


def test_symvers(tmp_path: Path) -> None:
    """Module.symvers is read where the headers, or the distribution, put it."""
    assert symvers(tmp_path, "6.1") is None
    text = "0x00000001\talpha\tvmlinux\tEXPORT_SYMBOL\t\n0xdeadbeef\tbeta\tfs/ext4/ext4\tEXPORT_SYMBOL_GPL\tNS\n"
    wanted = {"alpha": 1, "beta": 0xDEADBEEF}
    (tmp_path / "boot").mkdir()
    path = tmp_path / "boot/symvers-6.1.gz"
    path.write_bytes(gzip.compress(text.encode()))
    assert symvers(tmp_path, "6.1") == (path, wanted)
    path = tmp_path / "lib/modules/6.1/build/Module.symvers"
    path.parent.mkdir(parents=True)
    path.write_text(text)
    assert symvers(tmp_path, "6.1") == (path, wanted)
