# SPDX-License-Identifier: MIT
"""An ordinary user gets nothing changed, and nothing shown that root alone may see."""

from __future__ import annotations

import errno
import os
import re
import socket
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import pyudev
from conftest import KernelLog, Sleeper, until
from rawdevice import CONFIRM, ENABLE, FORCE, REVERT, DeviceError, K, request
from rawnetlink import NLM_F_DUMP, Client, RefusedError
from support import (
    ADDRESS,
    CLONE_NEWNET,
    CLONE_NEWUSER,
    attempt,
    cli,
    forked,
    unchanged,
)

from pylivepatch import Core, Monitor, Patch, UnsupportedError

Payload = Callable[[str], Path]


@pytest.fixture
def held(core: Core, payload: Payload, sleeper: Callable[..., Sleeper]) -> Iterator[Patch]:
    """A transition that waits for a task, beside a registered patch."""
    core.load(payload("plp_cmdline"))
    sleeper()
    patch = core.load(payload("plp_hold"))
    transition = patch.enable(wait=False)
    until(lambda: transition.progress().pending == 1)
    yield patch
    patch.revert()


@pytest.mark.smoke
def test_an_ordinary_user_changes_nothing(core: Core, payload: Payload, held: Patch) -> None:
    """Each call of the API that changes something raises AccessError for an ordinary user, and changes nothing."""
    file = payload("plp_cmdline2")
    with unchanged():
        tried = attempt(
            lambda core: core["plp_cmdline"].enable(),
            lambda core: core["plp_cmdline"].unload(),
            lambda core: core["plp_hold"].revert(),
            lambda core: core["plp_hold"].force(accept_risk=True),
            lambda core: core["plp_hold"].transition.reverse(),
            lambda core: core["plp_hold"].transition.tasks(),
            lambda core: core.load(file),
        )
    assert [kind for kind, _ in tried] == ["AccessError"] * 7
    for _, words in tried:
        assert "root" in words
        assert "nothing has changed" in words
        assert "run it as root" in words


def test_an_ordinary_user_changes_nothing_through_sysfs(core: Core, payload: Payload, held: Patch) -> None:
    """Without klpctl the same calls are refused by the kernel's own files."""
    with unchanged():
        tried = attempt(
            lambda core: core["plp_hold"].revert(),
            lambda core: core["plp_hold"].force(accept_risk=True),
            lambda core: core["plp_hold"].transition.tasks(),
            backend="sysfs",
        )
    assert [kind for kind, _ in tried] == ["AccessError"] * 3


def test_commands_of_an_ordinary_user_exit_with_3(core: Core, payload: Payload, held: Patch) -> None:
    """Each command that changes something exits with 3 for an ordinary user, and says why."""
    with unchanged():
        for command in (
            ["enable", "plp_cmdline"],
            ["revert", "plp_hold"],
            ["unload", "plp_cmdline"],
            ["force", "--accept-risk", "plp_hold"],
            ["load", payload("plp_cmdline2")],
        ):
            done = cli(*command, user=True)
            assert (done.returncode, done.stdout) == (3, "")
            assert "run it as root" in done.stderr


def test_an_ordinary_user_sees_patches_and_no_tasks(core: Core, held: Patch) -> None:
    """`status` and `list` work for an ordinary user, and name no task and no address."""
    [task] = [task for task in held.transition.tasks() if task.pending]  # type: ignore[union-attr]
    assert task.comm == "echo"
    for command in (["status"], ["status", "--json"], ["list"], ["list", "--json"], ["status", "plp_hold", "--json"]):
        done = cli(*command, user=True)
        assert done.returncode == 0, done.stderr
        assert "plp_hold" in done.stdout
        assert "enabling" in done.stdout
        assert task.comm not in done.stdout
        assert not re.search(rf"\b{task.pid}\b", done.stdout)
        assert not ADDRESS.search(done.stdout + done.stderr)


def test_an_ordinary_user_hears_events(core: Core, payload: Payload) -> None:
    """Events carry what everybody may know, and an ordinary user may listen."""

    def listen() -> None:
        with Core("klpctl") as mine, mine.monitor() as monitor:
            Path("/tmp/plp-listening").touch()
            event = monitor.read(timeout=120)
            assert event is not None
            print(event.name, event.action)

    child = subprocess.Popen(["sh", "-c", "until [ -e /tmp/plp-listening ]; do :; done; insmod \"$0\"",
                              payload("plp_cmdline")])  # fmt: skip
    done = forked(listen, user=True)
    assert child.wait(120) == 0
    Path("/tmp/plp-listening").unlink()
    assert (done.stdout, done.stderr) == ("plp_cmdline registered\n", "")


@pytest.mark.smoke
def test_the_device_is_for_root() -> None:
    """/dev/klpctl has mode 0600, and an ordinary user cannot open it."""
    device = Path("/dev/klpctl").stat()
    assert (device.st_mode & 0o7777, device.st_uid, device.st_gid) == (0o600, 0, 0)

    def opened() -> None:
        for flags in (os.O_RDONLY, os.O_RDWR):
            with pytest.raises(PermissionError):
                os.open("/dev/klpctl", flags)

    assert forked(opened, user=True).returncode == 0


def refused(client: Client) -> None:
    """Ask for the tasks, and be refused in the kernel's words."""
    with pytest.raises(RefusedError, match="CAP_SYS_MODULE") as info:
        client.ask(K["KLPCTL_CMD_TASK_GET"], flags=NLM_F_DUMP)
    assert info.value.number == errno.EPERM


def test_root_s_descriptors_do_not_help_an_ordinary_user(core: Core, payload: Payload, held: Patch) -> None:
    """Who uses a socket or a device that root opened needs the privilege himself."""
    client = Client()
    device = os.open("/dev/klpctl", os.O_RDWR)

    def use() -> None:
        refused(client)
        for command in (ENABLE, REVERT, FORCE, CONFIRM):
            with pytest.raises(DeviceError, match="CAP_SYS_MODULE") as info:
                request(device, command, b"plp_hold", flags=int(command == FORCE))
            assert info.value.errno == errno.EPERM

    with unchanged():
        done = forked(use, user=True)
    client.close()
    os.close(device)
    assert (done.returncode, done.stderr) == (0, "")


def test_an_ordinary_user_s_socket_does_not_use_root(core: Core, payload: Payload, held: Patch) -> None:
    """What root asks through a socket that an ordinary user opened is refused: root may have been tricked."""
    ours, theirs = socket.socketpair()

    def hand_over() -> None:
        socket.send_fds(theirs, [b"x"], [Client().socket.detach()])

    with ours, theirs, unchanged():
        assert forked(hand_over, user=True).returncode == 0
        _, [descriptor], _, _ = socket.recv_fds(ours, 1, 1)
        family = Client()
        client = Client(descriptor, family.family)
        refused(client)
        client.close()
        family.close()


def test_root_of_another_user_namespace_changes_nothing(core: Core, payload: Payload, held: Patch) -> None:
    """All capabilities of another user namespace are none here, by netlink, by ioctl and for modules."""
    file = payload("plp_cmdline2")

    def by_device() -> None:
        # Not klpctl's decision: the user namespace's root is, for files, the one who made it.
        device = os.open("/dev/klpctl", os.O_RDWR)
        with pytest.raises(DeviceError, match="CAP_SYS_MODULE in the initial user namespace"):
            request(device, REVERT, b"plp_hold")

    with unchanged():
        tried = attempt(
            lambda core: core["plp_cmdline"].enable(),
            lambda core: core["plp_hold"].revert(),
            lambda core: core["plp_hold"].force(accept_risk=True),
            lambda core: core["plp_hold"].transition.tasks(),
            lambda core: core.load(file),
            lambda core: core["plp_cmdline"].unload(),
            user=False,
            namespaces=CLONE_NEWUSER,
        )
        done = forked(by_device, namespaces=CLONE_NEWUSER)
    assert [kind for kind, _ in tried] == ["AccessError"] * 6
    assert (done.returncode, done.stderr) == (0, "")


def test_another_network_namespace_does_not_have_the_family(core: Core) -> None:
    """The family exists in the initial network namespace only; elsewhere there is sysfs."""

    def look() -> None:
        with pytest.raises(RefusedError) as info:
            Client()
        print(info.value.number)
        with Core() as other:
            print(other.backend)
        for asked in (lambda: Core("klpctl"), Monitor):
            with pytest.raises(UnsupportedError, match=r"is loaded, but .* this network namespace") as refused:
                asked()
            assert "initial network namespace" in refused.value.remedy

    done = forked(look, namespaces=CLONE_NEWNET)
    assert (done.stdout, done.stderr) == (f"{errno.ENOENT}\nsysfs\n", "")


def test_no_address_is_shown(core: Core, payload: Payload, held: Patch, log: KernelLog) -> None:
    """No file, uevent, log line or netlink message of klpctl's holds a kernel address."""
    monitor = pyudev.Monitor.from_netlink(pyudev.Context(), source="kernel")
    monitor.filter_by("livepatch")
    monitor.start()
    core["plp_cmdline"].unload()
    core.load(payload("plp_cmdline"))
    shown = log.lines()
    for _ in range(2):
        device = monitor.poll(120)
        assert device is not None
        shown += [f"{key}={device.properties[key]}" for key in device.properties]
    for top in ("/sys/class/livepatch/plp_hold/", "/sys/kernel/livepatch/", "/sys/module/klpctl/"):
        for directory, inner, files in os.walk(top):
            # The kernel's own, for root alone, of every module.
            inner[:] = [name for name in inner if name not in ("sections", "notes")]
            for name in files:
                path = Path(directory, name)
                # power/ has files of the driver core's that cannot be read.
                if path.stat().st_mode & 0o400 and path.parent.name != "power":
                    shown.append(f"{path}: {path.read_bytes()!r}")
    assert any("LIVEPATCH_NAME=plp_cmdline" in text for text in shown)
    assert not [text for text in shown if ADDRESS.search(text)]

    client = Client()
    messages = client.ask(K["KLPCTL_CMD_FEATURES_GET"])
    for command in ("KLPCTL_CMD_PATCH_GET", "KLPCTL_CMD_TASK_GET"):
        messages += client.ask(K[command], flags=NLM_F_DUMP)
    client.close()
    assert len(messages) >= 4
    for message in messages:
        for offset in range(0, len(message.raw) - 7, 4):
            assert int.from_bytes(message.raw[offset : offset + 8], "little") < 0xFFFF << 48, message.raw


def test_becoming_an_ordinary_user_is_real() -> None:
    """The process that stands for the ordinary user has no capability left."""

    def show() -> None:
        assert os.geteuid() == 1000
        print(next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("CapEff")))

    assert forked(show, user=True).stdout.split() == ["CapEff:", "0000000000000000"]
