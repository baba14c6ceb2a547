# SPDX-License-Identifier: MIT
"""The wire, by a client that knows the uapi header and nothing else."""

from __future__ import annotations

import errno
import os
import random
import struct
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from conftest import KernelLog, Sleeper, parameter, until
from rawnetlink import (
    NLM_F_ACK,
    NLM_F_DUMP,
    NLMSG_ERROR,
    Client,
    Message,
    RefusedError,
    attribute,
    constants,
    parse,
    string,
)
from support import HEADER, unchanged

from pylivepatch import Core

Payload = Callable[[str], Path]
K = constants(HEADER)
A_NAME, A_FLAGS = K["KLPCTL_A_NAME"], K["KLPCTL_A_FLAGS"]
GET, ENABLE, REVERT = K["KLPCTL_CMD_PATCH_GET"], K["KLPCTL_CMD_PATCH_ENABLE"], K["KLPCTL_CMD_PATCH_REVERT"]
FORCE, TASKS, FEATURES = K["KLPCTL_CMD_PATCH_FORCE"], K["KLPCTL_CMD_TASK_GET"], K["KLPCTL_CMD_FEATURES_GET"]
NAME = string(A_NAME, "plp_cmdline")
RISK = struct.pack("=I", K["KLPCTL_FORCE_ACCEPT_RISK"])
THREADS = 300
MESSAGES = 2000


@pytest.fixture
def client() -> Iterator[Client]:
    """A socket of the family."""
    opened = Client()
    yield opened
    opened.close()


def patch(client: Client, name: str) -> Message:
    """Ask for one patch."""
    [answer] = client.ask(GET, string(A_NAME, name))
    return answer


def refused(client: Client, command: int, payload: bytes, flags: int = NLM_F_ACK, **header: int) -> RefusedError:
    """Send what must be refused; how it was."""
    with pytest.raises(RefusedError) as info:
        client.ask(command, payload, flags, **header)
    return info.value


@pytest.mark.smoke
def test_the_header_suffices_for_a_client(core: Core, payload: Payload, client: Client) -> None:
    """A client written from the header sees features, patches and events, enables and reverts."""
    [features] = client.ask(FEATURES)
    assert features.number(K["KLPCTL_A_VERSION"]) == K["KLPCTL_VERSION"]
    bits = features.number(K["KLPCTL_A_FEATURES"])
    assert bits >> K["KLPCTL_FEATURE_EVENTS"] & 1
    assert bits >> K["KLPCTL_FEATURE_FAST"] & 1
    first = features.number(K["KLPCTL_A_SEQ"])

    listener = Client()
    listener.subscribe()
    core.load(payload("plp_cmdline"))
    status = patch(client, "plp_cmdline")
    assert status.number(K["KLPCTL_A_STATE"]) == K["KLPCTL_STATE_REGISTERED"]
    assert status.number(A_FLAGS) == K["KLPCTL_PATCH_REGISTERED"]
    fields = status.nest(K["KLPCTL_A_OBJECT"])
    assert fields[K["KLPCTL_A_OBJECT_NAME"]] == b"vmlinux\0"
    function = dict(parse(fields[K["KLPCTL_A_OBJECT_FUNC"]]))
    assert function[K["KLPCTL_A_FUNC_NAME"]] == b"cmdline_proc_show\0"
    assert function[K["KLPCTL_A_FUNC_SYMPOS"]] == bytes(4)

    for command, state in ((ENABLE, "KLPCTL_STATE_ENABLED"), (REVERT, "KLPCTL_STATE_DISABLED")):
        assert client.ask(command, NAME) == []
        until(lambda: patch(client, "plp_cmdline").number(K["KLPCTL_A_STATE"]) == K[state])  # noqa: B023
    [dumped] = client.ask(GET, flags=NLM_F_DUMP)
    assert dumped.text(A_NAME) == "plp_cmdline"

    events: list[Message] = []
    while len(events) < 5:
        messages = [client.message(content) for _, _, content in listener.receive()]
        # How much progress is told depends on how long a transition takes.
        events += [each for each in messages if each.number(K["KLPCTL_A_ACTION"]) != K["KLPCTL_ACTION_PROGRESS"]]
    listener.close()
    assert {event.command for event in events} == {K["KLPCTL_CMD_EVENT"]}
    assert [event.number(K["KLPCTL_A_SEQ"]) for event in events] == list(range(first + 1, first + 6))
    actions = ["REGISTERED", "STARTED", "COMPLETED", "STARTED", "COMPLETED"]
    assert [event.number(K["KLPCTL_A_ACTION"]) for event in events] == [K[f"KLPCTL_ACTION_{name}"] for name in actions]
    targets = [event.nest(K["KLPCTL_A_TRANSITION"])[K["KLPCTL_A_TRANSITION_TARGET"]][0] for event in events[1:]]
    assert targets == [K["KLPCTL_TARGET_PATCHED"]] * 2 + [K["KLPCTL_TARGET_UNPATCHED"]] * 2
    times = [event.number(K["KLPCTL_A_TIME"]) for event in events]
    assert times == sorted(times)
    assert patch(client, "plp_cmdline").number(K["KLPCTL_A_SEQ"]) == first + 5


BAD: list[tuple[int, bytes, int, str]] = [
    (ENABLE, b"", errno.EINVAL, "KLPCTL_A_NAME"),
    (REVERT, b"", errno.EINVAL, "KLPCTL_A_NAME"),
    (GET, b"", errno.EINVAL, "KLPCTL_A_NAME"),
    (FORCE, attribute(A_FLAGS, RISK), errno.EINVAL, "KLPCTL_A_NAME"),
    (FORCE, NAME, errno.EINVAL, "KLPCTL_FORCE_ACCEPT_RISK"),
    (FORCE, NAME + attribute(A_FLAGS, bytes(4)), errno.EINVAL, "KLPCTL_FORCE_ACCEPT_RISK"),
    (FORCE, NAME + attribute(A_FLAGS, struct.pack("=I", 2)), errno.EINVAL, ""),
    (FORCE, NAME + attribute(A_FLAGS, struct.pack("=I", 3)), errno.EINVAL, ""),
    (FORCE, NAME + attribute(A_FLAGS, RISK), errno.EINVAL, "not in transition"),
    (ENABLE, NAME + attribute(A_FLAGS, RISK), errno.EINVAL, ""),
    (ENABLE, NAME + attribute(K["KLPCTL_A_STATE"], RISK), errno.EINVAL, ""),
    (ENABLE, NAME + attribute(K["__KLPCTL_A_MAX"], RISK), errno.EINVAL, ""),
    (GET, NAME + attribute(200, b""), errno.EINVAL, ""),
    (FEATURES, NAME, errno.EINVAL, ""),
    (ENABLE, string(A_NAME, "x" * (K["KLPCTL_NAME_LEN"] + 1)), errno.EINVAL, ""),
    (ENABLE, string(A_NAME, "x" * 5000), errno.EINVAL, ""),
    (ENABLE, string(A_NAME, "x" * K["KLPCTL_NAME_LEN"]), errno.ENOENT, "no such patch"),
    (ENABLE, string(A_NAME, ""), errno.ENOENT, "no such patch"),
    (ENABLE, string(A_NAME, "../plp_cmdline"), errno.ENOENT, "no such patch"),
    (ENABLE, attribute(A_NAME, b"plp_cmdline"), errno.EINVAL, ""),
    (ENABLE, attribute(A_NAME, b""), errno.EINVAL, ""),
    (REVERT, NAME, errno.EALREADY, "not enabled"),
]


@pytest.mark.parametrize("case", range(len(BAD)))
def test_a_bad_request_is_refused_in_words(core: Core, payload: Payload, client: Client, case: int) -> None:
    """Missing, surplus, long, short and unterminated attributes and unknown flags are refused with a message."""
    command, content, number, words = BAD[case]
    core.load(payload("plp_cmdline"))
    with unchanged():
        error = refused(client, command, content)
    assert error.number == number, error
    assert error.words
    assert words in error.words


def test_attributes_of_a_wrong_size_are_refused(core: Core, payload: Payload, client: Client, log: KernelLog) -> None:
    """A number of a wrong size, and bytes behind the last attribute, are refused; netlink itself warns of them."""
    core.load(payload("plp_cmdline"))
    log.expect("attribute type .* has an invalid length")
    log.expect("bytes leftover after parsing attributes")
    with unchanged():
        for content in (NAME + attribute(A_FLAGS, RISK + RISK), NAME + attribute(A_FLAGS, b"\1"), NAME + b"\2\0\0\0"):
            error = refused(client, FORCE, content)
            assert error.number in (errno.EINVAL, errno.ERANGE)
            assert error.words


def test_dumps_take_nothing_and_commands_are_known(core: Core, payload: Payload, client: Client) -> None:
    """Dumps refuse attributes; unknown commands, dumps of what is no dump, and reserved bytes are refused."""
    core.load(payload("plp_cmdline"))
    with unchanged():
        for command in (GET, TASKS):
            error = refused(client, command, NAME, NLM_F_DUMP)
            assert (error.number, bool(error.words)) == (errno.EINVAL, True), (command, error)
        error = refused(client, TASKS, attribute(A_FLAGS, struct.pack("=I", 1 << 31)), NLM_F_DUMP)
        assert (error.number, bool(error.words)) == (errno.EINVAL, True)
        for command in (0, K["KLPCTL_CMD_EVENT"], K["KLPCTL_CMD_EVENT"] + 1, 255):
            assert refused(client, command, NAME).number == errno.EOPNOTSUPP
        assert refused(client, TASKS, b"").number == errno.EOPNOTSUPP
        assert refused(client, ENABLE, NAME, NLM_F_DUMP).number == errno.EOPNOTSUPP
        error = refused(client, GET, NAME, reserved=1)
        assert (error.number, bool(error.words)) == (errno.EINVAL, True)


@pytest.fixture
def crowd() -> Iterator[subprocess.Popen[bytes]]:
    """A process of many threads."""
    code = (
        "import threading, sys\n"
        "stop = threading.Event()\n"
        f"for _ in range({THREADS}): threading.Thread(target=stop.wait, daemon=True).start()\n"
        "print('ready', flush=True)\n"
        "sys.stdin.read()\n"
    )
    pipe = subprocess.PIPE
    with subprocess.Popen([sys.executable, "-c", code], stdin=pipe, stdout=pipe) as process:
        assert process.stdout
        assert process.stdout.readline() == b"ready\n"
        yield process
        process.kill()


def test_a_dump_of_many_tasks_agrees_with_the_counts(
    core: Core,
    payload: Payload,
    client: Client,
    sleeper: Callable[..., Sleeper],
    crowd: subprocess.Popen[bytes],
) -> None:
    """The dump lists all threads in as many messages as it takes, and total and done say the same."""
    held = sleeper()
    core.load(payload("plp_hold")).enable(wait=False)
    kind = K["KLPCTL_A_TASK"]

    def counts() -> tuple[int, int]:
        fields = patch(client, "plp_hold").nest(K["KLPCTL_A_TRANSITION"])
        names = ("KLPCTL_A_TRANSITION_TOTAL", "KLPCTL_A_TRANSITION_DONE")
        return tuple(int.from_bytes(fields[K[name]], "little") for name in names)  # type: ignore[return-value]

    def agree() -> bool:
        before = counts()
        messages = client.ask(TASKS, flags=NLM_F_DUMP)
        tasks = [
            {field: int.from_bytes(value[:4], "little") for field, value in message.nest(kind).items()}
            for message in messages
        ]
        assert {message.text(A_NAME) for message in messages} == {"plp_hold"}
        mine = [task for task in tasks if task[K["KLPCTL_A_TASK_PID"]] == crowd.pid]
        assert len({task[K["KLPCTL_A_TASK_TID"]] for task in mine}) == THREADS + 1
        idle = {task[K["KLPCTL_A_TASK_CPU"]] for task in tasks if K["KLPCTL_A_TASK_CPU"] in task}
        assert idle == set(range(os.cpu_count() or 0))
        pending = [task[K["KLPCTL_A_TASK_PID"]] for task in tasks if task[K["KLPCTL_A_TASK_PENDING"]]]
        # Kernel threads come and go: what counts is that all three agree once.
        return (len(tasks), len(tasks) - len(pending)) == before == counts() and pending == [held.process.pid]

    until(agree)
    [only] = client.ask(TASKS, attribute(A_FLAGS, struct.pack("=I", K["KLPCTL_TASK_PENDING"])), NLM_F_DUMP)
    assert int.from_bytes(only.nest(kind)[K["KLPCTL_A_TASK_PID"]], "little") == held.process.pid
    assert only.nest(kind)[K["KLPCTL_A_TASK_FUNC"]] == b"plp_target_hold\0"
    assert client.ask(REVERT, string(A_NAME, "plp_hold")) == []
    until(lambda: client.ask(TASKS, flags=NLM_F_DUMP) == [])


def test_random_messages_change_nothing(core: Core, payload: Payload, client: Client, log: KernelLog) -> None:
    """Thousands of random requests of root's get an answer each, and leave the kernel as it is."""
    log.expect("netlink: ")
    rng = random.Random(20260923)
    core.load(payload("plp_cmdline"))
    kicks = parameter("klpctl", "kicks")
    errors = set()
    with unchanged():
        for _ in range(MESSAGES):
            command = rng.choice([*range(10), 255])
            content = b""
            for _ in range(rng.randrange(4)):
                value = rng.choice([rng.randbytes(rng.randrange(70)), RISK, bytes(4), b"plp_cmdlin\0"])
                content += attribute(rng.choice([rng.randrange(20), A_NAME, A_FLAGS, rng.getrandbits(14)]), value)
            if command == GET and rng.randrange(2):
                content = NAME
            flags = NLM_F_ACK | rng.choice([0, 0, NLM_F_DUMP, rng.getrandbits(16)])
            client.send(command, content, flags, version=rng.randrange(3), reserved=rng.choice([0, 0, 0, 7]))
            answer = client.receive()
            while answer[-1][0] not in (NLMSG_ERROR, 3):
                answer += client.receive()
            errors.add(struct.unpack_from("=i", answer[-1][2])[0])
    assert errors >= {0, -errno.EINVAL, -errno.EOPNOTSUPP, -errno.ENOENT}
    assert parameter("klpctl", "kicks") == kicks
