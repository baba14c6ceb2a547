# SPDX-License-Identifier: MIT
"""What apt prints, read."""

from __future__ import annotations

from pylivepatch.lab import apt


def test_uris_give_names_and_versions() -> None:
    """Epochs, which apt quotes in file names, come out as they are."""
    text = (
        "'http://deb.debian.org/pool/p_1%3a2.deb' passwd_1%3a4.13+dfsg1-1_amd64.deb 972180 SHA256:00\n"
        "'http://deb.debian.org/pool/x.deb' libc6_2.36-9+deb12u14_amd64.deb 2759320 \n"
        "Reading package lists...\n"
    )
    assert apt.parse_uris(text) == [
        apt.Package("libc6", "2.36-9+deb12u14"),
        apt.Package("passwd", "1:4.13+dfsg1-1"),
    ]
    assert apt.Package("passwd", "1:4.13").pin == "passwd=1:4.13"
