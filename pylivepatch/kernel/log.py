# SPDX-License-Identifier: MIT
"""What the livepatch core says in the kernel log while something is tried.

Loading a module has no extended acknowledgement: the log holds the only words
that the kernel has for a refusal. They explain errors, they decide nothing.
"""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING

from pylivepatch.errors import PatchRejectedError
from pylivepatch.kernel.refusal import explain

if TYPE_CHECKING:
    from collections.abc import Iterator

_LONGEST = 8192


class KernelLog:
    """The kernel log from now on; empty for those who may not read it.

    Source: /dev/kmsg.
    """

    def __init__(self, path: str = "/dev/kmsg") -> None:
        self._fd = -1
        with contextlib.suppress(OSError):
            self._fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
            os.lseek(self._fd, 0, os.SEEK_END)

    def close(self) -> None:
        """Close the log."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def words(self, name: str) -> list[str]:
        """Read the lines about live patches and the module `name` since the start."""
        lines = []
        while self._fd >= 0:
            try:
                record = os.read(self._fd, _LONGEST)
            except BlockingIOError:
                break
            except BrokenPipeError:
                continue
            except OSError:
                break
            if not record:
                break
            text = record.decode(errors="replace").partition(";")[2].partition("\n")[0]
            if text.startswith(("livepatch: ", "klpctl: ", f"{name}: ")):
                lines.append(text)
        return lines


@contextlib.contextmanager
def explained(name: str) -> Iterator[None]:
    """Let refusals in the body carry what the kernel log says about them."""
    log = KernelLog()
    try:
        yield
    except PatchRejectedError as error:
        better = explain(error, log.words(name))
        if better is error:
            raise
        raise better from error
    finally:
        log.close()
