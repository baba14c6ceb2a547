# SPDX-License-Identifier: MIT
"""What several test files need besides the fixtures: the kernel at one moment, and less mighty callers."""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path

from pylivepatch import Core, LivepatchError, PatchState, PatchStatus

# A command imports what it needs when it runs, which takes a second in an emulated guest: here once for all of them.
from pylivepatch.cli import (  # noqa: F401
    _main,
    apply,
    boot,
    change,
    check,
    fixes,
    health,
    info,
    install,
    load,
    main,
    metrics,
    show,
    wait,
    watch,
)

USER = 1000
CLONE_NEWNS, CLONE_NEWUSER, CLONE_NEWNET = 0x20000, 0x10000000, 0x40000000
HEADER = Path(__file__).parents[3] / "kmod/uapi/klpctl.h"
ADDRESS = re.compile(r"(?i)\b(?:0x)?ffff[0-9a-f]{12}\b")
FAILED = 70
SETTLED = 5.0

Done = subprocess.CompletedProcess[str]


def kernel(backend: str = "auto") -> dict[str, object]:
    """All of the kernel that an operation on patches can change."""
    with Core(backend) as core:  # type: ignore[arg-type]
        # The core lets go of a patch a little after its end.
        end = time.monotonic() + SETTLED
        while time.monotonic() < end and any(held(status) for status in core.status()):
            time.sleep(0.01)
        patches = {
            status.name: (status.state, status.registered, status.forced, status.objects) for status in core.status()
        }
    # Whoever has changed a patch keeps klpctl's device open, and so its module.
    modules = [line.split()[:3] for line in Path("/proc/modules").read_text().splitlines()]
    return {
        "patches": patches,
        "livepatch": sorted(str(path) for path in Path("/sys/kernel/livepatch").rglob("*")),
        "class": sorted(path.name for path in Path("/sys/class/livepatch").glob("*")),
        "modules": sorted((name, size, "" if name == "klpctl" else references) for name, size, references in modules),
        "cmdline": Path("/proc/cmdline").read_text(),
    }


def held(status: PatchStatus) -> bool:
    """Tell whether something, which may be the core, holds the module of a patch that is not enabled."""
    if status.forced or status.state.in_transition or status.state is PatchState.ENABLED:
        return False
    return (Path("/sys/module") / status.name / "refcnt").read_text() != "0\n"


@contextlib.contextmanager
def unchanged(backend: str = "auto") -> Iterator[None]:
    """Insist that the body leaves the kernel exactly as it was."""
    before = kernel(backend)
    yield
    assert kernel(backend) == before


def said(error: LivepatchError, *words: str) -> None:
    """Insist that the message names the thing, the state afterwards and the way out."""
    text = str(error)
    assert all(word in text for word in words), text
    assert error.after, text
    assert error.remedy, text


def become_user() -> None:
    """Become the ordinary user, for good."""
    os.setgroups([])
    os.setresgid(USER, USER, USER)
    os.setresuid(USER, USER, USER)


def enter_namespaces(flags: int) -> None:
    """Move to new namespaces; in a new user namespace, as its root."""
    if ctypes.CDLL(None, use_errno=True).unshare(flags):
        raise OSError(ctypes.get_errno(), "unshare")
    if flags & CLONE_NEWUSER:
        Path("/proc/self/setgroups").write_text("deny")
        for kind in ("uid", "gid"):
            Path(f"/proc/self/{kind}_map").write_text("0 0 1")


def forked(body: Callable[[], object], *, user: bool = False, namespaces: int = 0) -> Done:
    """Run something in a process of its own: quick, since nothing has to be imported anew."""
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        child = os.fork()
        if child == 0:
            _run(body, (out.fileno(), err.fileno()), user, namespaces)
        _, status = os.waitpid(child, 0)
        out.seek(0)
        err.seek(0)
        code = os.waitstatus_to_exitcode(status)
        return Done([], code, out.read().decode(), err.read().decode())


def _run(body: Callable[[], object], outputs: tuple[int, int], user: bool, namespaces: int) -> None:
    status = FAILED
    try:
        for number, descriptor in enumerate(outputs, start=1):
            os.dup2(descriptor, number)
        sys.stdout, sys.stderr = os.fdopen(1, "w"), os.fdopen(2, "w")
        signal.signal(signal.SIGINT, signal.default_int_handler)
        if namespaces:
            enter_namespaces(namespaces)
        if user:
            become_user()
        body()
        status = 0
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else FAILED
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def attempt(
    *attempts: Callable[[Core], object], backend: str = "klpctl", user: bool = True, namespaces: int = 0
) -> list[tuple[str, str]]:
    """Try things in another process; what each raised, and with which words."""

    def body() -> None:
        with Core(backend) as core:  # type: ignore[arg-type]
            for each in attempts:
                try:
                    each(core)
                except Exception as error:
                    print(json.dumps([type(error).__name__, str(error)]))
                else:
                    print(json.dumps(["", ""]))

    done = forked(body, user=user, namespaces=namespaces)
    assert done.returncode == 0, done.stderr
    return [(kind, words) for kind, words in map(json.loads, done.stdout.splitlines())]


def cli(*arguments: str | Path, user: bool = False) -> Done:
    """Run the command line."""

    def body() -> None:
        sys.argv = ["pylivepatch", *map(str, arguments)]
        main()

    return forked(body, user=user)
