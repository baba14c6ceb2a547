# SPDX-License-Identifier: MIT
"""The state of the livepatch core as Prometheus metrics. Needs the extra ``metrics``.

Every number is read from the kernel at one moment: nothing is counted between two
calls, and what nobody can know at that moment is left out.
"""

from __future__ import annotations

import collections
import contextlib
import math
import time
from pathlib import Path
from typing import TYPE_CHECKING

from pylivepatch.errors import AccessError, BadDataError, UnsupportedError
from pylivepatch.state import PatchState, Reason

if TYPE_CHECKING:
    import os
    from collections.abc import Iterator

    from prometheus_client.core import Metric

    from pylivepatch.core import Core
    from pylivepatch.state import PatchStatus

__all__ = ["Metrics"]


class Metrics:
    """A collector for prometheus-client: register it, or print it with `text`.

    Args:
        core: The livepatch core; it must stay open while metrics are collected.

    Raises:
        UnsupportedError: prometheus-client is not installed.
    """

    def __init__(self, core: Core) -> None:
        try:
            import prometheus_client  # noqa: F401
        except ImportError:
            raise UnsupportedError(
                "metrics need the package prometheus-client",
                feature="metrics",
                remedy="install it with the extra: pip install 'pylivepatch[metrics]'",
            ) from None
        self._core = core

    def __repr__(self) -> str:
        return f"<Metrics of {self._core!r}>"

    def describe(self) -> list[Metric]:
        """Name nothing in advance: registering the collector reads nothing."""
        return []

    def collect(self) -> Iterator[Metric]:
        """Read the kernel, and yield all metrics.

        Raises:
            KernelError: The kernel cannot be read.
        """
        from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

        patches = self._core.status()
        running = next((status for status in patches if status.progress), None)
        about = GaugeMetricFamily("pylivepatch_kernel_info", "The running kernel", labels=["release", "backend"])
        about.add_metric([self._core.release, self._core.backend], 1)
        yield about

        states = collections.Counter(status.state for status in patches)
        by_state = GaugeMetricFamily("pylivepatch_patches", "Loaded patches", labels=["state"])
        for state in PatchState:
            by_state.add_metric([str(state)], states[state])
        yield by_state

        labels = ["name", "state", "registered", "replace", "forced"]
        each = GaugeMetricFamily("pylivepatch_patch_info", "A loaded patch", labels=labels)
        for status in patches:
            each.add_metric([status.name, str(status.state), *_words(status)], 1)
        yield each

        now = GaugeMetricFamily("pylivepatch_transition_running", "Whether a patch is in transition")
        now.add_metric([], running is not None)
        yield now
        if running is not None:
            yield from self._transition(running)
        yield from self._confirmations(patches)
        yield from self._installed()
        features = self._core.features
        if features.fast:
            kicks = CounterMetricFamily("pylivepatch_kicks", "Early retries of transitions since klpctl was loaded")
            kicks.add_metric([], features.kicks)
            yield kicks
        if features.events:
            reversals = CounterMetricFamily("pylivepatch_reversals", "Transitions reversed since klpctl was loaded")
            reversals.add_metric([], features.reversals)
            yield reversals

    def _installed(self) -> Iterator[Metric]:
        """What is installed for the running kernel; nothing for those who may not know."""
        from prometheus_client.core import GaugeMetricFamily

        from pylivepatch.boot.store import Store

        installed = GaugeMetricFamily(
            "pylivepatch_installed",
            "A patch that is applied at boot; crashed: it is left out, because the machine crashed after it",
            labels=["name", "crashed"],
        )
        try:
            for patch in Store(root=self._core.kernel.root).patches(self._core.release):
                installed.add_metric([patch.name, str(patch.crashed).lower()], 1)
        except (AccessError, BadDataError):
            return
        yield installed

    def text(self) -> str:
        """Read the kernel, and give all metrics in Prometheus text format.

        Raises:
            KernelError: The kernel cannot be read.
        """
        from prometheus_client import CollectorRegistry, generate_latest

        registry = CollectorRegistry()
        registry.register(self)
        return generate_latest(registry).decode()

    def write(self, path: str | os.PathLike[str]) -> None:
        """Write `text` to a file, as a whole or not at all, for the textfile collector.

        Args:
            path: The file; its directory must be there.

        Raises:
            KernelError: It cannot be written. The file is as it was before.
            AccessError: As above, for want of permission.
        """
        from pylivepatch.boot import files

        file = Path(path)
        text = self.text()
        with files.translate_errors(str(file), file):
            files.write(file, text.encode())

    def _transition(self, status: PatchStatus) -> Iterator[Metric]:
        from prometheus_client.core import GaugeMetricFamily

        progress = status.progress
        assert progress is not None
        labels = ["name", "target"]
        which = [status.name, str(progress.target)]
        if status.started is not None:
            seconds = GaugeMetricFamily(
                "pylivepatch_transition_seconds", "How long the running transition has taken", labels=labels
            )
            seconds.add_metric(which, progress.elapsed)
            yield seconds
        if progress.total:
            tasks = GaugeMetricFamily(
                "pylivepatch_transition_tasks", "Tasks of the running transition", labels=[*labels, "state"]
            )
            tasks.add_metric([*which, "done"], progress.done)
            tasks.add_metric([*which, "pending"], progress.pending)
            yield tasks
        with contextlib.suppress(AccessError):
            reasons = collections.Counter(blocker.reason for blocker in self._core.blockers())
            blockers = GaugeMetricFamily(
                "pylivepatch_transition_blockers",
                "Tasks that the running transition waits for",
                labels=["name", "reason"],
            )
            for reason in Reason:
                blockers.add_metric([status.name, str(reason)], reasons[reason])
            yield blockers

    def _confirmations(self, patches: list[PatchStatus]) -> Iterator[Metric]:
        from prometheus_client.core import GaugeMetricFamily

        left = GaugeMetricFamily(
            "pylivepatch_confirmation_seconds",
            "Until the kernel reverts the patch, unless it is confirmed",
            labels=["name"],
        )
        for status in patches:
            if status.confirm_until is not None:
                endless = math.isinf(status.confirm_until)
                left.add_metric([status.name], math.inf if endless else status.confirm_until - time.monotonic())
        yield left


def _words(status: PatchStatus) -> list[str]:
    replace = "unknown" if status.replace is None else str(status.replace).lower()
    return [str(status.registered).lower(), replace, str(status.forced).lower()]
