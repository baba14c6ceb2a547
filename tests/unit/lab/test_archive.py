# SPDX-License-Identifier: MIT
"""The lab's own view of the archive."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from itertools import pairwise
from pathlib import Path

import pytest

from pylivepatch.lab import archive, lists
from pylivepatch.lab.errors import LabError

VERSIONS = ("0.1~~1", "0.1~a-1", "0.1-1", "0.1-1+b1", "0.1.1", "6.12.95-1~bpo12+1", "6.12.95-1", "6.12.117-1~deb12u1",
            "6.12.117-1", "6.12.118-1", "7.2.13-1", "7.3.4-1~bpo13+1", "7.3.4-1", "7.3.4-1.1", "1:0.1", "1:0.1a",
            "1:0.1+")  # fmt: skip


@pytest.mark.parametrize(("low", "high"), list(pairwise(VERSIONS)))
def test_versions_are_ordered_as_dpkg_does(low: str, high: str) -> None:
    """The key sorts as dpkg compares."""
    assert subprocess.run(["dpkg", "--compare-versions", low, "lt", high], check=False).returncode == 0
    assert lists.version_key(low) < lists.version_key(high)
    assert lists.version_key(low) == lists.version_key(low)


def _host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, **sources: str) -> None:
    """Let apt take *sources* for the host's."""
    parts = tmp_path / "sources"
    parts.mkdir()
    for name, text in sources.items():
        (parts / name.replace("_", ".")).write_text(text)
    conf = tmp_path / "apt.conf"
    conf.write_text(f'Dir::Etc::sourcelist "/dev/null";\nDir::Etc::sourceparts "{parts}";\nAcquire::Retries "0";\n')
    monkeypatch.setenv("APT_CONFIG", str(conf))


def test_the_mirror_is_the_host_s(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Sources in the old and in the new format, with options, beside others that are not Debian's."""
    _host(tmp_path, monkeypatch,
          a_list="deb [arch=amd64 trusted=yes] http://near.example/debian bookworm main contrib\n"
                 "deb http://packages.example/apt stable-tools main\n",
          b_sources="Types: deb\nURIs: http://safe.example/debian-security\nSuites: trixie-security\n"
                    "Components: main\n")  # fmt: skip
    assert lists.mirrors() == ("http://near.example/debian/", "http://safe.example/debian-security/")


def test_without_a_mirror_it_is_debian_s_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A host that has no network source of Debian's uses the one that every host can reach."""
    _host(tmp_path, monkeypatch, a_list="deb cdrom:[Debian]/ bookworm main\n")
    assert lists.mirrors() == ("http://deb.debian.org/debian/", "http://deb.debian.org/debian-security/")


def test_one_command_sees_one_state(state: Path) -> None:
    """The state that the environment names is used, however old it is, by other processes too."""
    os.utime(state / "facts.json", (0, 0))
    assert archive.state().path == state
    done = subprocess.run(
        [sys.executable, "-m", "pylivepatch", "lab", "state"], capture_output=True, text=True, check=True
    )
    assert (done.stdout, done.stderr) == (f"{state.name}\n", "")


def test_a_state_that_was_made_otherwise_is_not_used(state: Path) -> None:
    """What an earlier version kept is not read by guess."""
    (state / "facts.json").write_text('{"mirror": "http://m.example/", "lacking": []}')
    with pytest.raises(LabError, match="unset it"):
        archive.state()


@pytest.mark.parametrize("name", ["0000000000000000", "../other", "current/../x"])
def test_a_state_that_does_not_exist_is_an_error(state: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """A state that was removed meanwhile is never replaced by another one in silence."""
    monkeypatch.setenv(archive.VARIABLE, name)
    with pytest.raises(LabError, match="unset it"):
        archive.state()


def _current(state: Path, monkeypatch: pytest.MonkeyPatch, age: float) -> None:
    (state.parent / "current").symlink_to(state.name)
    os.utime(state / "facts.json", (time.time() - age,) * 2)
    monkeypatch.delenv(archive.VARIABLE)


def test_lists_of_today_are_used_as_they_are(state: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is asked of the network for lists that are younger than a day."""
    _current(state, monkeypatch, 3600)
    monkeypatch.setenv("PATH", "/nonexistent")  # no apt to be found
    assert archive.state().path == state


def test_without_a_network_old_lists_are_used(
    state: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """Lists that are too old, and a mirror that does not answer: a notice, and the old lists."""
    _current(state, monkeypatch, 3 * 86400)
    (state / "lists").mkdir()
    _host(tmp_path, monkeypatch, a_list="deb http://127.0.0.1:9/debian bookworm main\n"
                                        "deb http://127.0.0.1:9/security bookworm-security main\n")  # fmt: skip
    assert archive.state().path == state
    assert "using package lists that are 3 days old" in capfd.readouterr().err
    assert sorted(path.name for path in state.parent.iterdir()) == sorted([state.name, "current"])


def test_without_lists_and_network_the_error_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first use needs a network, and the mirror that did not answer is named."""
    _host(tmp_path, monkeypatch, a_list="deb http://127.0.0.1:9/debian bookworm main\n"
                                        "deb http://127.0.0.1:9/security bookworm-security main\n")  # fmt: skip
    with pytest.raises(LabError, match=r"127\.0\.0\.1:9"):
        archive.state()


@pytest.mark.parametrize(
    ("words", "suite", "reason"),
    [
        ("E: The repository 'http://deb.debian.org/debian sid Release' does not have a Release file.", "sid",
         "the mirror does not have it"),
        ("E: The repository 'http://m/debian trixie-backports Release' no longer has a Release file.",
         "trixie-backports", "the mirror does not have it"),
        ("E: Release file for http://m/debian/dists/sid/InRelease is expired (invalid since 18d).", "sid",
         "what the mirror has of it is out of date"),
        ("E: The repository 'http://m/debian trixie-backports Release' does not have a Release file.", "trixie", ""),
        ("E: Failed to fetch http://m/debian/dists/sid/InRelease  Could not connect", "sid", ""),
    ],
)  # fmt: skip
def test_why_a_suite_cannot_be_had(words: str, suite: str, reason: str) -> None:
    """A suite that the mirror lacks is told from a mirror that does not answer, and from its neighbour."""
    found = lists._why_missing(suite, words)
    assert found.startswith(reason)
    assert bool(found) is bool(reason)
