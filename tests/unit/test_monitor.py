# SPDX-License-Identifier: MIT
"""Monitors, where there is no klpctl."""

from __future__ import annotations

from typing import cast

import pytest

from pylivepatch import BadDataError, Monitor
from pylivepatch.event import EventSource


def test_bad_source() -> None:
    """A source that nobody has heard of is refused."""
    with pytest.raises(BadDataError, match="no event source"):
        Monitor(cast("EventSource", "telepathy"))
