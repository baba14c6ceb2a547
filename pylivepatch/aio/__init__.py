# SPDX-License-Identifier: MIT
"""The same interface for asyncio: `Core`, `Patch`, `Transition`, `Monitor` and `Sequence`.

What reads a moment's state is as in `pylivepatch` and returns at once; what changes something, waits
or takes long is awaited. A `Core` has one subscription to klpctl's events, whose descriptor the event loop
watches, and all that wait in it wake with that: no task is started, and no thread. Without klpctl they sleep
for pauses that double, from 5 to 100 ms.

**Cancellation reverses.** A cancelled `Patch.enable` or `Patch.revert` reverses its
transition, waits for the end of the reversal, and lets the cancellation go
on then; so does an exception that leaves ``async with transition``. A second
cancellation ends that wait; the reversal goes on in the kernel.

**What runs in a thread.** Reading module files, searching the kernel's symbol table, walking the stacks of
tasks, and loading a module take long: `Core.load`, `Core.preflight`, `Core.info`, `Core.fixes` and the
``blockers()`` and ``tasks()`` do that in a thread of `asyncio.to_thread`. A cancelled `Core.load` waits
for the kernel's answer, and undoes what it loaded.

**What blocks the event loop.** Starting and reversing a transition hold the event loop for as long as the
kernel takes. A start takes longer on 6.12, which rewrites every ``cond_resched()`` of the kernel for it, than
on 6.1 or 7.x; in a guest without hardware virtualization up to a second, and more with busy CPUs.
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
from pathlib import Path
from typing import TYPE_CHECKING, Self

from pylivepatch.aio.loop import Loop
from pylivepatch.aio.monitor import Monitor
from pylivepatch.aio.sequence import Sequence
from pylivepatch.aio.transition import Transition
from pylivepatch.core import BaseCore
from pylivepatch.kernel import changes
from pylivepatch.kernel.changes import Options
from pylivepatch.patch import BasePatch
from pylivepatch.sequence.step import Step

if TYPE_CHECKING:
    import os
    from collections.abc import Callable

    from pylivepatch._flow import OnProgress, OnTimeout
    from pylivepatch.kernel import BackendChoice, Kernel
    from pylivepatch.kernel.changes import Loaded, Params
    from pylivepatch.module.info import PatchInfo
    from pylivepatch.monitor import EventSource
    from pylivepatch.preflight import Finding
    from pylivepatch.state import Blocker

__all__ = ["Core", "Monitor", "Patch", "Sequence", "Transition"]


class Patch(BasePatch):
    """A patch by its name, obtained from `Core`, as `pylivepatch.Patch`."""

    def __init__(self, name: str, kernel: Kernel, reload: Callable[[], object] | None, loop: Loop) -> None:
        super().__init__(name, kernel, reload)
        self._loop = loop

    @property
    def transition(self) -> Transition | None:
        """Its running transition, whoever started it, without a deadline; or None.

        Cancelling a task that waits for it reverses nothing, except in ``async with``: it only observes.
        """
        course = changes.follow(self._kernel, self.status())
        return None if course is None else Transition(self._kernel, course, self, self._loop)

    async def enable(
        self,
        timeout: float | None = 30.0,
        *,
        on_timeout: OnTimeout = "reverse",
        wait: bool = True,
        confirm_within: float | None = None,
        owned: bool = False,
        if_needed: bool = False,
        on_progress: OnProgress | None = None,
    ) -> Transition:
        """Switch all tasks to the new code, as `pylivepatch.Patch.enable`.

        Raises:
            asyncio.CancelledError: The transition was reversed, and the reversal has
                ended; what hindered that is in the exception's notes.
            LivepatchError: As `pylivepatch.Patch.enable`, with the same states
                after the failure.
        """
        options = Options(timeout, on_timeout, wait, on_progress)
        flow = self._enable(options, confirm_within, owned, if_needed)
        return Transition(self._kernel, await self._loop.run(flow), self, self._loop)

    async def confirm(self, *, if_needed: bool = False) -> bool:
        """Keep the patch, as `pylivepatch.Patch.confirm`.

        Raises:
            LivepatchError: As `pylivepatch.Patch.confirm`.
        """
        return self._confirm(if_needed)

    async def revert(
        self,
        timeout: float | None = 30.0,
        *,
        on_timeout: OnTimeout = "reverse",
        wait: bool = True,
        if_needed: bool = False,
        on_progress: OnProgress | None = None,
    ) -> Transition:
        """Switch all tasks back to the old code, as `pylivepatch.Patch.revert`.

        Raises:
            asyncio.CancelledError: The transition was reversed, so that the patch stays
                enabled; what hindered that is in the exception's notes.
            LivepatchError: As `pylivepatch.Patch.revert`, with the same states
                after the failure.
        """
        options = Options(timeout, on_timeout, wait, on_progress)
        flow = changes.revert(self._kernel, self.name, options, if_needed=if_needed)
        return Transition(self._kernel, await self._loop.run(flow), self, self._loop)

    async def unload(self, *, if_needed: bool = False) -> bool:
        """Remove its module, as `pylivepatch.Patch.unload`.

        Raises:
            LivepatchError: As `pylivepatch.Patch.unload`. It stays loaded.
        """
        return await self._loop.run(changes.unload(self._kernel, self.name, if_needed=if_needed))

    async def force(self, *, accept_risk: bool) -> None:
        """End its transition without waiting for its tasks, as `pylivepatch.Patch.force`.

        Raises:
            LivepatchError: As `pylivepatch.Patch.force`. Nothing has changed.
        """
        self._force(accept_risk)


class Core(BaseCore[Patch]):
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

    def __init__(self, backend: BackendChoice = "auto", *, root: str | os.PathLike[str] = "/") -> None:
        super().__init__(backend, root=root)
        self._loop = Loop(self._kernel, events=self.features.events)

    @property
    def loop(self) -> Loop:
        """What runs flows in the event loop, for this package's own use."""
        return self._loop

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection, as `pylivepatch.Core.close`."""
        self._loop.close()
        super().close()

    async def blockers(self) -> list[Blocker]:
        """List the tasks that the running transition waits for, as `pylivepatch.Core.blockers`.

        Raises:
            AccessError: The caller is not root.
        """
        return await asyncio.to_thread(self._kernel.backend.blockers)

    async def signal_blockers(self) -> list[Blocker]:
        """Make tasks leave the functions they sleep in, as `pylivepatch.Core.signal_blockers`, in a thread.

        Raises:
            AccessError: The caller is not root.
        """
        return await asyncio.to_thread(self._signal_blockers)

    async def load(
        self,
        path: str | os.PathLike[str],
        *,
        params: Params | None = None,
        timeout: float | None = 30.0,
        on_timeout: OnTimeout = "reverse",
        wait: bool = True,
        if_needed: bool = False,
        on_progress: OnProgress | None = None,
    ) -> Patch:
        """Load a patch module, as `pylivepatch.Core.load`.

        Raises:
            asyncio.CancelledError: What was loaded was reversed, if necessary, and unloaded;
                what hindered that is in the exception's notes.
            LivepatchError: As `pylivepatch.Core.load`, with the same states after
                the failure.
        """
        options = Options(timeout, on_timeout, wait, on_progress)
        loaded = await self._loop.run(changes.load(self._kernel, path, params, options, if_needed=if_needed))
        return self._make(loaded.name, loaded)

    async def apply(
        self,
        path: str | os.PathLike[str],
        *,
        params: Params | None = None,
        timeout: float | None = 30.0,
        on_timeout: OnTimeout = "reverse",
        check: str | tuple[str, ...] | None = None,
        check_timeout: float | None = 30.0,
        on_progress: OnProgress | None = None,
    ) -> Patch:
        """Have the patch of a module file enabled, as `pylivepatch.Core.apply`.

        Raises:
            asyncio.CancelledError: What was changed is undone; what could not be is in the exception's notes.
            LivepatchError: As `pylivepatch.Core.apply`, with the same states after the failure.
        """
        step = Step(Path(path), None, "enable", params or {}, timeout, on_timeout, check, check_timeout)
        return self._make(await self._loop.run(self._apply(step, on_progress)))

    async def preflight(self, path: str | os.PathLike[str], *, params: Params | None = None) -> list[Finding]:
        """Find what stands in the way of a patch, as `pylivepatch.Core.preflight`, in a thread.

        Raises:
            LivepatchError: As `pylivepatch.Core.preflight`.
        """
        return await asyncio.to_thread(self._preflight, path, params)

    async def info(self, name: str) -> PatchInfo:
        """Gather everything that is known about a loaded patch, as `pylivepatch.Core.info`, in a thread.

        Raises:
            LivepatchError: As `pylivepatch.Core.info`.
        """
        return await asyncio.to_thread(self._info, name)

    async def fixes(self, cve: str) -> list[PatchInfo]:
        """Find the enabled patches that fix a CVE, as `pylivepatch.Core.fixes`, in a thread.

        Raises:
            BadDataError: That is not the name of a CVE.
        """
        return await asyncio.to_thread(self._fixes, cve)

    async def unload_replaced(self) -> list[str]:
        """Unload the patches that another patch has replaced, as `pylivepatch.Core.unload_replaced`.

        Raises:
            LivepatchError: As `pylivepatch.Core.unload_replaced`.
        """
        return await self._loop.run(self._unload_replaced())

    def monitor(self, source: EventSource = "netlink") -> Monitor:
        """Listen to events of all patches from now on.

        Raises:
            UnsupportedError: klpctl is not used, or pyudev is not installed.
        """
        self._require_events()
        return Monitor(source)

    def _make(self, name: str, loaded: Loaded | None = None) -> Patch:
        return Patch(name, self._kernel, loaded and loaded.reload, self._loop)
