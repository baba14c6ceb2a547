# SPDX-License-Identifier: MIT
"""Health checks: commands that say whether a patched system is well."""

from __future__ import annotations

import contextlib
import os
import shlex
import signal
import subprocess
import tempfile

from pylivepatch.errors import CheckError

_SHOWN = 400


def run_check(command: str | tuple[str, ...], timeout: float | None, patch: str) -> None:
    """Run a health check, with the patch's name in ``PYLIVEPATCH_PATCH``.

    Args:
        command: A shell's command line, or a program and its arguments.
        timeout: Seconds that it may take; it is killed then, with its children.
        patch: Name of the patch.

    Raises:
        CheckError: It failed, took too long, or could not be started. The patch is
            as it was before the check.
    """
    words = ["/bin/sh", "-c", command] if isinstance(command, str) else list(command)
    shown = command if isinstance(command, str) else shlex.join(command)
    with tempfile.TemporaryFile() as output:
        try:
            process = subprocess.Popen(
                words,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env={**os.environ, "PYLIVEPATCH_PATCH": patch},
                start_new_session=True,
            )
        except OSError as error:
            raise _failed(patch, shown, f"could not be started: {error.strerror}", "") from error
        try:
            status = process.wait(timeout)
        except subprocess.TimeoutExpired:
            why = f"took longer than {timeout:g} s"
        else:
            if status == 0:
                return
            why = f"ended with exit status {status}" if status > 0 else f"was killed by signal {-status}"
        finally:
            if process.poll() is None:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                process.wait()
        output.seek(0)
        said = output.read().decode(errors="replace").strip()[-_SHOWN:]
    raise _failed(patch, shown, why, said)


def _failed(patch: str, command: str, why: str, said: str) -> CheckError:
    words = f" (it said: {said})" if said else ""
    return CheckError(f"the check of {patch} {why}: {command}{words}", remedy="find out what the check found")
