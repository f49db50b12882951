# SPDX-License-Identifier: Apache-2.0
"""Which mirrors take a frame, once per destination, as what (rules 1 to 5, 17 to 40, 51, 78)."""

import pytest
from tests.packet.conftest import Output, Switch, frame

from heliograph.kernel.layouts import EventKind, Reason, VlanMode


@pytest.fixture
def four(switch: Switch) -> Switch:
    """Ports a, b, c, d; the frame's destination is known on b."""
    switch.port("d")
    switch.learn("02:00:00:00:00:02", "b")
    return switch


def copies(switch: Switch, data: bytes, port: str) -> list[tuple[str, int | None]]:
    """Where mirrors' copies go."""
    return [(to, mirror) for to, mirror in switch.ports(data, port) if mirror is not None]


def test_rule_1_source(four: Switch) -> None:
    four.configure(four.mirror(0, "d", src=["a"]))
    assert copies(four, frame(), "a") == [("d", 0)]
    assert copies(four, frame(), "c") == []


def test_rule_1_destination_each_time_it_is_output(four: Switch) -> None:
    four.configure(four.mirror(0, "d", dst=["b"]))
    assert copies(four, frame(), "a") == [("d", 0)]
    assert copies(four, frame(dst="02:00:00:00:00:09"), "a") == [("d", 0)]  # flooded to b
    assert copies(four, frame(), "b") == []  # it goes back to no one


def test_rule_3_select_vlan_alone_selects_nothing(four: Switch) -> None:
    four.configure(four.mirror(0, "d", vlans=[0]))
    assert copies(four, frame(), "a") == []


def test_rule_11_not_admitted_not_mirrored(four: Switch) -> None:
    four.port("a", VlanMode.ACCESS, 5)
    four.configure(four.mirror(0, "d", src=["a"]))
    assert copies(four, frame(tag="81000005"), "a") == []


@pytest.mark.parametrize(
    ("vlans", "tag", "selected"),
    [
        ([], "81000005", True),
        ([5], "81000005", True),
        ([6], "81000005", False),
        ([0], "", True),
        ([0], "8100e000", True),
        ([5], "", False),
    ],
)
def test_rule_19_select_vlan(four: Switch, vlans: list[int], tag: str, selected: bool) -> None:
    four.configure(four.mirror(0, "d", src=["a"], vlans=vlans))
    assert bool(copies(four, frame(tag=tag), "a")) == selected


def test_rule_18_an_access_port_selects_by_its_tag(four: Switch) -> None:
    four.port("a", VlanMode.ACCESS, 5)
    four.configure(four.mirror(0, "d", src=["a"], vlans=[5]))
    assert copies(four, frame(), "a") == [("d", 0)]


def test_rule_18_so_does_one_on_egress(four: Switch) -> None:
    four.port("b", VlanMode.ACCESS, 5)
    four.learn("02:00:00:00:00:02", "b", 5)
    four.configure(four.mirror(0, "d", dst=["b"], vlans=[5]))
    assert copies(four, frame(tag="81000005"), "a") == [("d", 0)]


def test_rule_22_once_per_destination(four: Switch) -> None:
    four.configure(four.mirror(0, "d", src=["a"]), four.mirror(1, "d", src=["a"], dst=["b"]))
    assert copies(four, frame(), "a") == [("d", 0)]


def test_rule_24_a_mirror_that_rejects_does_not_consume(four: Switch) -> None:
    four.configure(
        four.mirror(0, "d", src=["a"], vlans=[9]), four.mirror(1, "d", src=["a"], snaplen=20)
    )
    assert copies(four, frame(), "a") == [("d", 1)]


def test_rule_23_order_is_that_of_the_numbers(four: Switch) -> None:
    four.configure(four.mirror(0, "d", src=["a"]), four.mirror(1, "c", src=["a"]))
    assert copies(four, frame(), "a") == [("d", 0), ("c", 1)]
    four.configure(four.mirror(0, "c", src=["a"]), four.mirror(1, "d", src=["a"]))
    assert copies(four, frame(), "a") == [("c", 0), ("d", 1)]


def test_rule_32_a_copy_makes_other_mirrors_eligible(four: Switch) -> None:
    four.configure(four.mirror(0, "c", src=["a"]), four.mirror(1, "d", dst=["c"]))
    assert copies(four, frame(), "a") == [("c", 0), ("d", 1)]


def test_rule_32_no_loop(four: Switch) -> None:
    ports = ["a", "b", "c", "d"]
    four.configure(
        four.mirror(0, "c", src=ports, dst=ports), four.mirror(1, "d", src=ports, dst=ports)
    )
    assert copies(four, frame(), "a") == [("c", 0), ("d", 1)]


def test_rule_33_the_inner_copy_is_seen_in_the_outer_ports_mode(four: Switch) -> None:
    four.port("c", VlanMode.ACCESS, 5)
    four.configure(four.mirror(0, "c", src=["a"]), four.mirror(1, "d", dst=["c"]))
    outputs = four.outputs(frame(), "a")
    assert outputs[0] == Output("c", 0, frame().hex())
    assert bytes.fromhex(outputs[1].image)[12:16].hex() == "81000005"


def test_rule_35_ingress_copies_come_first(four: Switch) -> None:
    everything = ["a", "b", "c", "d"]
    four.configure(four.mirror(0, "c", src=everything, dst=everything))
    assert four.ports(frame(), "a") == [("c", 0), ("b", None)]


def test_rule_5_egress_copies_come_right_after_their_output(four: Switch) -> None:
    four.configure(four.mirror(0, "d", dst=["b"]))
    assert four.ports(frame(), "a") == [("b", None), ("d", 0)]
    assert four.ports(frame(dst="ff:ff:ff:ff:ff:ff"), "a") == [
        ("b", None),
        ("d", 0),
        ("c", None),
    ]


def test_rule_36_the_copy_is_tagged_as_its_output_port_says(four: Switch) -> None:
    four.port("a", VlanMode.ACCESS, 10)
    four.configure(four.mirror(0, "d", src=["a"]))
    (copy,) = [o for o in four.outputs(frame(), "a") if o.mirror == 0]
    assert bytes.fromhex(copy.image)[12:16].hex() == "8100000a"


def test_rule_38_the_output_ports_vlans_do_not_filter(four: Switch) -> None:
    four.port("d", VlanMode.ACCESS, 7)
    four.configure(four.mirror(0, "d", src=["a"]))
    (copy,) = [o for o in four.outputs(frame(tag="81000005"), "a") if o.mirror == 0]
    assert copy.image[24:28] == "88b5"
    four.port("d", VlanMode.TRUNK, 0, (7,))
    four.configure(four.mirror(0, "d", src=["a"]))
    (copy,) = [o for o in four.outputs(frame(tag="81000005"), "a") if o.mirror == 0]
    assert copy.image[24:32] == "81000005"


def test_rule_51_what_comes_in_by_an_output_port_is_dropped(four: Switch) -> None:
    four.configure(four.mirror(0, "d", src=["a", "d"]))
    assert four.dropped(frame(), "d") == Reason.DROP_RESERVED_PORT
    assert four.ports(frame(), "d") == []
    assert not [e for e in four.events(frame(), "d") if e.kind == EventKind.EVENT_LEARN]


def test_rule_52_a_flood_leaves_output_ports_out(four: Switch) -> None:
    four.configure(four.mirror(0, "d"))
    assert four.ports(frame(dst="ff:ff:ff:ff:ff:ff"), "a") == [("b", None), ("c", None)]


@pytest.mark.parametrize(("snaplen", "length"), [(14, 14), (59, 59), (60, 60), (61, 60), (0, 60)])
def test_rule_78_snaplen(four: Switch, snaplen: int, length: int) -> None:
    four.configure(four.mirror(0, "d", src=["a"], snaplen=snaplen))
    events = [e for e in four.events(frame(), "a") if e.kind == EventKind.EVENT_OUTPUT]
    assert {e.mirror: e.length for e in events} == {0: length, None: 60}  # rule 80
    assert {e.mirror: e.image for e in events}[0] == frame()[:length]


def test_departure_12_a_tagged_frame_is_not_cut_below_18(four: Switch) -> None:
    four.configure(four.mirror(0, "d", src=["a"], snaplen=14))
    events = four.events(frame(tag="81000005"), "a")
    assert [e.length for e in events if e.mirror == 0 and e.kind == EventKind.EVENT_OUTPUT] == [18]


def test_departure_12_nor_is_one_whose_tag_is_payload(four: Switch) -> None:
    """An access port takes the outer tag off; what then leaves is a tagged frame still."""
    four.port("d", VlanMode.ACCESS, 7)
    four.configure(four.mirror(0, "d", src=["a"], snaplen=14))
    events = four.events(frame(tag="8100000581000006"), "a")
    assert [e.length for e in events if e.mirror == 0 and e.kind == EventKind.EVENT_OUTPUT] == [18]


def test_rule_17_the_tags_are_checked_as_if_it_came_in_there(four: Switch) -> None:
    """On the way out too: the copy that leaves by d has a VLAN that d would not let in."""
    four.port("e")
    four.port("d", VlanMode.TRUNK, 0, (7,))
    mirrors = four.mirror(0, "d", src=["a"]), four.mirror(1, "e", dst=["d"])
    four.configure(*mirrors)
    assert copies(four, frame(tag="81000005"), "a") == [("d", 0)]
    assert copies(four, frame(tag="81000007"), "a") == [("d", 0), ("e", 1)]


def test_rule_30_a_tag_added_or_removed_on_the_way_makes_no_second_copy(four: Switch) -> None:
    """Departure D9 says the same of every change."""
    four.port("a", VlanMode.ACCESS, 5)
    four.learn("02:00:00:00:00:02", "b", 5)
    four.configure(four.mirror(0, "d", src=["a"], dst=["b"]))
    assert four.ports(frame(), "a") == [("d", 0), ("b", None)]
    assert four.outputs(frame(), "a")[1].image[24:32] == "81000005"


def test_departure_9_one_frame_is_mirrored_to_one_destination_once(four: Switch) -> None:
    """Through every mode at once, flooded to all of them, and mirrored wherever it comes out."""
    for number, mode in enumerate(VlanMode):
        four.port(f"e{number}", mode, 5)
    everything = [name for name in four.numbers if name != "d"]
    four.configure(
        four.mirror(0, "d", src=everything), four.mirror(1, "d", dst=everything), vlan_limit=2
    )
    for tag in "81000005", "8100600588a80005", "81000006":
        assert copies(four, frame(dst="ff:ff:ff:ff:ff:ff", tag=tag), "a") == [("d", 0)]


def test_rule_34_a_copy_is_the_frame_as_it_was_selected(four: Switch) -> None:
    """On the way in with its priority; out of a tunnel it has lost that of the service tag."""
    four.port("b", VlanMode.DOT1Q_TUNNEL, 5)
    four.learn("02:00:00:00:00:02", "b", 5)
    four.configure(four.mirror(0, "c", src=["a"]), four.mirror(1, "d", dst=["b"]), vlan_limit=2)
    sent = frame(tag="88a8600581000006")
    images = {o.port: o.image[24:40] for o in four.outputs(sent, "a")}
    assert images["c"] == "88a8600581000006"
    assert images["b"][:8] == "81000006"
    assert images["d"] == "88a8000581000006"


def test_rule_43_a_copy_obeys_protected(four: Switch) -> None:
    four.port("a", protected=True)
    four.port("d", protected=True)
    four.configure(four.mirror(0, "d", src=["a", "c"]))
    assert copies(four, frame(), "a") == []
    assert copies(four, frame(), "c") == [("d", 0)]


def test_rules_7_and_52_every_output_of_normal_is_mirrored_once_for_each_port(
    four: Switch,
) -> None:
    """A flood is an output to each of its ports: each has its own destination here."""
    four.port("e")
    four.port("f")
    four.configure(four.mirror(0, "e", dst=["b"]), four.mirror(1, "f", dst=["c"]))
    flood = frame(dst="ff:ff:ff:ff:ff:ff")
    assert four.ports(flood, "a") == [
        ("b", None),
        ("e", 0),
        ("c", None),
        ("f", 1),
        ("d", None),
    ]


def test_rule_57_several_mirrors_share_an_output_and_no_copy_is_learned_from(
    four: Switch,
) -> None:
    everything = ["a", "b", "c"]
    four.configure(
        four.mirror(0, "d", src=["a"]),
        four.mirror(1, "d", src=["c"]),
        four.mirror(2, None, src=everything, dst=everything, output_vlan=111),
    )
    learned = [e.port for e in four.events(frame(), "a") if e.kind == EventKind.EVENT_LEARN]
    assert learned == [four.numbers["a"]]
    assert ("d", 1) in copies(four, frame(), "c")


def test_departure_2_a_copy_for_a_port_without_device_is_a_drop(four: Switch) -> None:
    four.port("d", device=False)
    four.configure(four.mirror(0, "d", src=["a"]))
    outputs = [e for e in four.events(frame(), "a") if e.mirror == 0]
    assert [(e.kind, e.reason) for e in outputs] == [
        (EventKind.EVENT_MIRROR, Reason.DELIVERED),
        (EventKind.EVENT_OUTPUT, Reason.DROP_NO_DEVICE),
    ]
    assert four.ports(frame(), "a") == [("b", None)]


def test_all_32_mirrors_at_once(four: Switch) -> None:
    """Each with another destination; every one takes the frame, once."""
    names = [f"m{number}" for number in range(32)]
    for name in names:
        four.port(name)
    four.configure(*(four.mirror(n, name, src=["a"]) for n, name in enumerate(names)))
    assert copies(four, frame(), "a") == [(name, n) for n, name in enumerate(names)]


def test_mirrors_in_a_chain_of_32(four: Switch) -> None:
    """Each copy makes the next mirror eligible: the deepest nesting there can be."""
    names = [f"m{number}" for number in range(32)]
    for name in names:
        four.port(name)
    chain = [four.mirror(0, "m0", src=["a"])]
    chain += [four.mirror(n, f"m{n}", dst=[f"m{n - 1}"]) for n in range(1, 32)]
    four.configure(*chain)
    assert copies(four, frame(), "a") == [(name, n) for n, name in enumerate(names)]
