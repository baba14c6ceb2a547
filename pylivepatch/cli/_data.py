# SPDX-License-Identifier: MIT
"""What the JSON output shows of each value: the contract that schema.json describes."""

from __future__ import annotations

import datetime
import math
import time
from typing import TYPE_CHECKING

from pylivepatch.errors import KernelError, TransitionReversedError, TransitionTimeoutError
from pylivepatch.monitor import Action

if TYPE_CHECKING:
    from collections.abc import Iterable

    from pylivepatch.boot.store import Installed
    from pylivepatch.boot.upgrade import Missing
    from pylivepatch.errors import LivepatchError
    from pylivepatch.monitor import Event
    from pylivepatch.preflight import Finding
    from pylivepatch.sequence import StepReport
    from pylivepatch.state import Blocker, Object, PatchStatus, Progress

VERSION = 1
"""Rises with each change that a reader of the JSON output would notice, but for keys that are added."""

_FIELDS = ("errno", "filename", "extack", "patch", "func", "feature", "since", "kind", "symbol", "file")


def patch_data(status: PatchStatus) -> dict[str, object]:
    """A patch."""
    return {
        "name": status.name,
        "state": str(status.state),
        "registered": status.registered,
        "replace": status.replace,
        "forced": status.forced,
        "objects": objects_data(status.objects),
        "progress": None if status.progress is None else progress_data(status.progress),
        "confirmation": confirmation_data(status),
    }


def objects_data(objects: Iterable[Object]) -> list[dict[str, object]]:
    """What a patch replaces."""
    return [
        {"name": obj.name, "funcs": [{"name": func.name, "sympos": func.sympos} for func in obj.funcs]}
        for obj in objects
    ]


def progress_data(progress: Progress) -> dict[str, object]:
    """How far a transition has come; null for what only root may know."""
    return {
        "target": str(progress.target),
        "done": progress.done if progress.total else None,
        "total": progress.total or None,
        "elapsed": progress.elapsed or None,
    }


def confirmation_data(status: PatchStatus) -> dict[str, object] | None:
    """The confirmation that a patch awaits: seconds left and the time then, null for as long as its owner lives."""
    if status.confirm_until is None:
        return None
    if math.isinf(status.confirm_until):
        return {"left": None, "until": None}
    left = status.confirm_until - time.monotonic()
    return {"left": left, "until": wall_time(status.confirm_until)}


def wall_time(monotonic: float) -> str:
    """A time of CLOCK_MONOTONIC as the clock on the wall shows it, in ISO 8601, to the millisecond."""
    seconds = time.time() - time.monotonic() + monotonic
    return datetime.datetime.fromtimestamp(seconds).astimezone().isoformat(timespec="milliseconds")


def blocker_data(blocker: Blocker) -> dict[str, object]:
    """A task that a transition waits for."""
    return {
        "patch": blocker.patch,
        "pid": blocker.pid,
        "tid": blocker.tid,
        "comm": blocker.comm,
        "reason": str(blocker.reason),
        "func": blocker.func,
        "stack": list(blocker.stack),
        "cpu": blocker.cpu,
    }


def event_data(event: Event, status: PatchStatus | None = None) -> dict[str, object]:
    """An event: time on the wall, and CLOCK_MONOTONIC in seconds; with a status, the confirmation that is awaited."""
    return {
        "type": "event",
        "time": wall_time(event.time),
        "monotonic": event.time,
        "sequence": event.sequence,
        "action": str(event.action),
        "name": event.name,
        "state": str(event.state),
        "target": None if event.target is None else str(event.target),
        "registered": event.registered,
        "replace": event.replace,
        "forced": event.forced,
        "source": event.source,
        **({"done": event.done, "total": event.total} if event.action is Action.PROGRESS else {}),
        **({"confirmation": confirmation_data(status)} if status is not None else {}),
    }


def finding_data(finding: Finding) -> dict[str, str]:
    """A finding of the preflight."""
    return {
        "code": finding.code,
        "severity": str(finding.severity),
        "subject": finding.subject,
        "message": finding.message,
        "remedy": finding.remedy,
        "stage": str(finding.stage),
    }


def installed_data(patch: Installed) -> dict[str, object]:
    """An installed patch."""
    return {
        "name": patch.name,
        "release": patch.release,
        "path": str(patch.path),
        "params": dict(patch.params),
        "crashed": patch.crashed,
    }


def missing_data(patch: Missing) -> dict[str, object]:
    """An installed patch that a kernel does not have."""
    return {
        "name": patch.name,
        "release": patch.release,
        "running": patch.running,
        "installed_for": list(patch.installed_for),
        "build": list(patch.build),
    }


def report_data(report: StepReport) -> dict[str, object]:
    """A step of a sequence, and what has become of it."""
    return {
        "number": report.number,
        "name": report.name,
        "file": report.step.file and str(report.step.file),
        "action": report.step.action,
        "outcome": str(report.outcome),
        "state": report.state and str(report.state),
        "duration": report.duration,
        "undo_error": report.undo_error and error_data(report.undo_error),
    }


def error_data(error: LivepatchError) -> dict[str, object]:
    """An error: what failed and why, the state things are in, and what to do."""
    data: dict[str, object] = {
        "type": type(error).__name__,
        "message": error.message,
        "after": error.after,
        "remedy": error.remedy,
    }
    for field in _FIELDS:
        if isinstance(value := getattr(error, field, None), str | int) and value != "":
            data[field] = value
    if isinstance(error, KernelError):
        data["log"] = list(error.log)
    if isinstance(error, TransitionTimeoutError | TransitionReversedError):
        data["state"] = str(error.state)
    if isinstance(error, TransitionTimeoutError):
        data["blockers"] = [blocker_data(blocker) for blocker in error.blockers]
    if notes := getattr(error, "__notes__", []):
        data["notes"] = list(notes)
    return data
