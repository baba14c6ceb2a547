# SPDX-License-Identifier: MIT
"""What watches over patches asks for metrics that there are."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import yaml

TOP = Path(__file__).parents[2]
NAME = re.compile(r"\bpylivepatch_\w+")
EXPORTED = set(NAME.findall((TOP / "pylivepatch/metrics.py").read_text()))
RULES = yaml.safe_load((TOP / "monitoring/pylivepatch.rules.yml").read_text())["groups"][0]["rules"]
PANELS = json.loads((TOP / "monitoring/grafana-dashboard.json").read_text())["panels"]


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule["alert"])
def test_alerts(rule: dict[str, object]) -> None:
    """Each alert asks for metrics that are exported, and says what to do."""
    used = {name.removesuffix("_total") for name in NAME.findall(str(rule["expr"]))}
    assert used
    assert used <= EXPORTED
    assert set(rule["annotations"]) == {"summary", "description"}  # type: ignore[call-overload]


@pytest.mark.parametrize("panel", PANELS, ids=lambda panel: panel["title"])
def test_panels(panel: dict[str, list[dict[str, str]]]) -> None:
    """Each panel of the dashboard does, too."""
    used = {name.removesuffix("_total") for name in NAME.findall(panel["targets"][0]["expr"])}
    assert used
    assert used <= EXPORTED
