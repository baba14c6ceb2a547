# SPDX-License-Identifier: MIT
"""A connection to the klpctl family, over the shim."""

from __future__ import annotations

import errno
import math
import time
from typing import TYPE_CHECKING, Self

from pylivepatch._shim import ffi, lib
from pylivepatch.kernel.wire import Attribute, Values, tree

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pylivepatch._shim import Connection

LONGEST = 1_000_000.0
"""Seconds that poll(2) is asked for at once."""


class RefusedError(Exception):
    """A request got an error number.

    Attributes:
        number: The error number, positive.
        extack: The kernel's own words, or "".
    """

    def __init__(self, number: int, extack: str = "") -> None:
        super().__init__(number, extack)
        self.number = number
        self.extack = extack


class Netlink:
    """One socket. Not for use by several threads at a time."""

    def __init__(self, *, subscribe: bool = False) -> None:
        out = ffi.new("struct plp_nl **")
        result = lib.plp_nl_open(out)
        if result < 0:
            raise RefusedError(-result)
        self._nl: Connection | None = out[0]
        self._attr = ffi.new("struct plp_attr *")
        if subscribe:
            result = lib.plp_nl_subscribe(out[0])
            if result < 0:
                self.close()
                raise RefusedError(-result)

    def close(self) -> None:
        """Close the socket; the second time does nothing."""
        if self._nl is not None:
            lib.plp_nl_close(self._nl)
            self._nl = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def fileno(self) -> int:
        """The descriptor, to poll."""
        return lib.plp_nl_fd(self._open())

    def ask(self, command: int, *, dump: bool = False, name: str = "", options: int = 0) -> list[Values]:
        """Send a command and read its whole answer.

        Returns:
            The messages of the answer; none for one that is only acknowledged.

        Raises:
            RefusedError: The kernel refused it.
        """
        while True:
            try:
                return self._ask(command, dump, name, options)
            except RefusedError as error:
                # The set of patches changed while it was dumped: read it again.
                if not (dump and error.number == errno.ESTALE):
                    raise

    def _ask(self, command: int, dump: bool, name: str, options: int) -> list[Values]:
        nl = self._open()
        text = name.encode() if name else ffi.NULL
        self._check(lib.plp_nl_send(nl, command, int(dump), text, options))
        answer = []
        while self._receive(-1):
            if lib.plp_nl_cmd(nl) != lib.KLPCTL_CMD_EVENT:
                answer.append(self._message())
        return answer

    def event(self, timeout: float | None) -> Values | None:
        """Read the next event; None when `timeout` (seconds) is over first.

        Raises:
            RefusedError: ENOBUFS when events were lost.
        """
        end = None if timeout is None else time.monotonic() + timeout
        while True:
            left = -1 if end is None else max(0, math.ceil(min(end - time.monotonic(), LONGEST) * 1000))
            try:
                if self._receive(left) and lib.plp_nl_cmd(self._open()) == lib.KLPCTL_CMD_EVENT:
                    return self._message()
            except RefusedError as error:
                if error.number != errno.EAGAIN:
                    raise
                if end is not None and time.monotonic() >= end:
                    return None

    def _open(self) -> Connection:
        if self._nl is None:
            raise ValueError("the connection is closed")
        return self._nl

    def _receive(self, timeout_ms: int) -> bool:
        while True:
            result = lib.plp_nl_receive(self._open(), timeout_ms)
            # After a signal: its handler has run, and may have raised.
            if result != -errno.EINTR:
                return bool(self._check(result))

    def _check(self, result: int) -> int:
        if result < 0:
            words = ffi.string(lib.plp_nl_extack(self._open())).decode(errors="replace")
            raise RefusedError(-result, words)
        return result

    def _message(self) -> Values:
        return tree(self._attributes())

    def _attributes(self) -> Iterator[Attribute]:
        attr = self._attr
        while self._check(lib.plp_nl_next(self._open(), attr)):
            text = ffi.string(attr.text).decode(errors="replace") if attr.text else ""
            yield Attribute(attr.type, attr.depth, attr.parent, bool(attr.nested), attr.number, text)
