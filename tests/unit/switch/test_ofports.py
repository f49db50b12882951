# SPDX-License-Identifier: Apache-2.0
"""Which OpenFlow port number an Interface row gets, as in Open vSwitch."""

from uuid import UUID

import pytest
from tests.unit.switch.conftest import Rows

from heliograph.switch.ofports import OFPORT_LOCAL, ofports

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
    given, vain = ofports(rows.intent.bridges[0], made.keys())
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
    assert ofports(rows.intent.bridges[0], frozenset()) == ({}, {})
