# SPDX-License-Identifier: MIT
"""What changes patches: loading, unloading, and the wait for transitions as kpatch reports it."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING

from pylivepatch.cli.kpatch.report import FailedError, out, warn
from pylivepatch.errors import AccessError, LivepatchError, PatchNotFoundError, PatchStateError, TransitionBusyError
from pylivepatch.kernel import modules
from pylivepatch.kernel.names import patch_name
from pylivepatch.module import ModuleFile
from pylivepatch.state import PatchState

if TYPE_CHECKING:
    from collections.abc import Callable

    from pylivepatch.core import Core
    from pylivepatch.patch import Patch

POST_ENABLE_WAIT = 15
POST_SIGNAL_WAIT = 60
"""Seconds that a transition has, before and after it is reported as stalled; kpatch's own numbers."""

MAX_ATTEMPTS = 5
RETRY_INTERVAL = 2.0

SYSFS = Path("/sys")
_PAUSE = 0.02


def load_module(core: Core, path: Path) -> None:
    """Load a module file and enable its patch, or undo that when its transition does not end."""
    name = patch_name(ModuleFile.open(path).name)
    state = _state(core, name)
    if state in (PatchState.ENABLED, PatchState.ENABLING):
        out(f"module named {name} already loaded and enabled")
    elif state is PatchState.DISABLING:
        out("module already loaded, re-enabling")
        core.patch(name).enable(None, wait=False)
    else:
        # What is loaded and does nothing may be another build.
        remove(core, name, quiet=True)
        out(f"loading patch module: {path}")
        _retry(lambda: _insert(core, path), f"failed to load module {path}")
    if not _wait(core, name):
        show_stalled(core)
        out(f"module {name} did not complete its transition, unloading...")
        disable(core, name)
        remove(core, name)
        raise FailedError(f"error: failed to load module {name} (transition stalled)")


def _insert(core: Core, path: Path) -> None:
    patch = core.load(path, timeout=None, wait=False)
    if not patch.registered or patch.state is PatchState.ENABLED:
        return
    try:
        patch.enable(None, wait=False)
    except LivepatchError:
        # kpatch knows no patch that is loaded and was never enabled.
        patch.unload()
        raise


def disable(core: Core, name: str) -> None:
    """Disable a patch, and wait for the end of that."""
    state = _state(core, name)
    if state is None and not (SYSFS / "module" / name).is_dir():
        warn(f"patch module {name} is not loaded")
        raise FailedError(f"failed to disable module {name}")
    if state in (PatchState.ENABLED, PatchState.ENABLING):
        out(f"disabling patch module: {name}")
        _retry(lambda: core.patch(name).revert(None, wait=False), f"failed to disable module {name}")
    if not _wait(core, name):
        raise FailedError(f"transition stalled for {name}")


def remove(core: Core, name: str, *, quiet: bool = False) -> None:
    """Unload the module of a patch, if it is loaded."""
    if not quiet:
        out(f"unloading patch module: {name}")
    try:
        try:
            core.patch(name).unload()
        except PatchNotFoundError:
            # Without klpctl a patch that is disabled is known as a module only.
            if (SYSFS / "module" / name).is_dir():
                modules.remove(name, SYSFS)
    except PatchStateError as error:
        warn(str(error))
        raise FailedError(f"failed to unload module {name} (refcnt)") from None


def unload_all(core: Core) -> None:
    """Disable and unload all patches; those that cannot be are named at the end."""
    # The newest first: a patch may stand on those before it.
    for status in reversed(core.status()):
        try:
            disable(core, status.name)
            remove(core, status.name)
        except (FailedError, LivepatchError) as error:
            warn(str(error))
    left = core.status()
    for status in left:
        warn(f"failed to unload module {status.name}")
    if left:
        raise SystemExit(1)


def _retry(change: Callable[[], object], failure: str) -> None:
    """Try a change again while another patch is in transition."""
    for attempt in range(1, MAX_ATTEMPTS + 1):
        try:
            change()
            return
        except AccessError:
            raise
        except LivepatchError as error:
            warn(str(error))
            if attempt == MAX_ATTEMPTS or not isinstance(error, TransitionBusyError):
                raise FailedError(failure) from None
        warn("retrying...")
        time.sleep(RETRY_INTERVAL)


# ---- transitions ----


def _wait(core: Core, name: str) -> bool:
    """Wait for the transition of a patch; return whether it has ended."""
    if not _moving(core, name):
        return True
    for seconds in (POST_ENABLE_WAIT, POST_SIGNAL_WAIT):
        out(f"waiting (up to {seconds} seconds) for patch transition to complete...")
        start = time.monotonic()
        while time.monotonic() < start + seconds:
            if not _moving(core, name):
                out(f"transition complete ({int(time.monotonic() - start)} seconds)")
                return True
            time.sleep(_PAUSE)
        if seconds == POST_ENABLE_WAIT:
            out("patch transition has stalled!")
            signal_stalled()
    return False


def _moving(core: Core, name: str) -> bool:
    state = _state(core, name)
    return state is not None and state.in_transition


def _state(core: Core, name: str) -> PatchState | None:
    try:
        return core.patch(name).state
    except PatchNotFoundError:
        return None


def in_transition(core: Core) -> Patch | None:
    """Find the patch in transition."""
    return next((core.patch(status.name) for status in core.status() if status.state.in_transition), None)


def signal_stalled() -> None:
    """Say what kpatch says where the kernel sends the signals by itself, as all do since 5.1."""
    warn("Livepatch process signaling is performed automatically on your system.")
    warn("Skipping manual process signaling.")


def show_stalled(core: Core) -> None:
    """Print the tasks that the running transition waits for, each with its stack."""
    if in_transition(core) is None:
        return
    out("")
    out("Stalled processes:")
    try:
        blockers = core.blockers()
    except AccessError:  # kpatch shows nothing then, either
        return
    for blocker in blockers:
        if blocker.cpu is None:
            for line in (f"{blocker.tid} {blocker.comm}", "stack:", *(f"[<0>] {frame}" for frame in blocker.stack)):
                out(line)
