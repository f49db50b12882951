# SPDX-License-Identifier: Apache-2.0
"""Rows as typed values, clamped as Open vSwitch clamps them."""

import pytest
from tests.unit.switch.conftest import Rows

from heliograph.control.wanted import WantedController
from heliograph.switch import intent


def test_an_empty_database(rows: Rows) -> None:
    assert rows.intent == intent.Intent(uuid=rows.root)
    rows.delete("Open_vSwitch", rows.root)
    assert rows.intent == intent.Intent()


@pytest.mark.parametrize(
    ("value", "age", "limit"),
    [
        ("", 300, 8192),
        ("0", 300, 8192),
        ("1", 15, 10),
        ("99999999", 3600, 1_000_000),
        ("60", 60, 60),
        ("-5", 15, 10),
        ("sixty", 300, 8192),
    ],
)
def test_numbers_are_clamped(rows: Rows, value: str, age: int, limit: int) -> None:
    """Rules 64 and 65."""
    rows.bridge("br0", other_config={"mac-aging-time": value, "mac-table-size": value})
    (bridge,) = rows.intent.bridges
    assert (bridge.mac_age, bridge.mac_limit) == (age, limit)


@pytest.mark.parametrize(("value", "interval"), [("100", 5000), ("7000", 7000), ("x", 5000)])
def test_statistics_interval(rows: Rows, value: str, interval: int) -> None:
    """Rule 99."""
    rows.set("Open_vSwitch", rows.root, other_config={"stats-update-interval": value})
    assert rows.intent.stats_interval == interval


@pytest.mark.parametrize(
    ("columns", "mode"),
    [
        ({}, "trunk"),
        ({"tag": 7}, "access"),
        ({"tag": 7, "vlan_mode": "native-tagged"}, "native-tagged"),
    ],
)
def test_vlan_mode(rows: Rows, columns: dict[str, object], mode: str) -> None:
    """Rule 69."""
    rows.bridge("br0", (rows.port("tap1", **columns),))
    assert rows.intent.bridges[0].ports[0].vlan_mode == mode


def test_our_own_keys_are_not_read(rows: Rows) -> None:
    """D1: what the switch says changes nothing of what it does."""
    port = rows.port("tap1")
    bridge = rows.bridge("br0", (port,))
    before = rows.intent
    interface = rows.interface_of(port)
    for table, row in (("Port", port), ("Bridge", bridge), ("Interface", interface)):
        rows.set(table, row, external_ids={"heliograph-error": "x", "heliograph-new": "y"})
    assert rows.intent == before


def test_without_repeats_keeps_the_first(rows: Rows) -> None:
    shared = rows.port("tap1")
    rows.bridge("br0", (shared,))
    rows.bridge("br1", (shared,))
    first, second = rows.intent.bridges
    kept, says = intent.without_repeats(rows.intent)
    assert [len(bridge.ports) for bridge in kept.bridges] == [1, 0]
    assert says.keys() == {shared}
    assert first.name in says[shared] and second.name in says[shared]


def test_without_repeats_one_interface_in_two_ports(rows: Rows) -> None:
    one = rows.port("tap1")
    two = rows.add("Port", name="other", interfaces=(rows.interface_of(one),))
    rows.bridge("br0", (one, two))
    kept, says = intent.without_repeats(rows.intent)
    assert len(kept.bridges[0].ports) == 1
    assert says.keys() == {one, two} - {kept.bridges[0].ports[0].uuid}


def test_rules_79_and_81_a_snaplen_of_65535_is_one(rows: Rows) -> None:
    """It cuts nothing, and all the same a patch port takes no copy with it."""
    mirrors = tuple(sorted(rows.add("Mirror", name=f"m{n}", snaplen=n) for n in (65535, 64)))
    rows.bridge("br0", mirrors=(*mirrors, rows.add("Mirror", name="whole")))
    given = {mirror.name: mirror.snaplen for mirror in rows.intent.bridges[0].mirrors}
    assert given == {"m65535": 65535, "m64": 64, "whole": 0}


def test_controllers(rows: Rows) -> None:
    columns = {
        "max_backoff": 2000,
        "inactivity_probe": 0,
        "connection_mode": "out-of-band",
        "controller_rate_limit": 100,
        "controller_burst_limit": 25,
        "type": "service",
        "enable_async_messages": False,
    }
    full = rows.add("Controller", target="ptcp:6653", local_gateway="192.0.2.1", **columns)
    bare = rows.add("Controller", target="tcp:192.0.2.1")
    rows.bridge(
        "br0",
        controller=tuple(sorted((full, bare))),
        fail_mode="secure",
        protocols=("OpenFlow10", "OpenFlow15"),
        other_config={"dp-desc": "rack 7"},
    )
    (bridge,) = rows.intent.bridges
    found = {controller.uuid: controller for controller in bridge.controllers}
    assert found[full] == WantedController(
        uuid=full,
        target="ptcp:6653",
        max_backoff=2000,
        inactivity_probe=0,
        connection_mode="out-of-band",
        rate_limit=100,
        burst_limit=25,
        kind="service",
        enable_async=False,
    )
    assert found[bare] == WantedController(uuid=bare, target="tcp:192.0.2.1")
    assert bridge.in_band == {full: ("local_gateway",)}
    assert (bridge.fail_mode, bridge.description) == ("secure", "rack 7")
    assert bridge.protocols == {"OpenFlow10", "OpenFlow15"}


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("0000020000000001", 0x200_0000_0001),
        ("0x1f", 0x1F),
        ("0XFFFFFFFFFFFFFFFF", 2**64 - 1),
        ("1f", None),
        ("0x0", None),
        ("0x", None),
        ("00000200000000g1", None),
        ("0x1ffffffffffffffff", None),
    ],
)
def test_datapath_id(rows: Rows, text: str, number: int | None) -> None:
    """As Open vSwitch reads it; what it cannot read does not count."""
    rows.bridge("br0", other_config={"datapath-id": text})
    assert rows.intent.bridges[0].datapath_id == number
