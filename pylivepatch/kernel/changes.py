# SPDX-License-Identifier: MIT
"""What changes a patch, as flows: load, enable, confirm, revert, unload."""

from __future__ import annotations

import errno
import functools
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, TypeVar

from pylivepatch._flow import Call, Course, Now, OnProgress, OnTimeout, Read, Record, Sleep, confirmation_expired
from pylivepatch.errors import (
    AlreadyError,
    BadDataError,
    KernelError,
    LivepatchError,
    PatchNotFoundError,
    PatchStateError,
    TransitionBusyError,
    UnsupportedError,
)
from pylivepatch.kernel import modules
from pylivepatch.kernel.journal import record
from pylivepatch.kernel.log import explained
from pylivepatch.kernel.names import confirm_seconds, module_options, patch_name, timeout_seconds
from pylivepatch.state import PatchState, Target

if TYPE_CHECKING:
    import os

    from pylivepatch._flow import Flow
    from pylivepatch.kernel import Kernel
    from pylivepatch.state import PatchStatus

Params = Mapping[str, str | int | bool]
_T = TypeVar("_T", bound="Course | Loaded | None")

_RELEASE = 2.0
"""Seconds that the kernel has to release the module of a patch after its transition."""

_PAUSE = 0.002

_GRACE = 5.0
"""Seconds after the deadline when the kernel reverses a transition whose caller is not there any more to do it."""


class Loaded(NamedTuple):
    """A patch that was loaded: its name, and how to load it again.

    Attributes:
        name: The patch.
        reload: Loads it.
        changed: Whether it was loaded now.
        course: Its transition, if loading it was enabling it.
    """

    name: str
    reload: Callable[[], object]
    changed: bool
    course: Course | None = None


class Options(NamedTuple):
    """How a transition is waited for.

    Attributes:
        timeout: Seconds until its deadline; None for none.
        on_timeout: What to do then.
        wait: Whether to wait for its end.
        on_progress: Called with its progress.
        ours: Whether interrupting the wait reverses it.
    """

    timeout: float | None = 30.0
    on_timeout: OnTimeout = "reverse"
    wait: bool = True
    on_progress: OnProgress | None = None
    ours: bool = True

    @property
    def last_resort(self) -> float | None:
        """Seconds until the kernel itself reverses it; None: it does not."""
        timeout = timeout_seconds(self.timeout)
        return None if timeout is None or self.on_timeout != "reverse" else timeout + _GRACE

    def course(self, kernel: Kernel, name: str, target: Target) -> Course:
        """Make a course that is followed so."""
        course = Course(kernel, name, target, ours=self.ours)
        course.within(self.timeout, self.on_timeout)
        course.on_progress = self.on_progress
        return course


# ---- load ----


def _recorded(action: str, name: str, flow: Flow[_T]) -> Flow[_T]:
    """Run a flow that changes something, and record how that went."""
    try:
        result = yield from flow
    except GeneratorExit:
        raise
    except BaseException as error:
        yield Record(action, name, error)
        raise
    if result is None or result.changed:
        yield Record(action, name)
    return result


def load(
    kernel: Kernel, path: str | os.PathLike[str], params: Params | None, options: Options, *, if_needed: bool
) -> Flow[Loaded]:
    """Load a module file; follow the transition of a standalone patch, and unload it when that fails."""
    path, params = str(Path(path).absolute()), dict(params or {})
    read = functools.partial(_read, kernel, path, params, if_needed=if_needed)
    name, build, changed = yield Call(f"read {path}", read, slow=True)
    loaded = Loaded(name, functools.partial(_insert, kernel, path, params, build), changed)
    if not changed:
        return loaded
    return (yield from _recorded("load", name, _load(kernel, loaded, options)))


def _load(kernel: Kernel, loaded: Loaded, options: Options) -> Flow[Loaded]:
    course = options.course(kernel, loaded.name, Target.PATCHED)
    course.started = yield Now()
    try:
        yield Call(f"load {loaded.name}", loaded.reload, slow=True)
    except (GeneratorExit, LivepatchError):
        raise
    except BaseException as interruption:
        yield from _unload_after(kernel, course, interruption)
        raise
    try:
        if (yield Read(loaded.name)).status.registered:
            return loaded
        if options.wait:
            yield from course.step()
    except GeneratorExit:
        raise
    except BaseException as error:
        yield from _unload_after(kernel, course, error)
        raise
    return loaded._replace(course=course)


def _unload_after(kernel: Kernel, course: Course, error: BaseException) -> Flow[None]:
    """Undo a load that failed, or was interrupted at any moment, so that the kernel is as it was before."""
    status: PatchStatus = (yield Read(course.name)).status
    if status.state is PatchState.ENABLING:
        yield from course.reverse_because(error)
        status = (yield Read(course.name)).status
    if status.state.in_transition:
        return
    try:
        unloaded = yield from unload(kernel, course.name, if_needed=True)
    except LivepatchError as hindrance:
        error.add_note(f"{course.name} was not unloaded: {hindrance}")
    else:
        if unloaded and isinstance(error, LivepatchError):
            error.after = "it was reversed and unloaded"


def _read(
    kernel: Kernel, path: str, params: Params, *, if_needed: bool, opened: int | None = None
) -> tuple[str, str, bool]:
    """Read a module file, and refuse what cannot be loaded; return name, build ID and whether it has to be loaded."""
    from pylivepatch.preflight import candidate, checks

    module_options(params)
    found = candidate.read(path, params, kernel, opened)
    needed = True
    try:
        checks.refuse(found)
    except AlreadyError:
        if not if_needed:
            raise
        needed = False
    return patch_name(found.name), found.file.build_id, needed


def _insert(kernel: Kernel, path: str, params: Params, build: str) -> None:
    """Load a module file: what is checked and what is loaded is one opened file, and the build that was meant."""
    try:
        file = open(path, "rb")  # noqa: SIM115 (closed below)
    except OSError:
        # This says what is the matter with it.
        _read(kernel, path, params, if_needed=False)
        raise
    with file:
        name, found, _ = _read(kernel, path, params, if_needed=False, opened=file.fileno())
        if found != build:
            raise PatchStateError(
                f"cannot load {name}: {path} is another build than it was",
                errno=errno.ESTALE,
                filename=path,
                after="nothing has changed",
                remedy="load the file that is meant",
            )
        modules.insert(path, file.fileno(), name, module_options(params), kernel)


# ---- enable, confirm and revert ----


def enable(
    kernel: Kernel,
    name: str,
    options: Options,
    *,
    confirm_within: float | None = None,
    owned: bool = False,
    if_needed: bool = False,
    reload: Callable[[], object] | None = None,
) -> Flow[Course]:
    """Enable a patch; load it again for that if it must be."""
    flow = _enable(kernel, name, options, confirm_within, owned, if_needed, reload)
    return (yield from _recorded("enable", name, flow))


def _enable(
    kernel: Kernel,
    name: str,
    options: Options,
    confirm_within: float | None,
    owned: bool,
    if_needed: bool,
    reload: Callable[[], object] | None,
) -> Flow[Course]:
    window = confirm_seconds(confirm_within, owned=owned)
    course = options.course(kernel, name, Target.PATCHED)
    course.window = window
    start = functools.partial(kernel.backend.enable, name, window, owned, options.last_resort)
    try:
        yield from _change("enable", course, start, options, if_needed)
    except UnsupportedError:
        status = kernel.status(name)
        # By being loaded a standalone patch is enabled, and awaits no confirmation.
        unasked = window is not None and not status.registered
        if reload is None or unasked or status.state is not PatchState.DISABLED:
            raise
        yield from unload(kernel, name)
        try:
            if status.registered:
                yield Call(f"load {name}", reload, slow=True)
                yield from _change("enable", course, start, options, if_needed)
            else:
                yield from _change("load", course, reload, options, if_needed)
        except (KernelError, BadDataError, PatchNotFoundError) as error:
            if not (kernel.sysfs / "module" / name).exists():
                error.after = f"{name} is disabled, and was unloaded to be loaded again"
            raise
    return course


def force(kernel: Kernel, name: str) -> None:
    """End the transition of a patch without waiting for its tasks."""
    try:
        kernel.backend.force(name)
    except BaseException as error:
        record(kernel.root, "force", name, error)
        raise
    record(kernel.root, "force", name)


def confirm(kernel: Kernel, name: str, *, window: float | None, if_needed: bool) -> bool:
    """Confirm a patch; return whether it awaited that. `window`: how long it did, if that is known."""
    try:
        needed = _confirm(kernel, name, window, if_needed)
    except BaseException as error:
        record(kernel.root, "confirm", name, error)
        raise
    if needed:
        record(kernel.root, "confirm", name)
    return needed


def _confirm(kernel: Kernel, name: str, window: float | None, if_needed: bool) -> bool:
    try:
        kernel.backend.confirm(name)
    except PatchStateError as error:
        status = kernel.status(name)
        enabled = status.state in (PatchState.ENABLED, PatchState.REPLACED)
        if enabled and status.confirm_until is None:
            if if_needed:
                return False
            raise AlreadyError(
                f"cannot confirm {name}: it is {status.state}, and awaits no confirmation",
                errno=error.errno or errno.EINVAL,
                after="nothing has changed",
                remedy="nothing has to be done",
            ) from None
        if enabled or window is not None:
            raise confirmation_expired(status, window) from None
        why, again = f"it is {status.state}", ""
        if status.state is not PatchState.REGISTERED:
            why, again = f"{why}; it was not confirmed in time, or was reverted", " again"
        raise PatchStateError(
            f"cannot confirm {name}: {why}",
            errno=error.errno or errno.EINVAL,
            after="nothing has changed",
            remedy=f"enable it{again}, with a time to confirm it in",
        ) from None
    return True


def revert(kernel: Kernel, name: str, options: Options, *, if_needed: bool = False) -> Flow[Course]:
    """Revert a patch."""
    course = options.course(kernel, name, Target.UNPATCHED)
    start = functools.partial(kernel.backend.revert, name)
    return (yield from _recorded("revert", name, _change("revert", course, start, options, if_needed)))


def follow(kernel: Kernel, status: PatchStatus, *, ours: bool = False) -> Course | None:
    """Make a course of the transition that a patch is in, whoever started it; None when it is in none."""
    if status.progress is None or not status.state.in_transition:
        return None
    started = time.monotonic() if status.started is None else status.started
    return Course(kernel, status.name, status.progress.target, started, ours=ours)


def _change(
    verb: str, course: Course, start: Callable[[], object], options: Options, if_needed: bool
) -> Flow[Course]:
    def explain() -> None:
        with explained(course.name):
            start()

    call = Call(f"{verb} {course.name}", explain, slow=verb == "load")
    try:
        yield from _begin(course, call)
    except AlreadyError:
        if not if_needed:
            raise
        yield from course.join()
    if options.wait:
        yield from course.step()
        return course
    try:
        yield from course.look()
    except GeneratorExit:
        raise
    except BaseException as error:
        # Nobody gets to know of it, so nobody would enforce its deadline.
        yield from course.reverse_because(error)
        raise
    return course


def _begin(course: Course, call: Call) -> Flow[None]:
    """Start a transition; try again while the kernel still holds the module of the patch before."""
    course.started = yield Now()
    give_up = course.started + _RELEASE
    while True:
        try:
            yield call
            return
        except TransitionBusyError as error:
            if error.patch is not None or course.started >= give_up:
                raise
        except (GeneratorExit, LivepatchError):
            raise
        except BaseException as interruption:
            # The kernel may have been asked already.
            progress = (yield Read(course.name)).status.progress
            if progress is not None and progress.target is course.target:
                yield from course.reverse_because(interruption)
            raise
        yield Sleep(_PAUSE)
        course.started = yield Now()


# ---- unload ----


def unload(kernel: Kernel, name: str, *, if_needed: bool = False) -> Flow[bool]:
    """Remove the module of a patch when the kernel has released it; return whether there was one."""
    try:
        status: PatchStatus = yield Call(f"read {name}", functools.partial(kernel.backend.patch, name))
    except PatchNotFoundError:
        if not if_needed:
            raise
        return False
    why = remedy = ""
    if status.state.in_transition:
        why, remedy = f"it is {status.state}", "wait for the end of its transition"
    elif status.state is PatchState.ENABLED:
        why, remedy = "it is enabled", "revert it first"
    elif status.forced:
        why, remedy = "tasks were forced to leave its code", "only a reboot removes it"
    if why:
        raise PatchStateError(
            f"cannot unload {name}: {why}", errno=errno.EBUSY, after="nothing has changed", remedy=remedy
        )
    yield from _recorded("unload", name, _remove(kernel, name))
    return True


def _remove(kernel: Kernel, name: str) -> Flow[None]:
    give_up = (yield Now()) + _RELEASE
    while True:
        try:
            yield Call(f"unload {name}", functools.partial(modules.remove, name, kernel.sysfs))
            return
        except PatchStateError as error:
            if error.errno != errno.EAGAIN or (yield Now()) >= give_up:
                raise
        yield Sleep(_PAUSE)
