# SPDX-License-Identifier: Apache-2.0
"""NORMAL: learning, flooding, reserved addresses (rules 4, 53, 58, 59, 62, 63, 65)."""

import pytest
from tests.packet.conftest import Switch, frame

from heliograph.kernel.layouts import EventKind, Reason

RESERVED = [
    "01:80:c2:00:00:00",
    "01:80:c2:00:00:0f",
    "00:e0:2b:00:00:04",
    "01:00:0c:00:00:00",
    "01:00:0c:cc:cc:cc",
    "01:00:0c:cc:cc:c7",
    "01:00:0c:cd:cd:cd",
]


def test_rule_63_unknown_is_flooded_but_not_back(switch: Switch) -> None:
    switch.configure()
    assert switch.ports(frame(), "a") == [("b", None), ("c", None)]
    assert switch.ports(frame(dst="ff:ff:ff:ff:ff:ff"), "b") == [("a", None), ("c", None)]


def test_rule_59_known_goes_to_its_port(switch: Switch) -> None:
    switch.configure()
    switch.learn("02:00:00:00:00:02", "c")
    assert switch.ports(frame(), "a") == [("c", None)]
    assert len(switch.ports(frame(tag="81000005"), "a")) == 2  # learned in VLAN 0 only


def test_rule_59_what_is_learned(switch: Switch) -> None:
    switch.configure()

    def learned(src: str, tag: str = "") -> list[tuple[int, int]]:
        events = switch.events(frame(src=src, tag=tag), "b")
        return [(e.port, e.vlan) for e in events if e.kind == EventKind.EVENT_LEARN]

    assert learned("02:00:00:00:00:01") == [(2, 0)]
    assert learned("02:00:00:00:00:01", "8100e007") == [(2, 7)]
    assert learned("03:00:00:00:00:01") == []  # multicast
    assert learned("00:00:00:00:00:00") == []
    switch.learn("02:00:00:00:00:01", "b")
    assert learned("02:00:00:00:00:01") == []
    switch.learn("02:00:00:00:00:01", "a")
    assert learned("02:00:00:00:00:01") == [(2, 0)]  # it has moved


def test_rule_62_same_port(switch: Switch) -> None:
    switch.configure()
    switch.learn("02:00:00:00:00:02", "a")
    assert switch.dropped(frame(), "a") == Reason.DROP_SAME_PORT
    assert switch.ports(frame(), "a") == []


def test_rule_53_known_on_an_output_port(switch: Switch) -> None:
    switch.configure(switch.mirror(0, "c"))
    switch.learn("02:00:00:00:00:02", "c")
    assert switch.dropped(frame(), "a") == Reason.DROP_TO_RESERVED
    assert switch.ports(frame(), "a") == []


def test_rules_59_and_63_flood_vlans(switch: Switch) -> None:
    """Nothing is learned in them and nothing found: always a flood."""
    switch.configure(flood_vlans=[5])
    switch.learn("02:00:00:00:00:02", "c", 5)
    switch.learn("02:00:00:00:00:02", "c", 6)
    assert switch.ports(frame(tag="81000005"), "a") == [("b", None), ("c", None)]
    assert switch.ports(frame(tag="81000006"), "a") == [("c", None)]
    kinds = [
        {event.kind for event in switch.events(frame(tag=tag), "a")}
        for tag in ("81000005", "81000006")
    ]
    assert EventKind.EVENT_LEARN not in kinds[0]
    assert EventKind.EVENT_LEARN in kinds[1]


def test_rules_47_and_59_where_the_destination_was_learned_does_not_matter_then(
    switch: Switch,
) -> None:
    switch.configure(flood_vlans=[5])
    switch.learn("02:00:00:00:00:02", "a", 5)
    assert switch.ports(frame(tag="81000005"), "a") == [("b", None), ("c", None)]


@pytest.mark.parametrize(("age", "found"), [(-1, True), (0, True), (279, True), (282, False)])
def test_rule_65_old_entries_are_void(switch: Switch, age: int, found: bool) -> None:
    switch.configure()  # 300 s are 279.4 ticks
    switch.learn("02:00:00:00:00:02", "c", age=age)
    assert switch.ports(frame(), "a") == ([("c", None)] if found else [("b", None), ("c", None)])


def test_rule_60_entries_of_a_changed_port_are_void(switch: Switch) -> None:
    switch.configure()
    switch.learn("02:00:00:00:00:02", "c", generation=99)
    assert switch.ports(frame(), "a") == [("b", None), ("c", None)]


@pytest.mark.parametrize("mac", RESERVED)
def test_rule_58_reserved_addresses(switch: Switch, mac: str) -> None:
    switch.configure(switch.mirror(0, "c", src=["a"]))
    assert switch.dropped(frame(dst=mac), "a") == Reason.DROP_RESERVED_MAC
    assert switch.ports(frame(dst=mac), "a") == [("c", 0)]  # rule 4: mirrored all the same
    switch.configure(forward_bpdu=True)
    assert switch.ports(frame(dst=mac), "a") == [("b", None), ("c", None)]


@pytest.mark.parametrize(
    "mac", ["01:80:c2:00:00:10", "00:e0:2b:00:00:01", "01:00:0c:cc:cc:c8", "01:00:0c:00:00:01"]
)
def test_rule_58_their_neighbours_are_not(switch: Switch, mac: str) -> None:
    switch.configure()
    assert switch.ports(frame(dst=mac), "a") == [("b", None), ("c", None)]


def test_rule_4_a_bridge_that_forwards_nothing_still_mirrors(switch: Switch) -> None:
    switch.configure(switch.mirror(0, "c", src=["a"], dst=["b"]), forwarding=False)
    assert switch.ports(frame(), "a") == [("c", 0)]
    assert switch.dropped(frame(), "a") == Reason.DROP_NO_FORWARDING
    assert switch.ports(frame(), "b") == []


def test_a_port_without_device_gets_nothing(switch: Switch) -> None:
    switch.port("b", device=False)
    switch.configure()
    assert switch.ports(frame(), "a") == [("c", None)]
    assert switch.dropped(frame(), "b") == Reason.DROP_NOT_READY
