# SPDX-License-Identifier: MIT
"""A cache of its own for each test, and a small archive in it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pylivepatch.lab import archive, lists

SPLIT = ("dracut | initramfs-tools, linux-base-7.3.4+deb13-amd64 (= 7.3.4-1~bpo13+1), "
         "linux-binary-7.3.4+deb13-amd64 (= 7.3.4-1~bpo13+1), linux-modules-7.3.4+deb13-amd64 (= 7.3.4-1~bpo13+1)")
LISTED = (
    ("linux-image-6.1.0-54-amd64", "6.1.190-1", "bookworm-security", "bookworm", "kmod"),
    ("linux-image-6.1.0-56-amd64", "6.1.192-2", "bookworm-security", "bookworm", "kmod"),
    ("linux-image-6.1.0-56-amd64-unsigned", "6.1.192-2", "bookworm-security", "bookworm", "kmod"),
    ("linux-image-6.1.0-56-cloud-amd64", "6.1.192-2", "bookworm-security", "bookworm", "kmod"),
    ("linux-headers-6.1.0-56-amd64", "6.1.192-2", "bookworm-security", "bookworm", "linux-compiler-gcc-12-x86"),
    ("linux-image-6.12.115+deb12-rt-amd64", "6.12.115-2~deb12u1", "bookworm-security", "bookworm", "kmod"),
    ("linux-image-6.12.118+deb13-amd64", "6.12.118-1", "trixie-security", "trixie", "kmod"),
    ("linux-image-6.12.117+deb12-amd64", "6.12.117-1~deb12u1", "bookworm-security", "bookworm", "kmod"),
    ("linux-image-7.3.4+deb13-amd64", "7.3.4-1~bpo13+1", "trixie-backports", "trixie", SPLIT),
    ("linux-base-7.3.4+deb13-amd64", "7.3.4-1~bpo13+1", "trixie-backports", "trixie", ""),
    ("linux-binary-7.3.4+deb13-amd64", "7.3.4-1~bpo13+1", "trixie-backports", "trixie", ""),
    ("linux-modules-7.3.4+deb13-amd64", "7.3.4-1~bpo13+1", "trixie-backports", "trixie", ""),
    ("linux-image-7.1.3+deb13-amd64", "7.1.3-1~bpo13+1", "trixie-backports", "trixie",
     "linux-base-7.1.3+deb13-amd64 (= 7.1.3-1~bpo13+1), linux-binary-7.1.3+deb13-amd64 (= 7.1.3-1~bpo13+1)"),
    ("linux-binary-7.1.3+deb13-amd64", "7.1.3-1~bpo13+1", "trixie-backports", "trixie", ""),
    ("linux-headers-7.3.4+deb13-amd64", "7.3.4-1~bpo13+1", "trixie-backports", "trixie", "gcc-14-for-host, pahole"),
)  # fmt: skip
FACTS = {
    "format": lists.FORMAT,
    "mirror": "http://mirror.example/debian/",
    "lacking": {},
    "libc": {"bookworm": "2.36-9+deb12u14", "trixie": "2.41-12", "sid": "2.42-7"},
}


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Give each test a cache of its own."""
    monkeypatch.setenv("PYLIVEPATCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv(archive.VARIABLE, raising=False)
    return tmp_path / "cache"


@pytest.fixture
def state(own_cache: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the directory of a state of the archive, which is the one to work with."""
    made = own_cache / "archive/0123456789abcdef"
    made.mkdir(parents=True, mode=0o700)
    (made / "kernels.json").write_text(json.dumps(LISTED))
    (made / "facts.json").write_text(json.dumps(FACTS))
    monkeypatch.setenv(archive.VARIABLE, made.name)
    return made
