# SPDX-License-Identifier: MIT
"""The command line: each command, its JSON, and each exit code reached for real."""

from __future__ import annotations

import datetime
import json
import re
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from conftest import Sleeper, cmdline, parameter, until
from support import ADDRESS, Done, cli, unchanged

from pylivepatch import Core, PatchState

Payload = Callable[[str], Path]
Sleep = Callable[..., Sleeper]
STATES = {"registered", "enabling", "enabled", "disabling", "disabled", "replaced"}
SHORT = "0.5"


def check_patch(patch: dict[str, object]) -> None:
    """Insist on what the issue promises of a patch."""
    assert {"name", "state", "registered", "replace", "forced", "objects", "progress", "confirmation"} <= set(patch)
    assert isinstance(patch["name"], str)
    assert patch["state"] in STATES
    assert isinstance(patch["registered"], bool)
    assert isinstance(patch["replace"], bool | None)
    assert isinstance(patch["objects"], list)
    for part in patch["objects"]:
        assert set(part) == {"name", "funcs"}
        for func in part["funcs"]:
            assert set(func) == {"name", "sympos"}
            assert isinstance(func["name"], str)
            assert isinstance(func["sympos"], int)
    progress = patch["progress"]
    assert (progress is not None) == (patch["state"] in ("enabling", "disabling"))
    if progress is not None:
        assert isinstance(progress, dict)
        assert set(progress) == {"target", "total", "done", "elapsed"}
        assert progress["target"] in ("patched", "unpatched")
        assert 0 < progress["done"] <= progress["total"]
        assert progress["elapsed"] > 0


def ok(*arguments: str | Path) -> dict[str, object]:
    """Run a command with --json that must succeed; its one line of output."""
    done = cli(*arguments, "--json")
    assert (done.returncode, done.stderr) == (0, ""), done
    [line] = done.stdout.splitlines()
    data = json.loads(line)
    assert isinstance(data, dict)
    return data


def failed(code: int, *arguments: str | Path) -> dict[str, object]:
    """Run a command with --json that must fail with that code; the one line of its error."""
    done = cli(*arguments, "--json")
    assert (done.returncode, done.stdout) == (code, ""), done
    [line] = done.stderr.splitlines()
    error = json.loads(line)["error"]
    assert error["type"]
    assert error["message"]
    plain = cli(*arguments)
    assert (plain.returncode, plain.stdout) == (code, ""), plain
    assert plain.stderr.startswith("pylivepatch: ")
    assert "Traceback" not in plain.stderr
    return dict(error)


@pytest.mark.smoke
def test_a_patch_lives_by_commands(payload: Payload) -> None:
    """Load, enable, revert, enable again, revert and unload work as commands, for people and as JSON."""
    original = cmdline()
    done = cli("load", payload("plp_cmdline"))
    assert (done.returncode, done.stdout, done.stderr) == (0, "plp_cmdline: registered\n", "")
    assert cmdline() == original
    for _ in range(2):
        done = cli("enable", "plp-cmdline")
        assert done.returncode == 0
        assert done.stdout.startswith("plp_cmdline: enabled, in ")
        assert cmdline() == "cmdline: patched"
        data = ok("revert", "plp_cmdline")
        check_patch(data)
        assert data["state"] == "disabled"
        assert isinstance(data["duration"], float)
        assert cmdline() == original
    assert ok("unload", "plp_cmdline")["unloaded"] == ["plp_cmdline"]
    assert not Path("/sys/module/plp_cmdline").exists()


@pytest.mark.once
def test_load_passes_parameters(payload: Payload) -> None:
    """PARAM=VALUE reaches the module; what is no PARAM=VALUE is wrong usage."""
    data = ok("load", payload("plp_prefail"), "fail=-5")
    check_patch(data)
    assert data["state"] == "registered"
    assert parameter("plp_prefail", "fail") == "-5"
    with unchanged():
        assert cli("load", payload("plp_cmdline"), "fail").returncode == 2
        assert cli("load", payload("plp_cmdline"), "=1").returncode == 2


@pytest.mark.once
def test_load_of_a_foreign_module_enables_it(payload: Payload) -> None:
    """For an ordinary livepatch module `load` waits until it is enabled."""
    data = ok("load", payload("plp_foreign"))
    check_patch(data)
    assert (data["state"], data["registered"]) == ("enabled", False)
    assert ok("revert", "plp_foreign")["state"] == "disabled"


@pytest.mark.once
def test_status_is_as_promised(core: Core, payload: Payload, sleeper: Sleep) -> None:
    """`status --json` has kernel, backend and patches; in a transition, with target, total and done."""
    assert ok("status") == {
        "schema": 1, "kernel": core.release, "backend": "klpctl", "patches": [], "blockers": [], "missing": []
    }  # fmt: skip
    assert ok("list") == {"schema": 1, "patches": []}
    sleeper()
    core.load(payload("plp_states"))
    hold = core.load(payload("plp_hold"))
    hold.enable(wait=False)
    data = ok("status")
    assert set(data) == {"schema", "kernel", "backend", "patches", "blockers", "missing"}
    patches = data["patches"]
    assert isinstance(patches, list)
    for patch in patches:
        check_patch(patch)
    assert [(patch["name"], patch["state"]) for patch in patches] == [
        ("plp_states", "registered"),
        ("plp_hold", "enabling"),
    ]
    assert patches[0]["objects"][0] == {"name": "vmlinux", "funcs": [{"name": "cmdline_proc_show", "sympos": 1}]}
    assert ok("list")["patches"][0] == patches[0]  # type: ignore[index]
    [one] = ok("status", "plp_hold")["patches"]  # type: ignore[misc]
    assert one["progress"]["target"] == "patched"
    for command, words in (("list", ["plp_states", "registered", "plp_hold", "enabling"]),
                           ("status", [core.release, "klpctl", "cmdline_proc_show", "plp_target_hold"])):  # fmt: skip
        done = cli(command)
        assert done.returncode == 0
        assert all(word in done.stdout for word in words), done.stdout
        assert not ADDRESS.search(done.stdout)
    hold.revert()


@pytest.mark.once
def test_no_wait_returns_at_the_start(core: Core, payload: Payload, sleeper: Sleep) -> None:
    """With --no-wait `enable` and `revert` return when the transition has started."""
    held = sleeper()
    core.load(payload("plp_hold"))
    data = ok("enable", "plp_hold", "--no-wait")
    check_patch(data)
    assert (data["state"], data["duration"]) == ("enabling", None)
    data = ok("revert", "plp_hold", "--no-wait")
    assert data["state"] in ("disabling", "disabled")
    held.wake()
    until(lambda: core["plp_hold"].state is PatchState.DISABLED)


@pytest.fixture
def listener(request: pytest.FixtureRequest) -> Iterator[subprocess.Popen[str]]:
    """`watch --count 4 --json`, listening."""
    command = ["pylivepatch", "watch", "--count", "4", "--source", request.param]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True) as process:
        assert process.stderr
        assert process.stderr.readline() == f"pylivepatch: listening to {request.param}\n"
        yield process
        process.kill()


@pytest.mark.once
@pytest.mark.parametrize("listener", ["netlink", "udev"], indirect=True)
def test_watch_prints_events(core: Core, payload: Payload, listener: subprocess.Popen[str]) -> None:
    """`watch --count N` prints N events as they happen, and ends with 0."""
    patch = core.load(payload("plp_cmdline"))
    patch.enable()
    patch.revert()
    out, err = listener.communicate(timeout=240)
    assert (listener.returncode, err) == (0, "")
    lines = out.splitlines()
    assert len(lines) == 4
    actions = [line.split()[3] for line in lines]
    assert actions == ["registered", "started", "completed", "started"]
    for line in lines:
        datetime.datetime.fromisoformat(line.split()[0])
    assert all("plp_cmdline" in line for line in lines)


@pytest.mark.once
def test_it_is_so_already(core: Core, payload: Payload) -> None:
    """A code of its own, and with --if-needed a success that has changed nothing; what is needed is done."""
    file = payload("plp_cmdline")
    assert ok("load", file, "--if-needed")["changed"] is True
    assert ok("load", file, "--if-needed")["changed"] is False
    assert failed(10, "load", file)["type"] == "AlreadyError"
    assert ok("revert", "plp_cmdline", "--if-needed")["changed"] is False
    assert failed(10, "revert", "plp_cmdline")["type"] == "AlreadyError"
    assert ok("enable", "plp_cmdline", "--if-needed")["changed"] is True
    for words in ([], ["--check", "false"]):
        assert failed(10, "enable", "plp_cmdline", *words)["type"] == "AlreadyError"
    assert ok("enable", "plp_cmdline", "--if-needed")["changed"] is False
    assert cli("enable", "plp_cmdline", "--if-needed").stdout == "plp_cmdline: enabled already\n"
    assert failed(10, "confirm", "plp_cmdline")["type"] == "AlreadyError"
    assert ok("confirm", "plp_cmdline", "--if-needed")["changed"] is False
    assert ok("load", file, "--if-needed")["state"] == "enabled"
    assert ok("revert", "plp_cmdline", "--if-needed")["changed"] is True
    assert ok("unload", "plp_cmdline", "--if-needed")["changed"] is True
    assert ok("unload", "plp_cmdline", "--if-needed") == {
        "schema": 1, "name": "plp_cmdline", "unloaded": [], "changed": False
    }  # fmt: skip
    failed(4, "unload", "plp_cmdline")


@pytest.mark.once
def test_a_confirmation_is_seen(core: Core, payload: Payload) -> None:
    """`enable`, `list` and `status` tell that a patch will be reverted, and when; `health` warns of it."""
    core.load(payload("plp_cmdline"))
    done = cli("enable", "plp_cmdline", "--confirm-within", "600")
    assert "enabled, reverted in 10 min 0 s unless confirmed" in done.stdout or "in 9 min" in done.stdout
    for command in (["list"], ["status"], ["info", "plp_cmdline"]):
        assert re.search(r"enabled, reverted in (9|10) min \d+ s unless confirmed", cli(*command).stdout)
    assert ok("info", "plp_cmdline")["confirmation"]
    [patch] = ok("list")["patches"]  # type: ignore[misc]
    assert 500 < patch["confirmation"]["left"] < 600
    datetime.datetime.fromisoformat(patch["confirmation"]["until"])
    done = cli("health")
    assert done.returncode == 1
    assert done.stdout.startswith("LIVEPATCH WARNING - plp_cmdline is reverted in ")
    ok("confirm", "plp_cmdline")
    assert ok("list")["patches"][0]["confirmation"] is None  # type: ignore[index]
    assert cli("health").stdout.startswith("LIVEPATCH OK - 1 of 1 patches enabled | enabled=1;;;0 loaded=1")


@pytest.mark.once
def test_wait_and_signal(core: Core, payload: Payload, sleeper: Sleep) -> None:
    """`wait` waits for what somebody else started; `signal` makes an interruptible sleeper leave the function."""
    held = sleeper()
    patch = core.load(payload("plp_hold"))
    patch.enable(wait=False)
    error = failed(7, "wait", "plp_hold", "--timeout", SHORT)
    assert error["state"] == "enabling"
    assert patch.state is PatchState.ENABLING
    done = cli("status")
    assert "waits for" in done.stdout
    assert "sleeping in plp_target_hold of plp_hold" in done.stdout
    patch.revert(timeout=None)
    held.wake()
    tasks: list[dict[str, object]] = []
    for _ in range(5):
        # On a slow machine the core's own signals are there first, after 15 s.
        sleeper(interruptible=True)
        patch.enable(wait=False)
        tasks = ok("signal")["signalled"]  # type: ignore[assignment]
        if tasks:
            break
        patch.revert(timeout=None)
    assert [task["func"] for task in tasks] == ["plp_target_hold"]
    data = ok("wait", "plp_hold", "--timeout", "60")
    assert (data["state"], data["changed"]) == ("enabled", False)
    assert ok("wait", "plp_hold")["duration"] is None
    assert ok("signal")["signalled"] == []


@pytest.mark.once
def test_doctor(core: Core) -> None:
    """The versions of package and module, the abilities, and what is missing with its remedy."""
    data = ok("doctor")
    assert (data["kernel"], data["backend"], data["klpctl"]) == (core.release, "klpctl", "0.1.0")
    assert data["features"]["events"] is True  # type: ignore[index, call-overload]
    missing = {each["subject"]: each for each in data["missing"]}  # type: ignore[attr-defined]
    assert ("reloc_clear" in missing) is not core.features.reloc_clear
    assert all(each["reason"] for each in missing.values())
    assert "klpctl      0.1.0" in cli("doctor").stdout
    assert "reloc_clear" not in cli("status").stdout


@pytest.mark.once
def test_watch_may_be_limited(core: Core, payload: Payload) -> None:
    """By patch, by action, and by time."""
    watching = subprocess.Popen(
        ["pylivepatch", "watch", "plp_cmdline2", "--action", "completed", "--timeout", "200", "--count", "1", "--json"],
        stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    patches = [core.load(payload(name)) for name in ("plp_cmdline", "plp_cmdline2")]
    while watching.poll() is None:  # it may begin to listen at any time
        for patch in patches:
            patch.enable()
        for patch in reversed(patches):
            patch.revert()
    out, _ = watching.communicate(timeout=240)
    [line] = out.splitlines()
    event = json.loads(line)
    assert (event["type"], event["name"], event["action"]) == ("event", "plp_cmdline2", "completed")
    assert cli("watch", "--timeout", SHORT).stdout == ""


# ---- exit codes ----


@pytest.mark.once
def test_usage_is_2(core: Core, payload: Payload) -> None:
    """Wrong usage, names that cannot be, and force without the risk exit with 2."""
    patch = core.load(payload("plp_cmdline"))
    with unchanged():
        for arguments in (["enable"], ["enable", "x", "--colour"], ["enable", "x", "--timeout", "0"], ["frobnicate"]):
            assert cli(*arguments).returncode == 2
        error = failed(2, "enable", "../plp_cmdline")
        assert error["type"] == "BadDataError"
        assert "--accept-risk" in cli("force", "plp_cmdline").stderr
    assert patch.state is PatchState.REGISTERED


@pytest.mark.once
def test_not_found_is_4(tmp_path: Path) -> None:
    """No such patch, and no such file, exit with 4."""
    with unchanged():
        assert failed(4, "enable", "plp_none")["type"] == "PatchNotFoundError"
        assert failed(4, "status", "plp_none")["type"] == "PatchNotFoundError"
        assert "none.ko" in str(failed(4, "load", tmp_path / "none.ko")["message"])


@pytest.mark.once
def test_another_transition_is_5_and_deadlines_are_6_and_7(core: Core, payload: Payload, sleeper: Sleep) -> None:
    """Reversed at the deadline exits with 6, left going with 7, and busy with another patch with 5."""
    sleeper()
    core.load(payload("plp_cmdline"))
    core.load(payload("plp_hold"))
    error = failed(6, "enable", "plp_hold", "--timeout", SHORT)
    assert (error["type"], error["state"]) == ("TransitionTimeoutError", "disabled")
    done = cli("enable", "plp_hold", "--timeout", SHORT, "--on-timeout", "report", "--json")
    assert done.returncode == 7
    assert json.loads(done.stderr)["error"]["state"] == "enabling"
    error = failed(5, "enable", "plp_cmdline")
    assert (error["type"], error["patch"]) == ("TransitionBusyError", "plp_hold")
    failed(5, "load", payload("plp_foreign"))
    assert ok("revert", "plp_hold")["state"] == "disabled"


@pytest.mark.once
def test_a_foreign_module_that_is_late_is_6_and_gone(payload: Payload, sleeper: Sleep) -> None:
    """`load` of an ordinary livepatch module reverses and unloads it at the deadline."""
    sleeper()
    with unchanged():
        done = cli("load", payload("plp_foreign_hold"), "--timeout", SHORT)
    assert done.returncode == 6
    assert "reversed and unloaded" in done.stderr


@pytest.mark.once
def test_refused_is_8(core: Core, payload: Payload, log: object) -> None:
    """What the kernel refuses, and what it would refuse, exits with 8 and its words."""
    log.expect("plp_no_such_function")  # type: ignore[attr-defined]
    core.load(payload("plp_missing"))
    with unchanged():
        error = failed(8, "enable", "plp_missing")
        assert (error["type"], error["func"]) == ("SymbolError", "plp_no_such_function")
        assert failed(8, "load", payload("plp_plain"))["type"] == "ModuleFileError"
        assert failed(10, "revert", "plp_missing")["type"] == "AlreadyError"
        assert failed(8, "force", "--accept-risk", "plp_missing")["type"] == "PatchStateError"


@pytest.mark.once
def test_not_supported_is_9(core: Core, payload: Payload) -> None:
    """What this machine cannot do exits with 9: a registered patch, or events, without klpctl."""
    core.load(payload("plp_cmdline"))
    with unchanged():
        assert failed(9, "--backend", "sysfs", "load", payload("plp_cmdline2"))["type"] == "UnsupportedError"
        assert failed(9, "--backend", "sysfs", "enable", "plp_cmdline")["feature"] == "registered"
        assert failed(9, "--backend", "sysfs", "watch")["feature"] == "events"


def interrupted(*arguments: str | Path, name: str, number: signal.Signals) -> Done:
    """Run a command, and send it a signal when the transition runs."""
    pipe = subprocess.PIPE
    with subprocess.Popen(["pylivepatch", *arguments], stdout=pipe, stderr=pipe, text=True) as process:
        transition = Path("/sys/kernel/livepatch", name, "transition")
        until(lambda: transition.exists() and transition.read_text() == "1\n")
        process.send_signal(number)
        out, err = process.communicate(timeout=240)
        return Done([], process.returncode, out, err)


SIGNALS = [signal.SIGINT, signal.SIGTERM, signal.SIGHUP]


@pytest.mark.once
@pytest.mark.parametrize("number", SIGNALS)
@pytest.mark.parametrize("foreign", [False, True])
def test_a_signal_reverses(
    core: Core, payload: Payload, sleeper: Sleep, foreign: bool, number: signal.Signals
) -> None:
    """Ctrl-C, SIGTERM and SIGHUP reverse the transition, and the state is printed; a standalone patch is unloaded."""
    sleeper()
    name = "plp_foreign_hold" if foreign else "plp_hold"
    if not foreign:
        core.load(payload(name))
    command = ["load", payload(name)] if foreign else ["enable", name]
    done = interrupted(*command, "--timeout", "60", name=name, number=number)
    assert (done.returncode, done.stdout) == (128 + number, "")
    assert f"interrupted by {number.name}; {name} is {'not loaded' if foreign else 'disabled'}" in done.stderr
    assert not Path("/sys/kernel/livepatch", name).exists()
    assert Path("/sys/module", name).exists() is not foreign


@pytest.mark.once
@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_reverses_a_revert(core: Core, payload: Payload, sleeper: Sleep, number: signal.Signals) -> None:
    """The patch stays enabled."""
    sleeper()
    patch = core.load(payload("plp_hold"))
    parameter("plp_target", "hold", "N")
    patch.enable()
    sleeper("plp_hold")
    done = interrupted("revert", "plp_hold", "--timeout", "60", name="plp_hold", number=number)
    assert done.returncode == 128 + number
    assert f"interrupted by {number.name}; plp_hold is enabled" in done.stderr
    assert patch.state is PatchState.ENABLED


@pytest.mark.once
def test_nohup_is_respected(core: Core, payload: Payload, sleeper: Sleep) -> None:
    """A command that was started to survive SIGHUP does."""
    held = sleeper()
    core.load(payload("plp_hold"))
    with subprocess.Popen(
        ["nohup", "pylivepatch", "enable", "plp_hold"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        until(lambda: core["plp_hold"].state is PatchState.ENABLING)
        process.send_signal(signal.SIGHUP)
        held.wake()
        out, _ = process.communicate(timeout=240)
    assert process.returncode == 0
    assert out.startswith("plp_hold: enabled")
