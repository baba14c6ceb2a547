# SPDX-License-Identifier: MIT
"""Features say what is there, and why the rest is not."""

from __future__ import annotations

import copy
import dataclasses
import pickle
import re

import pytest

from pylivepatch import BadDataError, Features, Missing, UnsupportedError
from pylivepatch.state import feature_names


def test_require() -> None:
    """What is there is not complained about; what is not comes with reason and remedy."""
    why = Missing("the kernel is too old", "take a newer one", "6.3")
    features = Features(events=True, missing={"reloc_clear": why})
    features.require("events")
    with pytest.raises(UnsupportedError, match=r"too old.*take a newer one") as error:
        features.require("reloc_clear")
    assert (error.value.feature, error.value.since) == ("reloc_clear", "6.3")


def test_unknown_feature() -> None:
    """A feature that nobody has heard of is the caller's mistake."""
    with pytest.raises(BadDataError, match="telepathy"):
        Features().require("telepathy")


def test_names_are_the_attributes() -> None:
    """Each feature is a bool attribute."""
    fields = {field.name for field in dataclasses.fields(Features)}
    assert set(feature_names()) == fields - {"kicks", "reversals", "missing"}


def test_features_copy() -> None:
    """Features pickle, copy, compare and hash, and become a dict."""
    features = Features(events=True, missing={"fast": Missing("no", "try", "6.3")})
    assert pickle.loads(pickle.dumps(features)) == features == copy.deepcopy(features)
    assert hash(features) == hash(copy.copy(features))
    assert dataclasses.asdict(features)["missing"] == {"fast": {"reason": "no", "remedy": "try", "since": "6.3"}}


def test_features_are_described() -> None:
    """Each feature stands in the docstring with its text."""
    for name in feature_names():
        assert re.search(rf"^ +{name}: ", Features.__doc__ or "", re.MULTILINE)
