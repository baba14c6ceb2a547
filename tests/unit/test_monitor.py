# SPDX-License-Identifier: MIT
"""Monitors, where there is no klpctl."""

from __future__ import annotations

from typing import cast

import pytest

from pylivepatch import BadDataError, Monitor
from pylivepatch.monitor import EventSource


def test_bad_source() -> None:
    """A source that nobody has heard of is refused."""
    with pytest.raises(BadDataError, match="unknown event source"):
        Monitor(cast("EventSource", "telepathy"))
