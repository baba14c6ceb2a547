# SPDX-License-Identifier: MIT
"""Health checks: commands whose exit status tells whether a patched system is well."""

from __future__ import annotations

import contextlib
import os
import shlex
import signal
import subprocess
import tempfile
from typing import Self

from pylivepatch.errors import CheckError

_SHOWN = 400


class HealthCheck:
    """A check that runs, with the patch's name in ``PYLIVEPATCH_PATCH``; at the end of the block it is killed.

    Args:
        command: A shell's command line, or a program and its arguments.
        patch: Name of the patch.
        timeout: Seconds that it may take.

    Raises:
        CheckError: It could not be started.
    """

    def __init__(self, command: str | tuple[str, ...], patch: str, timeout: float | None) -> None:
        words = ["/bin/sh", "-c", command] if isinstance(command, str) else list(command)
        self._shown = command if isinstance(command, str) else shlex.join(command)
        self._patch = patch
        self._timeout = timeout
        self._output = tempfile.TemporaryFile()  # noqa: SIM115 (closed at the end of the block)
        try:
            self.process: subprocess.Popen[bytes] = subprocess.Popen(
                words,
                stdin=subprocess.DEVNULL,
                stdout=self._output,
                stderr=subprocess.STDOUT,
                env={**os.environ, "PYLIVEPATCH_PATCH": patch},
                start_new_session=True,
            )
        except OSError as error:
            self._output.close()
            raise self._failed(f"could not be started: {error.strerror}") from error

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self._kill()
        self._output.close()

    def judge(self) -> None:
        """Raise unless it has succeeded; one that still runs has taken too long.

        Raises:
            CheckError: With the end of its output.
        """
        status = self.process.poll()
        if status == 0:
            return
        if status is None:
            self._kill()
            why = f"took longer than {self._timeout:g} s"
        else:
            why = f"failed with exit status {status}" if status > 0 else f"was killed by signal {-status}"
        size = self._output.seek(0, os.SEEK_END)
        self._output.seek(max(0, size - 4 * _SHOWN))
        output = self._output.read().decode(errors="replace").strip()[-_SHOWN:]
        raise self._failed(why, f" (its output: {output})" if output else "")

    def _kill(self) -> None:
        if self.process.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()

    def _failed(self, why: str, output: str = "") -> CheckError:
        return CheckError(
            f"the check of {self._patch} {why}: {self._shown}{output}", remedy="find out what the check found"
        )


def run_check(command: str | tuple[str, ...], timeout: float | None, patch: str) -> None:
    """Run a health check; its children are killed with it.

    Args:
        command: A shell's command line, or a program and its arguments.
        timeout: Seconds that it may take; None for any time.
        patch: Name of the patch.

    Raises:
        CheckError: It failed, took too long, or could not be started. The patch is
            as it was before the check.
    """
    with HealthCheck(command, patch, timeout) as check:
        with contextlib.suppress(subprocess.TimeoutExpired):
            check.process.wait(timeout)
        check.judge()
