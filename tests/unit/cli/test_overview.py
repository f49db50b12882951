# SPDX-License-Identifier: Apache-2.0
"""What `helio show` makes of the rows."""

from collections.abc import Mapping
from typing import Any
from uuid import UUID

import pytest

from heliograph.cli.overview import COLUMNS, Counters, Overview, Problem, overview, ranges
from heliograph.ovsdb.ovs_schema import open_vswitch
from heliograph.ovsdb.replica import Replica


def uuid(number: int) -> str:
    return str(UUID(int=number))


def reference(*numbers: int) -> Any:
    return ["set", [["uuid", uuid(number)] for number in numbers]]


def table(kind: str, rows: Mapping[int, dict[str, Any]]) -> dict[str, Any]:
    return {kind: {uuid(number): {"insert": row} for number, row in rows.items()}}


def build(
    ports: dict[str, dict[str, Any]],
    interfaces: dict[str, dict[str, Any]] | None = None,
    mirrors: dict[int, dict[str, Any]] | None = None,
    root: dict[str, Any] | None = None,
    live: Counters | None = None,
) -> Overview:
    """A bridge br0 (row 1) with these ports (rows 100, 101, ...; interfaces 200, ...)."""
    interfaces, mirrors = interfaces or {}, mirrors or {}
    replica = Replica(open_vswitch(), {name: tuple(columns) for name, columns in COLUMNS.items()})
    numbered = list(enumerate(ports.items()))
    bridge = {
        "name": "br0",
        "ports": reference(*(100 + n for n, _ in numbered)),
        "mirrors": reference(*mirrors),
    }
    replica.apply(
        table("Open_vSwitch", {9: {"bridges": reference(1), **(root or {})}})
        | table("Bridge", {1: bridge})
        | table(
            "Port",
            {
                100 + n: {"name": name, "interfaces": reference(200 + n), **row}
                for n, (name, row) in numbered
            },
        )
        | table(
            "Interface",
            {
                200 + n: {"name": name, **interfaces.get(name, {"ofport": 1})}
                for n, (name, _) in numbered
            },
        )
        | table("Mirror", mirrors)
    )
    return overview(replica, live)


def numbers(*values: int) -> Any:
    return ["set", list(values)]


@pytest.mark.parametrize(
    ("columns", "text"),
    [
        ({}, "trunk all"),
        ({"tag": 5}, "access 5"),
        ({"trunks": numbers(1, 2, 3, 9)}, "trunk 1-3,9"),
        ({"tag": 5, "vlan_mode": "trunk"}, "trunk all"),
        ({"vlan_mode": "access"}, "access 0"),
        ({"tag": 7, "vlan_mode": "native-untagged"}, "native-untagged 7, trunk all"),
        ({"tag": 7, "vlan_mode": "dot1q-tunnel"}, "dot1q-tunnel 7, customer all"),
        (
            {"tag": 7, "vlan_mode": "dot1q-tunnel", "cvlans": numbers(4, 5)},
            "dot1q-tunnel 7, customer 4-5",
        ),
    ],
)
def test_vlan_columns_in_words(columns: dict[str, Any], text: str) -> None:
    assert build({"p": columns}).bridges[0].ports[0].vlan == text


@pytest.mark.parametrize(
    ("interface", "state"),
    [
        ({}, "not set up"),
        ({"ofport": -1}, "not set up"),
        ({"ofport": 3, "admin_state": "down", "link_state": "down"}, "admin down"),
        ({"ofport": 3, "admin_state": "up", "link_state": "down"}, "down"),
        ({"ofport": 3, "admin_state": "up", "link_state": "up"}, "up"),
    ],
)
def test_the_state_of_a_port(interface: dict[str, Any], state: str) -> None:
    assert build({"p": {}}, {"p": interface}).bridges[0].ports[0].state == state


@pytest.mark.parametrize(
    ("status", "tunnel"),
    [
        ([["tunnel_egress_iface", "eth0"]], "gre to 10.9.0.2 by eth0"),
        ([], "gre to 10.9.0.2"),
    ],
)
def test_where_a_tunnel_leads(status: list[list[str]], tunnel: str) -> None:
    options = ["map", [["remote_ip", "10.9.0.2"], ["key", "7"]]]
    gre0 = {"ofport": 1, "type": "gre", "options": options, "status": ["map", status]}
    ports = build({"gre0": {}, "tap1": {}}, {"gre0": gre0}).bridges[0].ports
    assert [port.tunnel for port in ports] == [tunnel, ""]


def test_everything_wrong_is_collected_and_stands_at_its_row() -> None:
    error = ["map", [["heliograph-error", "has no output"]]]
    state = build(
        {"p": {"external_ids": ["map", [["heliograph-error", "bonds are not supported"]]]}},
        {"p": {"ofport": -1, "error": "no such device"}},
        {50: {"name": "m0", "external_ids": error}},
        {"cur_cfg": 4, "next_cfg": 5},
    )
    bridge = state.bridges[0]
    assert bridge.ports[0].problems == ["bonds are not supported", "no such device"]
    assert bridge.mirrors[0].problems == ["has no output"]
    assert state.problems[:3] == [
        Problem('Port "p"', "bonds are not supported"),
        Problem('Interface "p"', "no such device"),
        Problem('Mirror "m0"', "has no output"),
    ]
    assert state.problems[3].text.startswith("it is at configuration 4, 5 is wanted")


def test_nothing_wrong() -> None:
    state = build({"p": {}}, {"p": {"ofport": 1, "error": ""}})
    assert state.problems == []


@pytest.mark.parametrize(
    ("columns", "selects", "output"),
    [
        ({"select_all": True, "output_vlan": 9}, "everything", "VLAN 9"),
        ({"select_src_port": reference(100)}, "from a", ""),
        (
            {
                "select_src_port": reference(100, 101),
                "select_dst_port": reference(101),
                "select_vlan": numbers(1, 2),
                "output_port": reference(100),
            },
            "from a, b and to b in VLAN 1-2",
            "a",
        ),
        ({"filter": "icmp"}, 'nothing matching "icmp"', ""),
    ],
)
def test_mirrors_in_words(columns: dict[str, Any], selects: str, output: str) -> None:
    mirror = build({"a": {}, "b": {}}, mirrors={50: {"name": "m", **columns}}).bridges[0].mirrors[0]
    assert (mirror.selects, mirror.output) == (selects, output)


def test_live_counters_stand_above_those_of_the_database() -> None:
    old = {"statistics": ["map", [["rx_packets", 1]]]}
    mirrors = {50: {"name": "m", "statistics": ["map", [["tx_packets", 2]]]}}
    root = {"other_config": ["map", [["stats-update-interval", "9000"]]]}
    stale = build({"p": {}}, {"p": old}, mirrors, root)
    assert stale.bridges[0].ports[0].statistics == {"rx_packets": 1}
    assert stale.bridges[0].mirrors[0].statistics == {"tx_packets": 2}
    assert stale.counters_age == 9.0
    live = Counters({UUID(int=50): {"tx_packets": 7}}, {UUID(int=100): {"rx_packets": 8}})
    fresh = build({"p": {}}, {"p": old}, mirrors, root, live)
    assert fresh.bridges[0].ports[0].statistics == {"rx_packets": 8}
    assert fresh.bridges[0].mirrors[0].statistics == {"tx_packets": 7}
    assert fresh.counters_age is None


def test_ranges() -> None:
    assert ranges([]) == ""
    assert ranges([5, 1, 2, 3, 7, 8]) == "1-3,5,7-8"


def test_controllers() -> None:
    replica = Replica(open_vswitch(), {name: tuple(columns) for name, columns in COLUMNS.items()})
    rows: dict[int, dict[str, Any]] = {
        2: {"target": "tcp:b", "is_connected": True, "role": "master"},
        3: {"target": "tcp:a", "status": ["map", [["last_error", "No route to host"]]]},
        4: {"target": "x", "external_ids": ["map", [["heliograph-error", "no target"]]]},
    }
    replica.apply(
        table("Open_vSwitch", {9: {"bridges": reference(1)}})
        | table("Bridge", {1: {"name": "br0", "controller": reference(*rows)}})
        | table("Controller", rows)
    )
    state = overview(replica, None, {"br0": 7}.get)
    (bridge,) = state.bridges
    assert bridge.flows == 7
    assert [(c.target, c.state) for c in bridge.controllers] == [
        ("tcp:a", "not connected: No route to host"),
        ("tcp:b", "connected, master"),
        ("x", "not connected"),
    ]
    assert Problem('Controller "x"', "no target") in state.problems
