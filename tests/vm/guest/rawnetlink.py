# SPDX-License-Identifier: MIT
"""A client of the klpctl family from its header alone: no package, no shim, no libmnl."""

from __future__ import annotations

import re
import socket
import struct
from dataclasses import dataclass
from pathlib import Path

NETLINK_GENERIC = 16
SOL_NETLINK, NETLINK_CAP_ACK, NETLINK_EXT_ACK = 270, 10, 11
NLMSG_ERROR, NLMSG_DONE = 2, 3
NLM_F_REQUEST, NLM_F_MULTI, NLM_F_ACK, NLM_F_DUMP = 1, 2, 4, 0x300
NLM_F_CAPPED, NLM_F_ACK_TLVS = 0x100, 0x200
NLMSGERR_ATTR_MSG = 1
GENL_ID_CTRL, CTRL_CMD_GETFAMILY = 16, 3
CTRL_ATTR_FAMILY_ID, CTRL_ATTR_FAMILY_NAME, CTRL_ATTR_MCAST_GROUPS = 1, 2, 7
CTRL_ATTR_MCAST_GRP_NAME, CTRL_ATTR_MCAST_GRP_ID = 1, 2
NETLINK_ADD_MEMBERSHIP = 1


def constants(header: Path) -> dict[str, int]:
    """Read the numbers of the enums and the plain definitions of a header."""
    text = re.sub(r"/\*.*?\*/", "", header.read_text(), flags=re.DOTALL)
    found = {
        name: int(value.rstrip("U"), 0)
        for name, value in re.findall(r"^#define (KLPCTL_\w+)\s+(0x[0-9a-fA-F]+U?|\d+)$", text, re.MULTILINE)
    }
    for body in re.findall(r"enum \w+ \{(.*?)\};", text, re.DOTALL):
        number = 0
        for entry in filter(None, (part.strip() for part in body.split(","))):
            name, _, value = (part.strip() for part in entry.partition("="))
            number = int(value, 0) if value else number
            found[name] = number
            number += 1
    return found


@dataclass(frozen=True)
class Message:
    """One message of an answer."""

    command: int
    attributes: list[tuple[int, bytes]]
    raw: bytes

    def number(self, kind: int) -> int:
        """The value of an attribute that is a number."""
        return int.from_bytes(dict(self.attributes)[kind], "little")

    def text(self, kind: int) -> str:
        """The value of an attribute that is a string."""
        return dict(self.attributes)[kind].rstrip(b"\0").decode()

    def nest(self, kind: int) -> dict[int, bytes]:
        """The attributes inside an attribute."""
        return dict(parse(dict(self.attributes)[kind]))


class RefusedError(Exception):
    """The kernel's error number, and its words."""

    def __init__(self, number: int, words: str) -> None:
        super().__init__(number, words)
        self.number = number
        self.words = words


def attribute(kind: int, value: bytes) -> bytes:
    """Encode an attribute."""
    data = struct.pack("=HH", 4 + len(value), kind) + value
    return data + bytes(-len(data) % 4)


def string(kind: int, value: str) -> bytes:
    """Encode a string attribute."""
    return attribute(kind, value.encode() + b"\0")


def parse(data: bytes) -> list[tuple[int, bytes]]:
    """Decode attributes."""
    found = []
    while len(data) >= 4:
        length, kind = struct.unpack_from("=HH", data)
        found.append((kind & 0x3FFF, data[4:length]))
        data = data[(length + 3) & ~3 :]
    return found


class Client:
    """A socket, and the family that it speaks with."""

    def __init__(self, fd: int | None = None, family: int = 0) -> None:
        self.socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, NETLINK_GENERIC, fd)
        self.sequence = 0
        if fd is None:
            self.socket.bind((0, 0))
        for option in (NETLINK_CAP_ACK, NETLINK_EXT_ACK):
            self.socket.setsockopt(SOL_NETLINK, option, 1)
        self.socket.settimeout(120)
        self.groups: dict[str, int] = {}
        self.family = family or self._resolve("klpctl")

    def close(self) -> None:
        """Close the socket."""
        self.socket.close()

    def _resolve(self, name: str) -> int:
        self.family = GENL_ID_CTRL
        answer = self.ask(CTRL_CMD_GETFAMILY, string(CTRL_ATTR_FAMILY_NAME, name))[0]
        for _, group in parse(dict(answer.attributes).get(CTRL_ATTR_MCAST_GROUPS, b"")):
            fields = dict(parse(group))
            number = int.from_bytes(fields[CTRL_ATTR_MCAST_GRP_ID], "little")
            self.groups[fields[CTRL_ATTR_MCAST_GRP_NAME].rstrip(b"\0").decode()] = number
        return answer.number(CTRL_ATTR_FAMILY_ID)

    def subscribe(self, group: str = "events") -> None:
        """Listen to a multicast group."""
        self.socket.setsockopt(SOL_NETLINK, NETLINK_ADD_MEMBERSHIP, self.groups[group])

    def send(
        self, command: int, payload: bytes = b"", flags: int = NLM_F_ACK, *, version: int = 1, reserved: int = 0
    ) -> None:
        """Send a request."""
        self.sequence += 1
        length = 20 + len(payload)
        header = struct.pack("=IHHII", length, self.family, flags | NLM_F_REQUEST, self.sequence, 0)
        self.socket.send(header + struct.pack("=BBH", command, version, reserved) + payload)

    def receive(self) -> list[tuple[int, int, bytes]]:
        """Receive what comes in one piece: type, flags and content of each message."""
        data = self.socket.recv(1 << 20)
        found = []
        while data:
            length, kind, flags, _, _ = struct.unpack_from("=IHHII", data)
            found.append((kind, flags, data[16:length]))
            data = data[(length + 3) & ~3 :]
        return found

    def ask(self, command: int, payload: bytes = b"", flags: int = NLM_F_ACK, **header: int) -> list[Message]:
        """Send a request and collect its answer, or raise."""
        self.send(command, payload, flags, **header)
        answer: list[Message] = []
        while True:
            for kind, bits, content in self.receive():
                if kind in (NLMSG_ERROR, NLMSG_DONE):
                    number = -struct.unpack_from("=i", content)[0] if content else 0
                    if number:
                        raise RefusedError(number, self._words(kind, bits, content))
                    return answer
                answer.append(self.message(content))

    @staticmethod
    def message(content: bytes) -> Message:
        """Decode a message of the family."""
        return Message(content[0], parse(content[4:]), content)

    @staticmethod
    def _words(kind: int, bits: int, content: bytes) -> str:
        if not bits & NLM_F_ACK_TLVS:
            return ""
        # An error repeats the header of the request; the end of a dump does not.
        offset = 4 if kind == NLMSG_DONE else 20
        return dict(parse(content[offset:])).get(NLMSGERR_ATTR_MSG, b"").rstrip(b"\0").decode()
