# SPDX-License-Identifier: Apache-2.0
"""Tunnel ports are ports (rules 1, 8, 9, 36, 41, 45, 51, 52, 77, 103): what goes into them is the
frame, as it would leave any other. What it is wrapped in, system tests show."""

import struct
from collections.abc import Iterator
from dataclasses import replace
from ipaddress import ip_address

import pytest
from tests.packet.conftest import BRIDGE, SEGMENTER, Switch, frame

from heliograph.kernel import bpf, layouts
from heliograph.kernel.dataplane import DataPlane
from heliograph.kernel.layouts import EventKind, Reason, TunnelFlags, TunnelKind, VlanMode
from heliograph.kernel.tunnels import TunnelEntry, UnderlayEntry, Way, endpoints

FLOOD = frame(dst="ff:ff:ff:ff:ff:ff")
NEAR, FAR = ip_address("192.0.2.2"), ip_address("192.0.2.1")
WAY = Way(Reason.DELIVERED, 9, NEAR, FAR, 1500)
NO_WAYS = [Way(Reason.DROP_NO_ROUTE), replace(WAY, state=Reason.DROP_NO_NEIGHBOUR)]


def dig(switch: Switch, way: Way) -> UnderlayEntry:
    """Have gre and vx in the underlay; returns it."""
    entry = TunnelEntry(
        number=switch.numbers["gre"],
        bridge=BRIDGE,
        kind=TunnelKind.GRE,
        flags=TunnelFlags.TUNNEL_DF | TunnelFlags.TUNNEL_CUT,
        remote=FAR,
        local=None,
        family=4,
        in_key=0,
        way=way,
    )
    other = replace(entry, number=switch.numbers["vx"], kind=TunnelKind.VXLAN, dst_port=4789)
    underlay = UnderlayEntry(SEGMENTER, 37, frozenset({NEAR}), (entry, other))
    switch.plane.put_underlay(underlay)
    return underlay


@pytest.fixture
def dug(switch: Switch, plane: DataPlane) -> Iterator[Switch]:
    """Ports a, b, c and the tunnels gre and vx; the frame's destination is not known."""
    switch.tunnel("gre")
    switch.tunnel("vx")
    dig(switch, WAY)
    switch.configure()
    yield switch
    plane.put_underlay(UnderlayEntry())


def test_a_flood_goes_into_every_tunnel_but_the_one_it_came_out_of(dug: Switch) -> None:
    assert dug.ports(FLOOD, "a") == [("b", None), ("c", None), ("gre", None), ("vx", None)]
    assert dug.ports(FLOOD, "gre") == [("a", None), ("b", None), ("c", None), ("vx", None)]


def test_macs_are_learned_behind_a_tunnel(dug: Switch) -> None:
    learned = [e.port for e in dug.events(FLOOD, "gre") if e.kind == EventKind.EVENT_LEARN]
    assert learned == [dug.numbers["gre"]]
    dug.learn("02:00:00:00:00:02", "gre")
    assert dug.ports(frame(), "a") == [("gre", None)]
    assert dug.dropped(frame(), "gre") == Reason.DROP_SAME_PORT


@pytest.mark.parametrize("output", ["gre", "vx"])
def test_rule_103_a_tunnel_may_be_a_mirrors_output(dug: Switch, output: str) -> None:
    """The copy is the whole frame, as it was selected."""
    dug.configure(dug.mirror(0, output, src=["a"]))
    (copy,) = [o for o in dug.outputs(FLOOD, "a") if o.mirror == 0]
    assert (copy.port, copy.image) == (output, FLOOD.hex())


def test_rule_1_a_tunnel_is_a_source_of_what_comes_out_of_it(dug: Switch) -> None:
    dug.configure(dug.mirror(0, "c", src=["gre"]))
    assert ("c", 0) in dug.ports(FLOOD, "gre")
    assert ("c", 0) not in dug.ports(FLOOD, "a")


def test_rule_41_the_egress_mirror_of_a_tunnel_copies_the_inner_frame(dug: Switch) -> None:
    """With the tags that it has in there."""
    dug.tunnel("gre", VlanMode.ACCESS, 5)
    dug.port("a", VlanMode.ACCESS, 5)
    dug.port("c", VlanMode.TRUNK)
    dug.learn("02:00:00:00:00:02", "gre", 5)
    dug.configure(dug.mirror(0, "c", dst=["gre"]))
    inner, copy = dug.outputs(frame(), "a")
    assert (inner.port, inner.image) == ("gre", frame().hex())
    assert (copy.port, copy.image) == ("c", frame(tag="81000005", length=64).hex())


@pytest.mark.parametrize("way", NO_WAYS)
def test_rule_9_egress_mirrors_of_a_tunnel_without_a_way_work(dug: Switch, way: Way) -> None:
    """And so do those of the copies that would go into it."""
    dig(dug, way)
    dug.learn("02:00:00:00:00:02", "gre")
    dug.configure(dug.mirror(0, "c", dst=["gre"]), dug.mirror(1, "vx", src=["a"]))
    assert dug.ports(frame(), "a") == [("vx", 1), ("gre", None), ("c", 0)]
    dug.configure(dug.mirror(0, "c", dst=["vx"]), dug.mirror(1, "vx", src=["a"]))
    assert dug.ports(frame(), "a") == [("vx", 1), ("c", 0), ("gre", None)]


def test_rule_8_a_tunnel_that_is_no_port_now_has_no_egress_mirrors(dug: Switch) -> None:
    dug.port("gre", device=False, tunnel=True)
    dug.learn("02:00:00:00:00:02", "gre")
    dug.configure(dug.mirror(0, "c", dst=["gre"]))
    assert dug.ports(frame(), "a") == []


def test_rule_11_what_the_tunnels_vlans_do_not_admit_is_not_mirrored(dug: Switch) -> None:
    dug.tunnel("gre", VlanMode.ACCESS, 5)
    dug.configure(dug.mirror(0, "c", src=["gre"]))
    assert dug.dropped(frame(tag="81000005"), "gre") == Reason.DROP_VLAN
    assert dug.ports(frame(tag="81000005"), "gre") == []


def test_rules_51_and_52_a_tunnel_that_is_an_output_is_reserved(dug: Switch) -> None:
    dug.configure(dug.mirror(0, "gre", src=["a"]))
    assert dug.dropped(FLOOD, "gre") == Reason.DROP_RESERVED_PORT
    assert dug.ports(FLOOD, "a") == [("gre", 0), ("b", None), ("c", None), ("vx", None)]


def test_rule_77_protected_tunnels(dug: Switch) -> None:
    """What comes in by a protected port goes into none, what comes out of one to no such port."""
    dug.port("a", protected=True)
    dug.tunnel("gre", protected=True)
    dug.configure(dug.mirror(0, "gre", src=["a", "b"]))
    assert dug.ports(FLOOD, "a") == [("b", None), ("c", None), ("vx", None)]
    assert ("gre", 0) in dug.ports(FLOOD, "b")
    dug.configure()
    assert dug.ports(FLOOD, "gre") == [("b", None), ("c", None), ("vx", None)]


def test_rules_44_to_46_an_output_vlan_reaches_the_tunnels_that_carry_it(dug: Switch) -> None:
    dug.tunnel("gre", trunks=(111,))
    dug.tunnel("vx", VlanMode.ACCESS, 111)
    dug.tunnel("elsewhere", trunks=(5,))
    dug.configure(dug.mirror(0, None, src=["a"], output_vlan=111))
    images = {o.port: o.image for o in dug.outputs(FLOOD, "a") if o.mirror == 0}
    assert images.keys() == {"a", "b", "c", "gre", "vx"}
    assert images["gre"] == images["b"]
    assert images["gre"][24:36] == "8100006f88b5"
    assert images["vx"] == FLOOD.hex()


def test_rule_32_a_copy_into_a_tunnel_makes_other_mirrors_eligible(dug: Switch) -> None:
    dug.configure(dug.mirror(0, "gre", src=["a"]), dug.mirror(1, "vx", dst=["gre"]))
    assert [p for p in dug.ports(FLOOD, "a") if p[1] is not None] == [("gre", 0), ("vx", 1)]


def test_departure_4_a_copy_is_cut_before_it_is_wrapped(dug: Switch) -> None:
    """And departure 12 holds: the tag stays whole."""
    dug.configure(dug.mirror(0, "gre", src=["a"], snaplen=14))
    for data, length in (frame(), 14), (frame(tag="81000005"), 18):
        (copy,) = [o for o in dug.outputs(data, "a") if o.mirror == 0]
        assert copy.image == data[:length].hex()


def test_a_tunnel_at_the_other_end_of_a_patch(dug: Switch, other: Switch) -> None:
    dug.patch("there", other, "here")
    other.tunnel("far")
    other.learn("02:00:00:00:00:02", "far")
    dug.learn("02:00:00:00:00:02", "there")
    dug.configure()
    other.configure()
    assert dug.ports(frame(), "a") == [("there", None), ("far", None)]


def known(plane: DataPlane) -> dict[bytes, bytes]:
    """What the program finds ports by."""
    sizes = layouts.ENDPOINT.size, layouts.DEVICE.size
    return dict(bpf.items(plane.map_fd("endpoints"), *sizes))


def test_where_packets_arrive_follows_the_underlay(dug: Switch) -> None:
    """Also when it is put anew by a process that does not know what is there."""
    underlay = dig(dug, WAY)
    assert known(dug.plane) == endpoints(underlay) != {}
    fewer = replace(underlay, tunnels=underlay.tunnels[1:])
    stale = layouts.Endpoint(TunnelKind.GRE, 0, 0, 0, 0, 77, FAR.packed.ljust(16, b"\0"), bytes(16))
    bpf.update(dug.plane.map_fd("endpoints"), stale.pack(), layouts.Device(9, 9).pack())
    dug.plane.put_underlay(fewer)
    assert known(dug.plane) == endpoints(fewer) != endpoints(underlay)
    dug.plane.put_underlay(UnderlayEntry())
    assert known(dug.plane) == {}


def test_rules_109_and_114_a_ports_sequence_begins_again_and_no_other(dug: Switch) -> None:
    sequences = dug.plane.map_fd("sequences")
    for number in 5, 6:
        bpf.update(sequences, struct.pack("=I", number), struct.pack("=I", 1000))
    dug.plane.restart_sequence(5)
    found = [bpf.lookup(sequences, struct.pack("=I", number), 4) for number in (5, 6)]
    assert found == [struct.pack("=I", 0), struct.pack("=I", 1000)]
    dug.plane.restart_sequence(6)
