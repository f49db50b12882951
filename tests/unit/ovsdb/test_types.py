# SPDX-License-Identifier: Apache-2.0
"""Differences of data: applying one to the old value gives the new."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from heliograph.ovsdb.types import ColumnType

SET = ColumnType.from_json({"key": "integer", "min": 0, "max": "unlimited"})
MAP = ColumnType.from_json({"key": "string", "value": "integer", "min": 0, "max": "unlimited"})
OPTION = ColumnType.from_json({"key": "integer", "min": 0, "max": 1})

SETS = st.sets(st.integers(0, 9)).map(lambda items: tuple(sorted(items)))
MAPS = st.dictionaries(st.sampled_from("abcd"), st.integers(0, 2)).map(
    lambda pairs: dict(sorted(pairs.items()))
)
OPTIONS = st.one_of(st.just(()), st.integers(0, 3).map(lambda item: (item,)))
DATA = st.one_of(
    st.tuples(st.just(SET), SETS, SETS),
    st.tuples(st.just(MAP), MAPS, MAPS),
    st.tuples(st.just(OPTION), OPTIONS, OPTIONS),
)


@given(data=DATA)
def test_a_difference_turns_old_into_new(data: Any) -> None:
    kind, old, new = data
    diff = kind.diff(old, new)
    assert kind.apply_diff(old, diff) == new
    if kind.is_composite:
        assert (len(diff) == 0) == (old == new)


@given(data=DATA)
def test_json_is_read_back(data: Any) -> None:
    kind, old, _ = data
    assert kind.parse(kind.to_json(old)) == old
