# SPDX-License-Identifier: MIT
"""Metrics: what Prometheus is told is what the kernel does."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families
from support import cli

from pylivepatch import Core, KernelError, Metrics

pytestmark = pytest.mark.once

Payload = Callable[[str], Path]
Samples = dict[tuple[str, tuple[tuple[str, str], ...]], float]


def samples(text: str) -> Samples:
    """All samples by name and labels; the text is what Prometheus reads."""
    return {
        (sample.name.removeprefix("pylivepatch_"), tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def test_an_idle_kernel(core: Core) -> None:
    """Without a patch every state has its zero, and nothing is in transition."""
    found = samples(Metrics(core).text())
    states = [value for (name, _), value in found.items() if name == "patches"]
    assert states == [0] * 6
    assert found["transition_running", ()] == 0
    assert found["kernel_info", (("backend", "klpctl"), ("release", core.release))] == 1
    assert not [name for name, _ in found if name.startswith(("transition_seconds", "transition_tasks"))]


def test_a_transition(core: Core, payload: Payload, sleeper: Callable[..., object]) -> None:
    """A transition shows its seconds, its tasks and its blockers by reason, and each patch its state."""
    sleeper()
    core.load(payload("plp_cmdline")).enable()
    transition = core.load(payload("plp_hold")).enable(wait=False)
    done = cli("metrics")
    assert done.returncode == 0, done
    found = samples(done.stdout)
    assert found["patches", (("state", "enabled"),)] == 1
    assert found["patches", (("state", "enabling"),)] == 1
    info = (("forced", "false"), ("name", "plp_hold"), ("registered", "true"), ("replace", "false"))
    assert found["patch_info", (*info, ("state", "enabling"))] == 1
    assert found["transition_running", ()] == 1
    which = (("name", "plp_hold"), ("target", "patched"))
    assert 0 < found["transition_seconds", which] < transition.progress().elapsed
    assert found["transition_tasks", (which[0], ("state", "pending"), which[1])] >= 1
    blockers = {labels: value for (name, labels), value in found.items() if name == "transition_blockers"}
    assert sum(blockers.values()) >= 1
    assert found["kicks_total", ()] == core.features.kicks
    core["plp_hold"].revert(wait=False)
    assert samples(Metrics(core).text())["reversals_total", ()] == found["reversals_total", ()] + 1


def test_a_confirmation(core: Core, payload: Payload) -> None:
    """A patch that awaits its confirmation shows the seconds that are left."""
    patch = core.load(payload("plp_cmdline"))
    patch.enable(confirm_within=600)
    left = samples(Metrics(core).text())["confirmation_seconds", (("name", "plp_cmdline"),)]
    assert 0 < left < 600
    assert not math.isinf(left)
    patch.confirm()
    assert "confirmation_seconds" not in [name for name, _ in samples(Metrics(core).text())]


def test_a_file(core: Core, payload: Payload, tmp_path: Path) -> None:
    """The file is written as a whole, for everybody to read, and is not touched when that fails."""
    path = tmp_path / "pylivepatch.prom"
    path.write_text("old\n")
    core.load(payload("plp_cmdline"))
    done = cli("metrics", "--output", path)
    assert (done.returncode, done.stdout) == (0, "")
    assert samples(path.read_text())["patches", (("state", "registered"),)] == 1
    assert path.stat().st_mode & 0o777 == 0o644
    assert [each.name for each in tmp_path.iterdir()] == ["pylivepatch.prom"]
    with pytest.raises(KernelError, match="cannot change"):
        Metrics(core).write(tmp_path / "none" / "pylivepatch.prom")
    tmp_path.chmod(0o755)
    assert cli("metrics", "--output", path, user=True).returncode == 3
    assert [each.name for each in tmp_path.iterdir()] == ["pylivepatch.prom"]


def test_without_klpctl_and_without_root(core: Core, payload: Payload) -> None:
    """What nobody can know is left out: without klpctl, and for who is not root."""
    core.load(payload("plp_cmdline")).enable()
    with Core("sysfs") as sysfs:
        found = samples(Metrics(sysfs).text())
    assert found["patches", (("state", "enabled"),)] == 1
    assert not {"kicks_total", "reversals_total"} & {name for name, _ in found}
    done = cli("metrics", user=True)
    assert samples(done.stdout)["patches", (("state", "enabled"),)] == 1
