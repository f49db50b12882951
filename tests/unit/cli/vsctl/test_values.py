# SPDX-License-Identifier: Apache-2.0
"""What is written can be read back, whatever is in it; and how sets and maps compare."""

from typing import Any
from uuid import UUID

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from heliograph.cli.vsctl import values
from heliograph.cli.vsctl.errors import VsctlError
from heliograph.ovsdb.types import BaseType, ColumnType, Datum

# What JSON strings of Open vSwitch may hold: no NUL, no half of a surrogate pair.
STRINGS = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]))
INTEGERS = st.integers(-(2**63), 2**63 - 1)
UUIDS = st.uuids().map(str)


def column(key: str, value: str | None = None, most: Any = "unlimited") -> ColumnType:
    json: dict[str, Any] = {"key": key, "min": 0, "max": most}
    return ColumnType.from_json(json if value is None else json | {"value": value})


def unresolved(name: str, base: BaseType) -> str:
    raise AssertionError(f"{name} is no reference")


CASES = st.one_of(
    st.tuples(st.just(column("string")), st.frozensets(STRINGS)),
    st.tuples(st.just(column("string", most=1)), st.frozensets(STRINGS, max_size=1)),
    st.tuples(st.just(column("integer")), st.frozensets(INTEGERS)),
    st.tuples(st.just(column("uuid")), st.frozensets(UUIDS)),
    st.tuples(st.just(column("boolean")), st.frozensets(st.booleans())),
    st.tuples(st.just(column("string", "string")), st.dictionaries(STRINGS, STRINGS)),
    st.tuples(st.just(column("integer", "uuid")), st.dictionaries(INTEGERS, UUIDS)),
)


@settings(max_examples=150, deadline=None)
@given(CASES)
def test_what_is_written_is_read_back(case: tuple[ColumnType, Any]) -> None:
    kind, content = case
    data = values.canonical(content if isinstance(content, dict) else tuple(content))
    assert values.parse_datum(kind, values.text(kind, data), unresolved) == data


def test_a_name_for_a_row_is_resolved() -> None:
    asked = []

    def resolve(name: str, base: BaseType) -> str:
        asked.append((name, base.kind))
        return str(UUID(int=7))

    kind = column("uuid")
    assert values.parse_datum(kind, "@a", resolve) == (str(UUID(int=7)),)
    assert asked == [("@a", "uuid")]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a\\:b:c", ("a:b", 4)),
        ('"a:b":c', ('"a:b"', 5)),
        ('"a\\"b"=c', ('"a\\"b"', 6)),
        ("", ("", 0)),
        ("=x", ("", 0)),
    ],
)
def test_tokens_end_at_delimiters(text: str, words: tuple[str, int]) -> None:
    assert values.token(text) == words


@pytest.mark.parametrize("text", ["a\\", '"a', 'a"b'])
def test_tokens_that_never_end(text: str) -> None:
    with pytest.raises(VsctlError):
        values.token(text)


@pytest.mark.parametrize(
    ("a", "b", "order", "within"),
    [
        ((), (), 0, True),
        ((5,), (1, 2), -1, False),
        ((1, 2), (1, 3), -1, False),
        ((2,), (1, 2), -1, True),
        ({"a": "1"}, {"a": "2"}, -1, False),
        ({"a": "2"}, {"a": "2", "b": "1"}, -1, True),
        ({"b": "1"}, {"a": "2"}, 1, False),
    ],
)
def test_comparing(a: Datum, b: Datum, order: int, within: bool) -> None:
    assert values.compare(a, b) == order == -values.compare(b, a)
    assert values.includes(a, b) is within
