# SPDX-License-Identifier: Apache-2.0
"""Desired state and problems, from rows and devices; no kernel."""

from uuid import UUID, uuid4

import pytest
from tests.unit.switch.conftest import Rows, device

from heliograph.kernel.layouts import Limits
from heliograph.switch import plan
from heliograph.switch.plan import Slots, assign


def planned(
    rows: Rows, old: Slots | None = None, missing: frozenset[UUID] = frozenset()
) -> plan.Plan:
    """The plan when every wanted device but the `missing` is there."""
    wanted = plan.devices(rows.intent)
    interfaces = [uuid for uuid in (*wanted.internal, *wanted.existing) if uuid not in missing]
    present = {uuid: device(100 + n) for n, uuid in enumerate(interfaces)}
    errors = wanted.errors | dict.fromkeys(missing, "no such device")
    return plan.plan(rows.intent, present, errors, old or Slots())


def test_slots_are_kept_and_the_lowest_is_taken() -> None:
    a, b, c, d = (uuid4() for _ in range(4))
    assert assign([a, b], {}, range(4)) == {a: 0, b: 1}
    assert assign([c, a], {a: 1, b: 0}, range(4)) == {a: 1, c: 2}, "one given up is the last choice"
    assert assign([c, d, a], {a: 1, b: 0}, range(3)) == {a: 1, c: 2, d: 0}
    assert assign([a, b, c], {}, range(2)) == {a: 0, b: 1}, "there is none for the third"


def test_a_restart_keeps_every_slot(rows: Rows) -> None:
    ports = tuple(rows.port(f"tap{n}") for n in range(5))
    mirror = rows.add("Mirror", name="m", select_all=True, output_port=ports[0])
    bridge = rows.bridge("br0", ports, mirrors=(mirror,))
    slots = Slots({bridge: 9}, {port: 40 - n for n, port in enumerate(ports)}, {mirror: 9 * 32 + 4})
    again = planned(rows, slots)
    assert again.slots == slots
    assert again.bridges[bridge].mirrors[0].number == 4


def test_the_1025th_port_fails_and_says_so(rows: Rows) -> None:
    ports = tuple(rows.port(f"tap{n}") for n in range(Limits.MAX_PORTS + 1))
    bridge = rows.bridge("br0", ports)
    made = planned(rows)
    assert len(made.ports) == len(made.bridges[bridge].ports) == Limits.MAX_PORTS
    (port,) = made.problems
    interface = rows.interface_of(port)
    assert "1024 ports already" in made.problems[port] and made.errors[interface]
    assert made.ofports[interface] == -1


def test_the_65th_bridge_fails_with_all_it_holds(rows: Rows) -> None:
    mirrors = {}
    for number in range(Limits.MAX_BRIDGES + 1):
        port = rows.port(f"br{number}")
        mirror = rows.add("Mirror", name="m", select_all=True, output_port=port)
        mirrors[rows.bridge(f"br{number}", (port,), mirrors=(mirror,))] = (port, mirror)
    made = planned(rows)
    (left,) = mirrors.keys() - made.bridges.keys()
    port, mirror = mirrors[left]
    assert "64 bridges already" in made.problems[left]
    assert "64 bridges already" in made.problems[mirror], "a mirror is never silently off"
    assert "64 bridges already" in made.errors[rows.interface_of(port)]
    assert len(made.problems) == 2


def test_the_33rd_mirror_is_off_until_there_is_room(rows: Rows) -> None:
    port = rows.port("tap1")
    all_mirrors = tuple(
        sorted(
            rows.add("Mirror", name=f"m{n}", select_all=True, output_port=port) for n in range(33)
        )
    )
    bridge = rows.bridge("br0", (port,), mirrors=all_mirrors)
    made = planned(rows)
    (off,) = made.problems
    assert off == all_mirrors[-1] and "32 mirrors already" in made.problems[off]
    rows.set("Bridge", bridge, mirrors=all_mirrors[1:])
    again = planned(rows, made.slots)
    assert again.problems == {}
    assert (
        again.slots.mirrors.items() >= {m: made.slots.mirrors[m] for m in all_mirrors[1:-1]}.items()
    )


@pytest.mark.parametrize(
    ("columns", "words"),
    [
        ({"protected": True}, "protected"),
        ({"vlan_mode": "dot1q-tunnel", "tag": 7}, "dot1q-tunnel"),
    ],
)
def test_ports_that_fail_closed(rows: Rows, columns: dict[str, object], words: str) -> None:
    port = rows.port("tap1", **columns)
    bridge = rows.bridge("br0", (port, rows.port("tap2")))
    made = planned(rows)
    assert words in made.problems[port] and words in made.errors[rows.interface_of(port)]
    assert len(made.bridges[bridge].ports) == 1


def test_a_bond_fails_closed(rows: Rows) -> None:
    interfaces = tuple(sorted(rows.add("Interface", name=n) for n in ("eth7", "eth8")))
    port = rows.add("Port", name="bond0", interfaces=interfaces)
    bridge = rows.bridge("br0", (port,))
    made = planned(rows)
    assert made.bridges[bridge].ports == ()
    assert "bonds" in made.problems[port] and made.errors.keys() == set(interfaces)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("x" * 16, "at most 15 bytes"),
        ("ü" * 8, "at most 15 bytes"),
        ("hg0123456789ab", "the switch's own"),
    ],
)
def test_names_that_no_device_of_a_port_can_have(rows: Rows, name: str, words: str) -> None:
    port = rows.port(name)
    rows.bridge("br0", (port,))
    wanted = plan.devices(rows.intent)
    assert wanted.internal == {} and words in wanted.errors[rows.interface_of(port)]


def test_a_port_on_two_bridges_works_on_one(rows: Rows) -> None:
    shared = rows.port("tap1")
    bridges = [rows.bridge(name, (shared,)) for name in ("br0", "br1")]
    made = planned(rows)
    assert sorted(len(made.bridges[bridge].ports) for bridge in bridges) == [0, 1]
    assert "too, where it does not forward" in made.problems[shared]
    assert made.errors == {}


@pytest.mark.parametrize("column", ["stp_enable", "rstp_enable"])
def test_spanning_tree_forwards_nothing(rows: Rows, column: str) -> None:
    bridge = rows.bridge("br0", (rows.port("tap1"),), **{column: True})
    made = planned(rows)
    assert not made.bridges[bridge].forwarding
    assert "forwards nothing" in made.problems[bridge]


def test_tuning_is_reported_and_forwarding_goes_on(rows: Rows) -> None:
    bridge = rows.bridge("br0", (rows.port("tap1"),), mcast_snooping_enable=True)
    made = planned(rows)
    assert made.bridges[bridge].forwarding and len(made.bridges[bridge].ports) == 1
    assert "mcast_snooping_enable" in made.problems[bridge]


def test_ofports(rows: Rows) -> None:
    ports = tuple(rows.port(name) for name in ("br0", "a", "b", "c", "d"))
    rows.bridge("br0", ports)
    local, a, b, c, d = (rows.interface_of(port) for port in ports)
    rows.set("Interface", a, ofport=7)
    rows.set("Interface", b, ofport_request=7)
    rows.set("Interface", c, ofport=-1)
    made = planned(rows, missing=frozenset({d}))
    assert (made.ofports[local], made.ofports[b]) == (65534, 7)
    assert {made.ofports[a], made.ofports[c]} == {1, 2} and made.ofports[d] == -1


def test_what_is_learned_on_a_port_outlives_a_restart_but_no_change(rows: Rows) -> None:
    """Rule 60, by the generation that entries carry."""
    port = rows.port("tap1")
    bridge = rows.bridge("br0", (port,))

    def generation() -> int:
        return planned(rows).bridges[bridge].ports[0].generation

    first = generation()
    rows.set("Port", port, external_ids={"a": "b"})
    assert generation() == first
    rows.set("Port", port, trunks=(1, 2))
    assert generation() != first


def test_stable_mac_is_a_local_unicast_address() -> None:
    for _ in range(50):
        uuid = uuid4()
        mac = plan.Internal(uuid, uuid4(), "tap1", None, None, "br0").stable_mac
        assert int(mac[:2], 16) & 3 == 2
        assert mac == plan.Internal(uuid, uuid4(), "tap2", None, 9000, "br1").stable_mac
