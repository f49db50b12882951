# SPDX-License-Identifier: Apache-2.0
"""Desired state and problems, from rows and devices; no kernel."""

from dataclasses import replace
from uuid import UUID, uuid4

import pytest
from tests.unit.switch.conftest import Rows, device

from heliograph.kernel.layouts import Limits, PriorityTags, VlanMode
from heliograph.switch import plan, wanted
from heliograph.switch.slots import Slots


def planned(
    rows: Rows, old: Slots | None = None, missing: frozenset[UUID] = frozenset()
) -> plan.Plan:
    """The plan when every wanted device but the `missing` is there."""
    needed = wanted.devices(rows.intent)
    interfaces = [uuid for uuid in (*needed.internal, *needed.existing) if uuid not in missing]
    present = {uuid: device(100 + n) for n, uuid in enumerate(interfaces)}
    errors = needed.errors | dict.fromkeys(missing, "no such device")
    return plan.plan(rows.intent, plan.Facts(present, errors), old or Slots())


def test_a_restart_keeps_every_slot(rows: Rows) -> None:
    ports = tuple(rows.port(f"tap{n}") for n in range(5))
    mirror = rows.add("Mirror", name="m", select_all=True, output_port=ports[0])
    bridge = rows.bridge("br0", ports, mirrors=(mirror,))
    slots = Slots({bridge: 9}, {port: 40 - n for n, port in enumerate(ports)}, {mirror: 9 * 32 + 4})
    again = planned(rows, slots)
    assert replace(again.slots, ofports={}) == slots
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


def test_frames_go_past_our_own_devices_only(rows: Rows) -> None:
    """What a user has put on his device, a queueing discipline say, sees every frame."""
    ports = tuple(rows.port(name) for name in ("tap1", "eth7"))
    bridge = rows.bridge("br0", ports)
    ours, his = (rows.interface_of(port) for port in ports)
    present = {
        ours: device(101, "hg0123456789ab", peer=3, peer_elsewhere=True),
        his: device(102, "eth7", peer=3, peer_elsewhere=True),
    }
    users = dict.fromkeys(present, device(3, "eth0"))
    facts = plan.Facts(present, {}, users)
    entries = plan.plan(rows.intent, facts, Slots()).bridges[bridge].ports
    assert {entry.ifindex: bool(entry.peer_mac) for entry in entries} == {101: True, 102: False}


def test_a_mirror_to_the_1025th_port_sends_to_no_other(rows: Rows) -> None:
    ports = tuple(rows.port(f"tap{n}") for n in range(Limits.MAX_PORTS + 1))
    bridge = rows.bridge("br0", ports)
    first = planned(rows)
    (port,) = first.problems
    mirror = rows.add("Mirror", name="m", select_all=True, output_port=port)
    rows.set("Bridge", bridge, mirrors=(mirror,))
    made = planned(rows, first.slots)
    assert made.bridges[bridge].mirrors == ()
    assert "1024 ports already" in made.problems[mirror]
    assert "32 mirrors" not in made.problems[mirror]


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


def test_modes_reach_the_port(rows: Rows) -> None:
    columns = {
        "vlan_mode": "dot1q-tunnel",
        "tag": 7,
        "cvlans": (5, 6),
        "trunks": (1,),
        "protected": True,
        "other_config": {"qinq-ethtype": "802.1q", "priority-tags": "true"},
    }
    bridge = rows.bridge("br0", (rows.port("tap1", **columns),), flood_vlans=(9,))
    entry = planned(rows).bridges[bridge]
    (port,) = entry.ports
    assert (port.mode, port.tag, port.trunks) == (VlanMode.DOT1Q_TUNNEL, 7, frozenset())
    assert (port.customer_vlans, port.service_tpid) == (frozenset({5, 6}), 0x8100)
    assert (port.protected, port.priority_tags) == (True, PriorityTags.PRIORITY_IF_NONZERO)
    assert (entry.flood_vlans, entry.vlan_limit) == (frozenset({9}), 1)


@pytest.mark.parametrize(
    ("limit", "tags"), [("0", 2), ("1", 1), ("2", 2), ("9", 2), ("", 1), ("x", 1)]
)
def test_rule_39_vlan_limit(rows: Rows, limit: str, tags: int) -> None:
    rows.set("Open_vSwitch", rows.root, other_config={"vlan-limit": limit})
    assert rows.intent.vlan_limit == tags


def test_the_64th_set_of_cvlans_fails_closed(rows: Rows) -> None:
    ports = tuple(
        rows.port(f"tap{n}", vlan_mode="dot1q-tunnel", tag=7, cvlans=(n + 1,)) for n in range(64)
    )
    bridge = rows.bridge("br0", ports)
    made = planned(rows)
    assert len(made.bridges[bridge].ports) == 63
    (port,) = made.problems
    assert "cvlans" in made.problems[port] and made.errors[rows.interface_of(port)]


def patch(rows: Rows, name: str, peer: str) -> UUID:
    """A Port row with an Interface of type patch."""
    interface = rows.add("Interface", name=name, type="patch", options={"peer": peer})
    return rows.add("Port", name=name, interfaces=(interface,))


def test_patch_ports_lead_to_each_other(rows: Rows) -> None:
    a, b, alone = patch(rows, "a", "b"), patch(rows, "b", "a"), patch(rows, "c", "d")
    one, two = rows.bridge("br0", (a, alone)), rows.bridge("br1", (b,))
    made = planned(rows)
    (first,), (second,) = made.bridges[one].ports, made.bridges[two].ports
    assert first.peer == (made.slots.bridges[two], second.number)
    assert second.peer == (made.slots.bridges[one], first.number)
    assert made.ofports[rows.interface_of(a)] == made.ofports[rows.interface_of(b)] == 1
    assert made.errors.keys() == {rows.interface_of(alone)}
    assert made.ofports[rows.interface_of(alone)] == -1


def test_mirrors_that_would_feed_each_other_are_off(rows: Rows) -> None:
    bridges, off = [], []
    for out, back in (("a", "d"), ("b", "c")):
        ports = (
            patch(rows, out, "c" if out == "a" else "d"),
            patch(rows, back, "b" if back == "d" else "a"),
        )
        mirror = rows.add("Mirror", name="m", select_all=True, output_port=ports[0])
        bridges.append(rows.bridge(f"br-{out}", ports, mirrors=(mirror,)))
        off.append(mirror)
    made = planned(rows)
    assert all("without end" in made.problems[mirror] for mirror in off)
    assert all(made.bridges[bridge].mirrors == () for bridge in bridges)
    assert made.slots.mirrors == {}


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
    needed = wanted.devices(rows.intent)
    assert needed.internal == {} and words in needed.errors[rows.interface_of(port)]


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


def test_what_the_switch_as_a_whole_does_not_do_is_on_its_row(rows: Rows) -> None:
    bridge = rows.bridge("br0", (), netflow=uuid4(), datapath_type="foo")
    manager = uuid4()
    rows.set("Open_vSwitch", rows.root, manager_options=(manager,))
    made = planned(rows)
    assert "manager_options" in made.problems[rows.root]
    assert "netflow, datapath_type=foo" in made.problems[bridge]
    rows.set("Bridge", bridge, netflow=None, datapath_type="netdev")
    rows.set("Open_vSwitch", rows.root, manager_options=())
    assert planned(rows).problems == {}


def test_ofports_reach_rows_and_the_data_plane(rows: Rows) -> None:
    ports = tuple(rows.port(name) for name in ("br0", "a", "b", "c"))
    bridge = rows.bridge("br0", ports)
    local, a, b, c = (rows.interface_of(port) for port in ports)
    rows.set("Interface", a, ofport=7, ofport_request=7)
    rows.set("Interface", b, ofport_request=7)
    made = planned(rows, missing=frozenset({c}))
    assert made.ofports == {local: 65534, a: 7, b: 1, c: -1}
    numbers = {entry.number: entry.ofport for entry in made.bridges[bridge].ports}
    assert numbers == {
        made.ports[interface]: made.ofports[interface] for interface in (local, a, b)
    }
    assert made.problems.keys() == {ports[2]} and "interface a" in made.problems[ports[2]]


def test_rule_68_a_secure_bridge_is_not_closed_but_without_flows(rows: Rows) -> None:
    """Those are the service's; here nothing is wrong with it."""
    bridge = rows.bridge("br0", (rows.port("tap1"),), fail_mode="secure")
    made = planned(rows)
    assert made.bridges[bridge].forwarding and made.problems == {}


def test_rule_26_is_for_who_asks(rows: Rows) -> None:
    bridge = rows.bridge("br0")
    assert not planned(rows).bridges[bridge].mirror_changed
    rows.set("Bridge", bridge, other_config={"mirror-changed-packets": "true"})
    assert planned(rows).bridges[bridge].mirror_changed


def test_what_openflow_rows_ask_in_vain(rows: Rows) -> None:
    controller = rows.add("Controller", target="tcp:192.0.2.1", local_ip="192.0.2.9")
    protocols = ("OpenFlow11", "OpenFlow13")
    bridge = rows.bridge("br0", controller=(controller,), protocols=protocols)
    made = planned(rows)
    assert made.problems.keys() == {bridge, controller}
    assert "OpenFlow11 is not spoken" in made.problems[bridge]
    assert f"clear controller {controller} local_ip" in made.problems[controller]


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
        mac = wanted.Internal(uuid, uuid4(), "tap1", None, None, "br0").stable_mac
        assert int(mac[:2], 16) & 3 == 2
        assert mac == wanted.Internal(uuid, uuid4(), "tap2", None, 9000, "br1").stable_mac
