# SPDX-License-Identifier: Apache-2.0
"""Mirrors to an output VLAN (section 5: rules 44 to 50; 83)."""

import pytest
from tests.packet.conftest import Switch, frame
from tests.packet.test_normal import RESERVED

from heliograph.kernel.layouts import EventKind, Reason, VlanMode

OUT = "8100006f"  # VLAN 111


def copies(switch: Switch, data: bytes, by: str = "a") -> dict[str, str]:
    """The image of each port's copy, as the tags before an untagged frame's type."""
    found: dict[str, str] = {}
    for output in switch.outputs(data, by):
        if output.mirror is not None:
            assert output.port not in found, "a second copy"
            found[output.port] = output.image
    return found


def image(tag: str, sent: str = "") -> str:
    """What a frame with the tags `sent` looks like with the tags `tag` instead."""
    whole = frame(tag=sent).hex()
    return whole[:24] + tag + whole[24 + len(sent) :]


@pytest.fixture
def rspan(switch: Switch) -> Switch:
    """Port a is mirrored into VLAN 111; ports of every kind, the frame's destination on b."""
    switch.port("trunk")
    switch.port("narrow", VlanMode.TRUNK, 0, (5, 111))
    switch.port("elsewhere", VlanMode.TRUNK, 0, (5,))
    switch.port("access", VlanMode.ACCESS, 111)
    switch.port("other", VlanMode.ACCESS, 110)
    switch.port("tagged", VlanMode.NATIVE_TAGGED, 111)
    switch.port("untagged", VlanMode.NATIVE_UNTAGGED, 111)
    switch.port("tunnel", VlanMode.DOT1Q_TUNNEL, 111)
    switch.learn("02:00:00:00:00:02", "b")
    switch.configure(switch.mirror(0, None, src=["a"], output_vlan=111))
    return switch


def test_rules_44_to_46_every_port_of_the_vlan_in_its_mode(rspan: Switch) -> None:
    """The input port and the destination as well."""
    tagged, plain = image(OUT), image("")
    assert copies(rspan, frame()) == {
        "a": tagged,
        "b": tagged,
        "c": tagged,
        "trunk": tagged,
        "narrow": tagged,
        "access": plain,
        "tagged": tagged,
        "untagged": plain,
        "tunnel": plain,
    }


def test_rule_44_the_outer_vid_is_replaced_and_its_priority_kept(rspan: Switch) -> None:
    sent = copies(rspan, frame(tag="8100a005"))
    assert sent["c"] == image("8100a06f", "8100a005")
    assert sent["access"] == sent["tunnel"] == image("", "8100a005")
    assert copies(rspan, frame(tag="88a8a005"))["c"] == image("88a8a06f", "88a8a005")


@pytest.mark.parametrize("limit", [1, 2])
def test_rule_44_the_inner_tag_is_kept(rspan: Switch, limit: int) -> None:
    rspan.configure(rspan.mirror(0, None, src=["a"], output_vlan=111), vlan_limit=limit)
    double = "8100a00581006007"
    sent = copies(rspan, frame(tag=double))
    assert sent["c"] == image("8100a06f81006007", double)
    assert sent["tunnel"] == image("81006007", double)
    # An access port takes no second VID, if that is looked at.
    assert sent.get("access") == (image("81006007", double) if limit == 1 else None)


def test_rule_44_a_tunnel_takes_its_customers_vlans_only(rspan: Switch) -> None:
    rspan.port("tunnel", VlanMode.DOT1Q_TUNNEL, 111, customer_vlans=frozenset([7]))
    rspan.configure(rspan.mirror(0, None, src=["a"], output_vlan=111), vlan_limit=2)
    assert "tunnel" in copies(rspan, frame(tag="8100000581000007"))
    assert "tunnel" not in copies(rspan, frame(tag="8100000581000008"))
    assert "tunnel" not in copies(rspan, frame(tag="81000005"))


def test_rule_45_never_an_output_port(rspan: Switch) -> None:
    rspan.configure(
        rspan.mirror(0, None, src=["a"], output_vlan=111), rspan.mirror(1, "c", src=["b"])
    )
    assert "c" not in copies(rspan, frame())


def test_rule_47_not_from_the_output_vlan_itself(rspan: Switch) -> None:
    """NORMAL floods it in that VLAN."""
    sent = rspan.ports(frame(tag=OUT), "a")
    assert ("c", None) in sent
    assert not [port for port, mirror in sent if mirror is not None]


@pytest.mark.parametrize("forward_bpdu", [False, True])
@pytest.mark.parametrize("mac", RESERVED)
def test_rule_48_reserved_destinations(rspan: Switch, mac: str, forward_bpdu: bool) -> None:
    rspan.configure(
        rspan.mirror(0, None, src=["a"], output_vlan=111),
        rspan.mirror(1, "c", src=["a"]),
        forward_bpdu=forward_bpdu,
    )
    assert list(copies(rspan, frame(dst=mac))) == ["c"]


@pytest.mark.parametrize("data", [frame(tag=OUT), frame(dst=RESERVED[0])])
def test_rule_49_such_a_frame_is_counted_and_done(rspan: Switch, data: bytes) -> None:
    rspan.configure(
        rspan.mirror(0, None, src=["a"], output_vlan=111),
        rspan.mirror(1, None, src=["a"], dst=["b"], output_vlan=111),
    )
    events = rspan.events(data, "a")
    assert [e.mirror for e in events if e.kind == EventKind.EVENT_MIRROR] == [0]


def test_rule_50_flood_vlans_are_not_set_by_a_mirror(rspan: Switch) -> None:
    rspan.learn("02:00:00:00:00:02", "b", 111)
    assert rspan.ports(frame(tag=OUT), "a") == [("b", None)]


def test_rule_22_one_output_vlan_is_one_destination(rspan: Switch) -> None:
    rspan.configure(
        rspan.mirror(0, None, src=["a"], output_vlan=111),
        rspan.mirror(1, None, src=["a"], dst=["b"], output_vlan=111),
        rspan.mirror(2, None, src=["a"], vlans=[5], output_vlan=222),
    )
    taken = [e.mirror for e in rspan.events(frame(), "a") if e.kind == EventKind.EVENT_MIRROR]
    assert taken == [0]


def test_rules_32_and_46_the_fields_second_mirror(rspan: Switch) -> None:
    """select_vlan=111 select_all output_port=c: the copy of the copy, once, and untagged there."""
    rspan.port("c", VlanMode.ACCESS, 111)
    everything = list(rspan.numbers)
    rspan.configure(
        rspan.mirror(0, None, src=["a"], output_vlan=111),
        rspan.mirror(1, "c", src=everything, dst=everything, vlans=[111]),
    )
    assert copies(rspan, frame())["c"] == image("")


def test_rule_78_a_cut_counts_for_each_copy(rspan: Switch) -> None:
    rspan.configure(rspan.mirror(0, None, src=["a"], output_vlan=111, snaplen=20))
    sent = copies(rspan, frame())
    assert sent["c"] == image(OUT)[:40]
    assert sent["access"] == image("")[:40]


def test_rule_83_a_nested_copy_ends_the_cutting(rspan: Switch) -> None:
    """Of the copies of one frame into a VLAN, those after the one that was mirrored are whole."""
    rspan.port("a", VlanMode.ACCESS, 5)
    rspan.configure(
        rspan.mirror(0, None, src=["a"], output_vlan=111, snaplen=20),
        rspan.mirror(1, "elsewhere", dst=["c"]),
    )
    sent = rspan.outputs(frame(), "a")
    lengths = {output.port: len(output.image) // 2 for output in sent if output.mirror == 0}
    ports = list(lengths)
    before = ports[: ports.index("c") + 1]
    assert before == ["b", "c"]
    assert {lengths[port] for port in before} == {20}
    assert {lengths[port] for port in ports if port not in before} == {60, 64}
    assert lengths["trunk"] == 64


def test_departure_2_copies_that_cannot_leave_are_drops(rspan: Switch) -> None:
    rspan.port("c", device=False)
    rspan.port("a", protected=True)
    rspan.port("trunk", protected=True)
    rspan.configure(rspan.mirror(0, None, src=["a"], output_vlan=111))
    names = {number: name for name, number in rspan.numbers.items()}
    refused = {
        names[e.port]: e.reason
        for e in rspan.events(frame(), "a")
        if e.kind == EventKind.EVENT_OUTPUT and e.reason
    }
    assert refused == {
        "a": Reason.DROP_PROTECTED,
        "c": Reason.DROP_NO_DEVICE,
        "trunk": Reason.DROP_PROTECTED,
    }
