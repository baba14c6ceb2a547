# SPDX-License-Identifier: MIT
"""The same interface for asyncio: `Core`, `Patch`, `Transition` and `Monitor`.

What only reads is as in `pylivepatch` and returns at once; what changes something
or waits is awaited. No thread is started, and no task: a `Core` has one
subscription to klpctl's events, whose descriptor the event loop watches, and all
that wait in it wake with that. Without klpctl they sleep for pauses that double,
from 5 to 100 ms.

**Cancellation reverses.** A cancelled `Patch.enable` or `Patch.revert` turns its
transition round, waits for the end of the reversal, and lets the cancellation go
on then; so does an exception that leaves ``async with transition``. A second
cancellation ends that wait; the reversal goes on in the kernel.

**What blocks the event loop.** The kernel does what it is asked in the call that
asks: loading a module, and starting or turning round a transition, hold the event
loop for that long. A start takes longer on 6.12, which rewrites every
``cond_resched()`` of the kernel for it, than on 6.1; in a guest without hardware
virtualization it takes up to a second, and more with busy CPUs.
Where that is too long, start it elsewhere and follow it here::

    await asyncio.to_thread(sync_patch.enable, wait=False)
    await core["fix"].transition.wait()

**Other event loops** (trio, Tornado, gevent) do with `pylivepatch` itself what this
module does: whenever `pylivepatch.Monitor.fileno` is readable, take all events with
``monitor.read(0)`` and read `pylivepatch.Transition.progress`; once
`pylivepatch.Transition.finished`, `pylivepatch.Transition.wait` returns, or raises,
at once. A transition has no descriptor of its own: events are of all patches, and
one subscription is enough for all that is followed.
"""

from __future__ import annotations

import asyncio
import errno
import functools
import time
from typing import TYPE_CHECKING, Literal, Self, TypeVar

from pylivepatch import core as _core
from pylivepatch._aio_monitor import Monitor
from pylivepatch._aio_transition import Transition
from pylivepatch._pulse import Pulse
from pylivepatch.errors import PatchStateError, TransitionBusyError
from pylivepatch.kernel.modules import LAST_REFERENCE
from pylivepatch.state import PatchState

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Iterator

    from pylivepatch import patch as _patch
    from pylivepatch import transition as _transition
    from pylivepatch.event import EventSource
    from pylivepatch.kernel import BackendName
    from pylivepatch.module.info import PatchInfo
    from pylivepatch.preflight import Finding
    from pylivepatch.state import Blocker, Features, Object, PatchStatus
    from pylivepatch.transition import OnTimeout

__all__ = ["Core", "Monitor", "Patch", "Transition"]

_PAUSE = 0.005
_T = TypeVar("_T")


class Core:
    """The livepatch core, as `pylivepatch.Core`, for one event loop.

    Use it in an ``async with`` statement.

    Args:
        backend: As of `pylivepatch.Core`.
        root: As of `pylivepatch.Core`.

    Raises:
        UnsupportedError: As `pylivepatch.Core`, and so the others.
        AccessError: klpctl may not be used by the caller.
        BadDataError: There is no such backend.
    """

    def __init__(
        self,
        backend: Literal["auto", "klpctl", "sysfs"] = "auto",
        *,
        root: str | os.PathLike[str] = "/",
    ) -> None:
        self._core = _core.Core(backend, root=root)
        self._pulse = Pulse(events=self._core.features.events)

    def __repr__(self) -> str:
        return f"<aio.Core {self.release} by {self.backend}>"

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the kernel. Patches stay as they are."""
        self._pulse.close()
        self._core.close()

    @property
    def backend(self) -> BackendName:
        """How the livepatch core is reached: "klpctl" or "sysfs"."""
        return self._core.backend

    @property
    def features(self) -> Features:
        """What is there, and why the rest is not."""
        return self._core.features

    @property
    def release(self) -> str:
        """The kernel's release, as ``uname -r`` prints it."""
        return self._core.release

    def patches(self) -> list[Patch]:
        """List all patches, as `pylivepatch.Core.patches`."""
        return [Patch(patch, self._pulse) for patch in self._core.patches()]

    def status(self) -> list[PatchStatus]:
        """Read all patches at one moment, everything about each."""
        return self._core.status()

    def blockers(self) -> list[Blocker]:
        """List the tasks that the running transition waits for, as `pylivepatch.Core.blockers`."""
        return self._core.blockers()

    def preflight(self, path: str | os.PathLike[str], /, **params: str | int | bool) -> list[Finding]:
        """Find what stands in the way of a patch, as `pylivepatch.Core.preflight`."""
        return self._core.preflight(path, **params)

    def info(self, name: str) -> PatchInfo:
        """Say everything that is known about a loaded patch, as `pylivepatch.Core.info`."""
        return self._core.info(name)

    def fixes(self, cve: str) -> list[PatchInfo]:
        """Find the enabled patches that fix a CVE, as `pylivepatch.Core.fixes`."""
        return self._core.fixes(cve)

    async def unload_replaced(self) -> list[str]:
        """Unload the patches that another patch replaced, as `pylivepatch.Core.unload_replaced`.

        Raises:
            LivepatchError: As `pylivepatch.Core.unload_replaced`, with the same states
                after the failure.
        """
        self.features.require("events")
        replaced = [patch for patch in self.patches() if patch.state is PatchState.REPLACED]
        for patch in replaced:
            await patch.unload()
        return [patch.name for patch in replaced]

    def __iter__(self) -> Iterator[Patch]:
        return iter(self.patches())

    def patch(self, name: str) -> Patch:
        """Find a patch, as `pylivepatch.Core.patch`.

        Raises:
            PatchNotFoundError: There is none of that name.
            BadDataError: That cannot be a name.
        """
        return Patch(self._core.patch(name), self._pulse)

    def __getitem__(self, name: str) -> Patch:
        return self.patch(name)

    async def load(self, path: str | os.PathLike[str], /, **params: str | int | bool) -> Patch:
        """Load a patch module, as `pylivepatch.Core.load`.

        It reads the file and runs the module's init function: the event loop
        stands still for that.

        Raises:
            LivepatchError: As `pylivepatch.Core.load`, with the same states after
                the failure.
        """
        patch = Patch(self._core.load(path, **params), self._pulse, ours=True)
        self._pulse.strike()
        return patch

    def monitor(self, source: EventSource = "netlink") -> Monitor:
        """Listen to events of all patches from now on.

        Raises:
            UnsupportedError: klpctl is not used, or pyudev is not installed.
        """
        if self.backend != "klpctl":
            self.features.require("events")
        return Monitor(source)


class Patch:
    """A patch by its name, had from `Core`, as `pylivepatch.Patch`.

    Attributes:
        name: Name of the patch, which is its module's name.
    """

    def __init__(self, patch: _patch.Patch, pulse: Pulse, *, ours: bool = False) -> None:
        self.name = patch.name
        self._patch = patch
        # Waiting for the kernel to let go of a module is done here, not in there.
        self._patch._patience = 0.0
        self._pulse = pulse
        self._ours = ours

    def __repr__(self) -> str:
        return f"<aio.Patch {self.name}>"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Patch) and self.name == other.name

    def __hash__(self) -> int:
        return hash(self.name)

    def status(self) -> PatchStatus:
        """Read everything about the patch at once; `PatchNotFoundError` when it is gone."""
        return self._patch.status()

    @property
    def state(self) -> PatchState:
        """Where it stands now."""
        return self._patch.state

    @property
    def registered(self) -> bool:
        """Registered with klpctl; otherwise an ordinary live patch module."""
        return self._patch.registered

    @property
    def replace(self) -> bool | None:
        """Whether it replaces all patches before it; None when that cannot be told."""
        return self._patch.replace

    @property
    def objects(self) -> tuple[Object, ...]:
        """What it changes: objects, and the functions in them."""
        return self._patch.objects

    @property
    def transition(self) -> Transition | None:
        """Its running transition, whoever started it, without a deadline; or None.

        Whoever waits for it looks on: being cancelled there reverses nothing,
        except in ``async with``, and for what loading the patch from here started.
        """
        running = self._patch.transition
        return None if running is None else Transition(running, self._pulse, ours=self._ours)

    async def enable(
        self,
        timeout: float | None = 30.0,
        *,
        on_timeout: OnTimeout = "reverse",
        wait: bool = True,
        confirm_within: float | None = None,
        owned: bool = True,
    ) -> Transition:
        """Switch all tasks to the new code, as `pylivepatch.Patch.enable`.

        Raises:
            asyncio.CancelledError: The transition was turned round, and the reversal has
                ended; what hindered that stands in its notes.
            LivepatchError: As `pylivepatch.Patch.enable`, with the same states
                after the failure.
        """
        start = functools.partial(self._patch.enable, timeout, on_timeout=on_timeout, wait=False)
        return await self._change(lambda: start(confirm_within=confirm_within, owned=owned), wait)

    async def confirm(self) -> None:
        """Let it stay, as `pylivepatch.Patch.confirm`.

        Raises:
            LivepatchError: As `pylivepatch.Patch.confirm`. Nothing has changed.
        """
        self._patch.confirm()

    async def revert(
        self, timeout: float | None = 30.0, *, on_timeout: OnTimeout = "reverse", wait: bool = True
    ) -> Transition:
        """Switch all tasks back to the old code, as `pylivepatch.Patch.revert`.

        Raises:
            asyncio.CancelledError: The transition was turned round, so that the patch stays
                enabled; what hindered that stands in its notes.
            LivepatchError: As `pylivepatch.Patch.revert`, with the same states
                after the failure.
        """
        return await self._change(lambda: self._patch.revert(timeout, on_timeout=on_timeout, wait=False), wait)

    async def unload(self) -> None:
        """Remove its module, as `pylivepatch.Patch.unload`.

        Raises:
            LivepatchError: As `pylivepatch.Patch.unload`. It stays loaded.
        """
        await _patiently(self._patch.unload)
        self._pulse.strike()

    async def force(self, *, accept_risk: bool) -> None:
        """End its transition without waiting for its tasks, as `pylivepatch.Patch.force`.

        Raises:
            LivepatchError: As `pylivepatch.Patch.force`. Nothing has changed.
        """
        self._patch.force(accept_risk=accept_risk)
        self._pulse.strike()

    async def _change(self, start: Callable[[], _transition.Transition], wait: bool) -> Transition:
        transition = Transition(await _patiently(start), self._pulse, ours=True)
        self._pulse.strike()
        return await transition.wait() if wait else transition


async def _patiently(attempt: Callable[[], _T]) -> _T:
    """Try again while the kernel is about to let go of a module, for 2 s at most."""
    end = time.monotonic() + LAST_REFERENCE
    while True:
        try:
            return attempt()
        except TransitionBusyError as error:
            if error.patch is not None or time.monotonic() >= end:
                raise
        except PatchStateError as error:
            if error.errno != errno.EAGAIN or time.monotonic() >= end:
                raise
        await asyncio.sleep(_PAUSE)
