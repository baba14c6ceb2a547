# SPDX-License-Identifier: MIT
"""The kernel log: records as /dev/kmsg gives them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pylivepatch.kernel.log import KernelLog

if TYPE_CHECKING:
    from pathlib import Path


def test_only_what_is_new_and_ours(tmp_path: Path) -> None:
    """Lines since the start about live patches and the module are read, without continuations."""
    log = tmp_path / "kmsg"
    log.write_text("3,1,1,-;livepatch: old\n")
    kernel_log = KernelLog(str(log))
    assert kernel_log.words("fix") == []
    for record in (
        "3,2,2,-;livepatch: symbol 'f' not found in symbol table\n",
        "6,3,3,-;usb 1-1: new device\n SUBSYSTEM=usb\n",
        "3,4,4,-;fix: no\n",
    ):
        with log.open("a") as file:
            file.write(record)
        found = kernel_log.words("fix")
        text = record.partition(";")[2].partition("\n")[0]
        assert found == ([] if text.startswith("usb") else [text])
    kernel_log.close()


def test_without_permission(tmp_path: Path) -> None:
    """Who may not read the log has no words, and no error."""
    log = KernelLog(str(tmp_path / "gone"))
    assert log.words("fix") == []
    log.close()
