# SPDX-License-Identifier: Apache-2.0
"""Python values of columns, there and back, and the texts of what is refused."""

from __future__ import annotations

from typing import Any
from uuid import UUID

import pytest

from heliograph.ovsdb import ovs_schema, values
from heliograph.ovsdb.errors import ConstraintError, OvsdbError
from heliograph.ovsdb.types import ColumnType

A, B = (UUID(int=number) for number in (10, 11))


def column(table: str, name: str) -> ColumnType:
    return ovs_schema.open_vswitch().table(table).column(name).type


@pytest.mark.parametrize(
    ("table", "name", "value", "json"),
    [
        ("Port", "name", "p", "p"),
        ("Port", "bond_updelay", -4, -4),
        ("Port", "protected", True, True),
        ("Port", "tag", 5, 5),
        ("Port", "tag", None, ["set", []]),
        ("Port", "trunks", (), ["set", []]),
        ("Port", "trunks", (1,), 1),
        ("Port", "trunks", (1, 4095), ["set", [1, 4095]]),
        ("Port", "external_ids", {}, ["map", []]),
        ("Port", "external_ids", {"a": "b", "c": "d"}, ["map", [["a", "b"], ["c", "d"]]]),
        ("Port", "qos", A, ["uuid", str(A)]),
        ("Bridge", "ports", (A, B), ["set", [["uuid", str(A)], ["uuid", str(B)]]]),
        ("QoS", "queues", {3: A}, ["map", [[3, ["uuid", str(A)]]]]),
    ],
)
def test_there_and_back(table: str, name: str, value: Any, json: Any) -> None:
    assert values.to_json(column(table, name), value) == json
    assert values.from_json(column(table, name), json) == value


def test_sets_and_maps_are_sorted() -> None:
    assert values.from_json(column("Port", "trunks"), ["set", [9, 3]]) == (3, 9)
    assert values.to_json(column("Port", "trunks"), (9, 3)) == ["set", [3, 9]]
    ids = values.from_json(column("Port", "external_ids"), ["map", [["b", "1"], ["a", "2"]]])
    assert isinstance(ids, dict)
    assert list(ids) == ["a", "b"]


@pytest.mark.parametrize(
    ("table", "name", "value", "text"),
    [
        ("Port", "tag", 4096, "4096 is not in the valid range 0 to 4095 (inclusive)"),
        ("Interface", "ingress_policing_rate", -1, "-1 is less than minimum allowed value 0"),
        ("Port", "vlan_mode", "acess", "acess is not one of the allowed values ([access, "),
    ],
)
def test_constraints_have_the_texts_users_know(
    table: str, name: str, value: Any, text: str
) -> None:
    with pytest.raises(ConstraintError) as caught:
        values.to_json(column(table, name), value)
    assert text in caught.value.details


@pytest.mark.parametrize(
    ("table", "name", "value"),
    [
        ("Port", "tag", "5"),
        ("Port", "tag", True),
        ("Port", "tag", 5.5),
        ("Port", "name", None),
        ("Port", "name", ("a", "b")),
        ("Port", "tag", (1, 2)),
        ("Port", "external_ids", {"a": 1}),
        ("Port", "external_ids", "a"),
        ("Port", "trunks", {1: 2}),
        ("Bridge", "ports", "a"),
        ("Port", "statistics", {"a": 1 << 63}),
    ],
)
def test_other_types_are_refused(table: str, name: str, value: Any) -> None:
    with pytest.raises(OvsdbError):
        values.to_json(column(table, name), value)
