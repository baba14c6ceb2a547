# SPDX-License-Identifier: MIT
"""The wire, by a client that knows the uapi header and nothing else."""

from __future__ import annotations

import errno
import os
import random
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from threading import Thread

import pytest
from conftest import KernelLog, parameter, until
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
A_NAME, A_OPTIONS = K["KLPCTL_A_NAME"], K["KLPCTL_A_OPTIONS"]
GET, TASKS, FEATURES = K["KLPCTL_CMD_PATCH_GET"], K["KLPCTL_CMD_TASK_GET"], K["KLPCTL_CMD_FEATURES_GET"]
NAME = string(A_NAME, "plp_cmdline")
STACK = struct.pack("=I", K["KLPCTL_TASK_STACK"])
SLEEPERS = 500
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
    """A client written from the header sees features, patches and events."""
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
    assert status.number(K["KLPCTL_A_FLAGS"]) == K["KLPCTL_PATCH_REGISTERED"]
    fields = status.nest(K["KLPCTL_A_OBJECT"])
    assert fields[K["KLPCTL_A_OBJECT_NAME"]] == b"vmlinux\0"
    function = dict(parse(fields[K["KLPCTL_A_OBJECT_FUNC"]]))
    assert function[K["KLPCTL_A_FUNC_NAME"]] == b"cmdline_proc_show\0"
    assert function[K["KLPCTL_A_FUNC_SYMPOS"]] == bytes(4)

    mine = core["plp_cmdline"]
    for change, state in ((mine.enable, "KLPCTL_STATE_ENABLED"), (mine.revert, "KLPCTL_STATE_DISABLED")):
        change(wait=False)
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
    (GET, b"", errno.EINVAL, "KLPCTL_A_NAME"),
    (GET, NAME + attribute(A_OPTIONS, STACK), errno.EINVAL, ""),
    (GET, NAME + attribute(K["KLPCTL_A_STATE"], STACK), errno.EINVAL, ""),
    (GET, NAME + attribute(K["__KLPCTL_A_MAX"], STACK), errno.EINVAL, ""),
    (GET, NAME + attribute(200, b""), errno.EINVAL, ""),
    (FEATURES, NAME, errno.EINVAL, ""),
    (GET, string(A_NAME, "x" * (K["KLPCTL_NAME_LEN"] + 1)), errno.EINVAL, ""),
    (GET, string(A_NAME, "x" * 5000), errno.EINVAL, ""),
    (GET, string(A_NAME, "x" * K["KLPCTL_NAME_LEN"]), errno.ENOENT, "no such patch"),
    (GET, string(A_NAME, ""), errno.ENOENT, "no such patch"),
    (GET, string(A_NAME, "../plp_cmdline"), errno.ENOENT, "no such patch"),
    (GET, attribute(A_NAME, b"plp_cmdline"), errno.EINVAL, ""),
    (GET, attribute(A_NAME, b""), errno.EINVAL, ""),
]


@pytest.mark.parametrize("case", range(len(BAD)))
def test_a_bad_request_is_refused_in_words(core: Core, payload: Payload, client: Client, case: int) -> None:
    """Missing, surplus, long, short and unterminated attributes are refused with a message."""
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
        flags = attribute(A_OPTIONS, STACK)
        for content in (attribute(A_OPTIONS, STACK + STACK), attribute(A_OPTIONS, b"\1"), flags + b"\2\0\0\0"):
            error = refused(client, TASKS, content, NLM_F_DUMP)
            assert error.number in (errno.EINVAL, errno.ERANGE)
            assert error.words


def test_dumps_take_nothing_and_commands_are_known(core: Core, payload: Payload, client: Client) -> None:
    """Dumps refuse attributes; unknown commands and flags, dumps of what is no dump, and reserved bytes are refused."""
    core.load(payload("plp_cmdline"))
    with unchanged():
        for command in (GET, TASKS):
            error = refused(client, command, NAME, NLM_F_DUMP)
            assert (error.number, bool(error.words)) == (errno.EINVAL, True), (command, error)
        for flags in (2, 1 << 31):
            error = refused(client, TASKS, attribute(A_OPTIONS, struct.pack("=I", flags)), NLM_F_DUMP)
            assert (error.number, bool(error.words)) == (errno.EINVAL, True)
        for command in (0, K["KLPCTL_CMD_EVENT"], K["KLPCTL_CMD_EVENT"] + 1, 255):
            assert refused(client, command, NAME).number == errno.EOPNOTSUPP
        assert refused(client, TASKS, b"").number == errno.EOPNOTSUPP
        assert refused(client, FEATURES, b"", NLM_F_DUMP).number == errno.EOPNOTSUPP
        error = refused(client, GET, NAME, reserved=1)
        assert (error.number, bool(error.words)) == (errno.EINVAL, True)


def test_a_dump_of_many_tasks_agrees_with_the_counts(
    core: Core, payload: Payload, client: Client, target: str
) -> None:
    """The dump lists all pending threads, each with its reason, and total and done say the same."""
    parameter(target, "hold", "Y")
    held = [Thread(target=lambda: Path("/proc/plp_target").write_text("x"), daemon=True) for _ in range(SLEEPERS)]
    for each in held:
        each.start()
    until(lambda: int(parameter(target, "sleepers")) == SLEEPERS)
    core.load(payload("plp_hold")).enable(wait=False)
    kind = K["KLPCTL_A_TASK"]

    def counts() -> tuple[int, int]:
        fields = patch(client, "plp_hold").nest(K["KLPCTL_A_TRANSITION"])
        names = ("KLPCTL_A_TRANSITION_TOTAL", "KLPCTL_A_TRANSITION_DONE")
        return tuple(int.from_bytes(fields[K[name]], "little") for name in names)  # type: ignore[return-value]

    until(lambda: counts()[0] - counts()[1] == SLEEPERS)
    threads = sum(1 for _ in Path("/proc").glob("[0-9]*/task/[0-9]*"))
    assert abs(counts()[0] - (os.cpu_count() or 0) - threads) <= 5, "tasks come and go, but not many"
    for flags in (b"", attribute(A_OPTIONS, STACK)):
        messages = client.ask(TASKS, flags, NLM_F_DUMP)
        assert {message.text(A_NAME) for message in messages} == {"plp_hold"}
        tasks = [message.nest(kind) for message in messages]
        tids = [int.from_bytes(task[K["KLPCTL_A_TASK_TID"]], "little") for task in tasks]
        assert sorted(tids) == sorted(each.native_id or 0 for each in held)
        assert {int.from_bytes(task[K["KLPCTL_A_TASK_PID"]], "little") for task in tasks} == {os.getpid()}
        assert {task[K["KLPCTL_A_TASK_FUNC"]] for task in tasks} == {b"plp_target_hold\0"}
        assert {b"plp_target_hold+" in task.get(K["KLPCTL_A_TASK_STACK"], b"") for task in tasks} == {bool(flags)}
    core["plp_hold"].revert(wait=False)
    until(lambda: client.ask(TASKS, flags=NLM_F_DUMP) == [])
    parameter(target, "hold", "N")
    for each in held:
        each.join(60)


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
                value = rng.choice([rng.randbytes(rng.randrange(70)), STACK, bytes(4), b"plp_cmdlin\0"])
                content += attribute(rng.choice([rng.randrange(20), A_NAME, A_OPTIONS, rng.getrandbits(14)]), value)
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
