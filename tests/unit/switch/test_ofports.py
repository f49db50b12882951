# SPDX-License-Identifier: Apache-2.0
"""Which OpenFlow port number an Interface row gets, as in Open vSwitch."""

from uuid import UUID

import pytest
from tests.unit.switch.conftest import Rows

from heliograph.switch.ofports import OFPORT_LOCAL, OFPORT_MAX, ofports, remembered

Row = tuple[int | None, int | None]  # ofport, ofport_request


def numbers(rows: Rows, **interfaces: Row) -> tuple[dict[str, int], dict[str, str]]:
    """By name, what each gets and what is said of its request."""
    made: dict[UUID, str] = {}
    ports = []
    for name, (ofport, request) in interfaces.items():
        port = rows.port(name)
        ports.append(port)
        made[rows.interface_of(port)] = name
        rows.set("Interface", rows.interface_of(port), ofport=ofport, ofport_request=request)
    rows.bridge("br0", tuple(ports))
    given, vain = ofports(rows.intent.bridges[0], made.keys(), {})
    return {made[u]: n for u, n in given.items()}, {made[u]: t for u, t in vain.items()}


@pytest.mark.parametrize(
    ("interfaces", "expected"),
    [
        ({"a": (None, None)}, {"a": 1}),
        ({"a": (4, None)}, {"a": 4}),
        ({"a": (-1, None)}, {"a": 1}),
        ({"a": (4, 9)}, {"a": 9}),
        ({"a": (9, None), "b": (1, 9)}, {"a": 1, "b": 9}),
        ({"a": (9, 9), "b": (1, 9)}, {"a": 9, "b": 1}),
        ({"a": (1, 2), "b": (2, 1)}, {"a": 2, "b": 1}),
        ({"a": (65280, None)}, {"a": 1}),
        ({"br0": (5, 7), "a": (65534, None)}, {"br0": OFPORT_LOCAL, "a": 1}),
    ],
)
def test_requests_come_first_then_what_was_before(
    rows: Rows, interfaces: dict[str, Row], expected: dict[str, int]
) -> None:
    assert numbers(rows, **interfaces)[0] == expected


def test_of_two_with_one_request_the_one_in_vain_is_told(rows: Rows) -> None:
    given, vain = numbers(rows, a=(9, 9), b=(1, 9))
    assert given == {"a": 9, "b": 1}
    assert vain.keys() == {"b"} and "interface a" in vain["b"]


def test_one_that_does_not_work_has_none(rows: Rows) -> None:
    rows.bridge("br0", (rows.port("a"),))
    assert ofports(rows.intent.bridges[0], frozenset(), {}) == ({}, {})


def test_a_number_that_was_another_port_s_is_the_last_to_be_given_again(rows: Rows) -> None:
    """Flows name a port by its number, and the next port shall not inherit them."""
    ports = {name: rows.port(name) for name in "abc"}
    rows.bridge("br0", tuple(ports.values()))
    ids = {name: rows.interface_of(port) for name, port in ports.items()}
    known: dict[int, UUID] = {}

    def give(names: str) -> dict[str, int]:
        nonlocal known
        given, _ = ofports(rows.intent.bridges[0], [ids[name] for name in names], known)
        known = remembered(known, given)
        return {name: given[ids[name]] for name in names}

    first = give("ab")
    assert set(first.values()) == {1, 2}
    assert give("b") == {"b": first["b"]}
    assert give("bc") == {"b": first["b"], "c": 3}
    assert give("abc") == {**first, "c": 3}  # what works again has what it had
    numbers = (5, *range(1, 5), *range(6, OFPORT_MAX + 1))
    known = {number: UUID(int=number) for number in numbers}
    assert set(give("ab").values()) == {5, 1}
    assert next(iter(known)) == 2 and set(list(known)[-2:]) == {5, 1}
