# SPDX-License-Identifier: MIT
"""How a kernel is emulated."""

from __future__ import annotations

from pathlib import Path

import pytest

from pylivepatch.lab import accel

WITH = b"\x7fELF\0schedule\0__klp_sched_try_switch\0klp_find_func\0"


@pytest.mark.parametrize(
    ("image", "chosen", "used"),
    [
        (WITH, accel.TCG, accel.TCG_ONE_THREAD),
        (WITH, "kvm", "kvm"),
        (WITH.replace(b"__klp_sched_try_switch\0", b""), accel.TCG, accel.TCG),
        (WITH.replace(b"__klp_sched_try_switch", b"__klp_sched_try_switch_x"), accel.TCG, accel.TCG),
    ],
)
def test_kernels_that_rewrite_code_get_one_thread(tmp_path: Path, image: bytes, chosen: str, used: str) -> None:
    """What decides is the function in the kernel's image, not the kernel's version."""
    (tmp_path / "vmlinux").write_bytes(image)
    assert accel.for_kernel(chosen, tmp_path / "vmlinux") == used
