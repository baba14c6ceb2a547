# SPDX-License-Identifier: MIT
"""Closes a kernel to unsigned modules and then to all, in a guest of its own: there is no way back."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from pylivepatch import lab
from pylivepatch.lab import module
from pylivepatch.module.sign import Signer

TOP = Path(__file__).parents[2]


def signed(pytestconfig: pytest.Config, folder: Path) -> Path:
    """A patch that is signed well, with a key that no kernel knows."""
    target = lab.resolve(pytestconfig.getoption("kernel"), pytestconfig.getoption("flavour"))
    core = module.klpctl(target)
    assert core
    built = module.build(target, TOP / "tests/payloads", using=[core]).modules
    plain = next(path for path in built if path.name == "plp_cmdline.ko")
    key, certificate, file = folder / "key", folder / "certificate", folder / plain.name
    subprocess.run(["openssl", "req", "-new", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=own/",
                    "-keyout", key, "-out", certificate], check=True, capture_output=True)  # fmt: skip
    file.write_bytes(Signer(key, certificate).signed(plain.read_bytes()))
    return file


def test_a_kernel_closed_to_modules(pytestconfig: pytest.Config, tmp_path: Path) -> None:
    """Lockdown, enforced signatures and disabled modules are each found before the load, and refuse it."""
    status = lab.run(
        ["python3", str(TOP / "tests/vm/alone/lockdown.py"), str(signed(pytestconfig, tmp_path))],
        kernel=pytestconfig.getoption("kernel"),
        flavour=pytestconfig.getoption("flavour"),
        shares=[TOP, tmp_path],
        modules=[TOP / "tests/payloads"],
        timeout=900,
    )
    assert status == 0
