# SPDX-License-Identifier: MIT
"""`install`, `uninstall` and `boot`, on captured trees."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from click.testing import CliRunner

from pylivepatch import Store, UnsupportedError
from pylivepatch.boot.store import crash_marker
from pylivepatch.boot.system import ENABLE, RELOAD, with_command
from pylivepatch.cli._main import group

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from click.testing import Result

KEYS = {"name", "release", "path", "params", "crashed"}


@pytest.fixture
def root(enabling: Path) -> Path:
    """A machine with plp_foreign enabled."""
    (enabling / "proc/sys/kernel/random").mkdir()
    (enabling / "proc/sys/kernel/random/boot_id").write_text("boot 1\n")
    (enabling / "proc/cmdline").write_text("quiet\n")
    return enabling


@pytest.fixture
def patch(root: Path, build_module: Callable[..., Path]) -> Path:
    """A file of plp_foreign, for its kernel."""
    return build_module("plp_foreign", vermagic=f"{Store(root=root).release} SMP", parmtype="a:int", parm="b:text")


def run(root: Path, *words: str | Path) -> Result:
    """Run a command on a tree."""
    return CliRunner().invoke(group, ["--root", str(root), *map(str, words)], prog_name="pylivepatch")


def test_install_list_uninstall(root: Path, patch: Path) -> None:
    """A patch comes with its parameters, is listed, and goes."""
    release = Store(root=root).release
    installed = run(root, "install", patch, "a=1", "b=two words", "--json")
    assert installed.exit_code == 0
    data = json.loads(installed.stdout)
    assert set(data) == KEYS | {"schema", "changed"}
    assert data["changed"] is True
    assert json.loads(run(root, "install", patch, "a=1", "b=two words", "--json").stdout)["changed"] is False
    (listed,) = json.loads(run(root, "install", "--list", "--json").stdout)["installed"]
    assert listed == {key: data[key] for key in KEYS}
    assert run(root, "install", "--list").stdout == f"{release}  plp_foreign  a=1 b=two words\n"
    assert run(root, "uninstall", "plp-foreign").stdout == f"plp_foreign: no longer installed for kernel {release}\n"
    assert run(root, "install", "--list").stdout == ""
    assert run(root, "uninstall", "plp_foreign").exit_code == 4
    again = run(root, "uninstall", "plp_foreign", "--if-needed", "--json")
    assert (again.exit_code, json.loads(again.stdout)["changed"]) == (0, False)


def test_install_refuses_what_cannot_work(root: Path, patch: Path) -> None:
    """A parameter that the module does not have is refused now, not at the next boot."""
    result = run(root, "install", patch, "nosuch=1")
    assert result.exit_code == 8
    assert "nosuch: the module has no parameter of that name; it takes a, b" in result.stderr
    assert "nothing was installed" in result.stderr
    assert run(root, "install", "--list").stdout == ""


def test_uninstall_by_file(root: Path, patch: Path, build_module: Callable[..., Path]) -> None:
    """The file tells the name and the release."""
    other = build_module("plp_other", vermagic="6.12.0 SMP")
    run(root, "install", other)
    assert run(root, "uninstall", "plp_other").exit_code == 4
    assert run(root, "uninstall", other).exit_code == 0


def test_crashed(root: Path, patch: Path) -> None:
    """What the machine crashed after is marked, in both outputs."""
    run(root, "install", patch)
    crash_marker(Store(root=root)).begin("plp_foreign")
    (root / "proc/sys/kernel/random/boot_id").write_text("boot 2\n")
    assert "not applied: the machine crashed within a minute of applying it" in run(root, "install", "--list").stdout
    (listed,) = json.loads(run(root, "install", "--list", "--json").stdout)["installed"]
    assert listed["crashed"] is True
    result = run(root, "boot")
    assert result.exit_code == 8
    assert result.stderr.startswith("pylivepatch: plp_foreign is not applied: the machine crashed")
    data = json.loads(run(root, "boot", "--json").stdout)
    assert data["patches"] == [{"name": "plp_foreign", "outcome": "crashed", "error": None}]


def test_boot(root: Path, patch: Path, build_module: Callable[..., Path]) -> None:
    """Each patch has a line, and the exit code is that of the first that failed."""
    assert run(root, "boot").stdout == ""
    run(root, "install", patch)
    result = run(root, "boot")
    assert (result.exit_code, result.stdout) == (0, "plp_foreign: applied already\n")
    data = json.loads(run(root, "boot", "--json").stdout)
    assert data == {
        "schema": 1,
        "kernel": Store(root=root).release,
        "enabled": True,
        "patches": [{"name": "plp_foreign", "outcome": "already", "error": None}],
    }
    run(root, "install", build_module("plp_tiny", vermagic=f"{Store(root=root).release} SMP"))
    Store(root=root).patch("plp_tiny").path.write_bytes(b"")
    failed = run(root, "boot")
    assert (failed.exit_code, failed.stdout) == (8, "plp_foreign: applied already\n")
    assert "plp_tiny.ko: it is empty" in failed.stderr


def test_the_kill_switch(root: Path, patch: Path) -> None:
    """It is named, nothing is applied, and that is no failure."""
    run(root, "install", patch)
    (root / "proc/cmdline").write_text("quiet pylivepatch.enable=0\n")
    result = run(root, "boot")
    assert result.exit_code == 0
    assert result.stdout == "pylivepatch.enable=0 is on the kernel's command line: nothing is applied\n"
    assert json.loads(run(root, "boot", "--json").stdout)["enabled"] is False


def test_sigterm_ends_the_minute(root: Path, patch: Path) -> None:
    """The service tells systemd how it stands, waits while a crash counts, and ends in good order when told to."""
    run(root, "install", patch)
    crash_marker(Store(root=root)).begin("plp_foreign")
    (marker,) = root.rglob("trying.json")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(root / "notify"))
        service = subprocess.Popen(
            [sys.executable, "-m", "pylivepatch", "--root", root, "boot"],
            env={**os.environ, "NOTIFY_SOCKET": str(root / "notify")},
            stdout=subprocess.PIPE,
        )
        said = [manager.recv(4096).decode()]
        while not said[-1].startswith("STATUS="):
            said.append(manager.recv(4096).decode())
    assert "READY=1" in said
    assert said[-1] == "STATUS=A crash counts against plp_foreign"
    assert marker.exists()
    service.send_signal(signal.SIGTERM)
    out, _ = service.communicate()
    assert (service.returncode, out) == (0, b"plp_foreign: applied already\n")
    assert not marker.exists()


@pytest.mark.parametrize("words", [[], ["x.ko", "--list"], ["--list", "--system"], ["x.ko", "y"]])
def test_usage(root: Path, words: list[str]) -> None:
    """There is one thing to do at a time."""
    assert run(root, "install", *words).exit_code == 2


@pytest.mark.parametrize("words", [[], ["plp_foreign", "--system"]])
def test_usage_of_uninstall(root: Path, words: list[str]) -> None:
    """There is one thing to remove at a time."""
    assert run(root, "uninstall", *words).exit_code == 2


def test_system(root: Path) -> None:
    """The unit, the rule and the runner are written where systemd and udevd look, and go again."""
    result = run(root, "install", "--system", "--json")
    files = {
        "etc/systemd/system/pylivepatch.service": 0o644,
        "usr/lib/systemd/catalog/pylivepatch.catalog": 0o644,
        "etc/udev/rules.d/90-pylivepatch.rules": 0o644,
        "usr/lib/udev/pylivepatch-hooks": 0o755,
    }
    data = json.loads(result.stdout)
    assert (data["files"], data["run"]) == ([str(root / name) for name in files], [*RELOAD, ENABLE])
    assert {name: (root / name).stat().st_mode & 0o777 for name in files} == files
    assert (root / "etc/pylivepatch/hooks.d").is_dir()
    assert run(root, "install", "--system").exit_code == 0
    # What systemctl enable has made.
    wanted = root / "etc/systemd/system/multi-user.target.wants/pylivepatch.service"
    wanted.parent.mkdir()
    wanted.symlink_to("../pylivepatch.service")
    data = json.loads(run(root, "uninstall", "--system", "--json").stdout)
    assert (data["files"], data["run"]) == ([str(root / name) for name in files] + [str(wanted)], list(RELOAD))
    assert not wanted.is_symlink()
    assert not any((root / name).exists() for name in files)
    assert not (root / "etc/pylivepatch/hooks.d").exists()
    assert json.loads(run(root, "uninstall", "--system", "--json").stdout)["run"] == []


def test_the_unit_is_confined(root: Path) -> None:
    """It has the capabilities that loading modules needs, and writes to the store alone."""
    run(root, "install", "--system")
    lines = (root / "etc/systemd/system/pylivepatch.service").read_text().splitlines()
    settings = dict(line.split("=", 1) for line in lines if re.match("[A-Z]", line))
    assert settings["CapabilityBoundingSet"].split() == ["CAP_SYS_MODULE", "CAP_SYSLOG"]
    assert (settings["ProtectSystem"], settings["ReadWritePaths"]) == ("strict", "-/var/lib/pylivepatch")
    assert (settings["UMask"], settings["ProtectHome"]) == ("0077", "read-only")
    assert settings["RestrictAddressFamilies"] == "AF_UNIX AF_NETLINK"
    for name in ("NoNewPrivileges", "PrivateTmp", "RestrictNamespaces", "MemoryDenyWriteExecute", "LockPersonality"):
        assert settings[name] == "yes"


def test_hooks_are_not_removed(root: Path) -> None:
    """The operator's own hooks stay."""
    run(root, "install", "--system")
    hook = root / "etc/pylivepatch/hooks.d/mine"
    hook.touch()
    run(root, "uninstall", "--system")
    assert hook.exists()


def test_the_unit_calls_this_package() -> None:
    """Where systemd would not find the command, the unit names the interpreter that runs it now."""
    unit = with_command("[Service]\nExecStart=pylivepatch boot\n", (0, os.geteuid()))
    assert unit in (
        "[Service]\nExecStart=pylivepatch boot\n",
        f"[Service]\nExecStart={sys.executable} -P -m pylivepatch boot\n",
    )


def test_a_python_with_a_strange_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What systemd would take for more than a name is quoted, as systemd reads it."""
    python = tmp_path / 'my venv %n $HOME "x"' / "python"
    python.parent.mkdir()
    python.touch(mode=0o755)
    monkeypatch.setattr(sys, "executable", str(python))
    unit = with_command("ExecStart=pylivepatch boot\n", (0, os.geteuid()))
    assert unit == f'ExecStart="{tmp_path}/my venv %%n $$HOME \\"x\\"/python" -P -m pylivepatch boot\n'


@pytest.mark.parametrize("what", ["writable", "owned"])
def test_a_python_of_somebody_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str) -> None:
    """Root shall not run at each boot what somebody else can change."""
    python = tmp_path / "venv/python"
    python.parent.mkdir()
    python.touch(mode=0o755)
    monkeypatch.setattr(sys, "executable", str(python))
    if what == "writable":
        python.parent.chmod(0o775)
    owners = (0, os.geteuid()) if what == "writable" else (12345,)
    with pytest.raises(UnsupportedError, match="not for root to run at each boot"):
        with_command("ExecStart=pylivepatch boot\n", owners)
