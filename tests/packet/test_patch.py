# SPDX-License-Identifier: Apache-2.0
"""Patch ports: on into the peer bridge (rules 13, 31, 55, 77, 81, 126)."""

import pytest
from tests.packet.conftest import Switch, frame

from heliograph.kernel.layouts import EventKind, Reason, VlanMode

DEPTH = 8  # patch ports one after the other (design, "Ports are devices")


@pytest.fixture
def patched(switch: Switch, other: Switch) -> Switch:
    """Ports a, b, c on the first bridge and x, y on the other, joined by there and here."""
    switch.patch("there", other, "here")
    switch.configure()
    other.configure()
    return switch


def through(switch: Switch, data: bytes, by: str = "a") -> list[str]:
    return [port for port, mirror in switch.ports(data, by) if mirror is None]


def refusals(switch: Switch, data: bytes, by: str = "a") -> list[Reason]:
    return [e.reason for e in switch.events(data, by) if e.reason != Reason.DELIVERED]


def test_a_flood_goes_on_in_the_peer_bridge(patched: Switch) -> None:
    assert through(patched, frame()) == ["b", "c", "there", "x", "y"]


def test_rule_59_the_peer_bridge_learns_by_its_own_patch_port(
    patched: Switch, other: Switch
) -> None:
    learned = [e.port for e in patched.events(frame(), "a") if e.kind == EventKind.EVENT_LEARN]
    assert learned == [patched.numbers["a"], patched.numbers["here"]]
    patched.learn("02:00:00:00:00:02", "there")
    other.learn("02:00:00:00:00:02", "y")
    assert through(patched, frame()) == ["there", "y"]
    other.learn("02:00:00:00:00:02", "here")
    assert refusals(patched, frame()) == [Reason.DROP_SAME_PORT]


def test_the_vlan_modes_of_both_ends_count(switch: Switch, other: Switch) -> None:
    switch.port("a", VlanMode.ACCESS, 5)
    switch.patch("there", other, "here")
    switch.port(
        "there", VlanMode.ACCESS, 5, device=False, peer=(other.slot, switch.numbers["here"])
    )
    other.port(
        "here", VlanMode.ACCESS, 7, device=False, peer=(switch.slot, switch.numbers["there"])
    )
    switch.configure()
    other.configure()
    images = {output.port: output.image for output in switch.outputs(frame(), "a")}
    assert images["there"] == frame().hex()
    assert images["x"] == (frame()[:12] + bytes.fromhex("81000007") + frame()[12:]).hex()


def test_rule_13_neither_end_is_mirrored(patched: Switch, other: Switch) -> None:
    patched.configure(patched.mirror(0, "c", dst=["there"]))
    other.configure(other.mirror(0, "y", src=["here"]))
    assert not [mirror for _, mirror in patched.ports(frame(), "a") if mirror is not None]


def test_rule_31_each_bridge_has_its_own_set(patched: Switch, other: Switch) -> None:
    patched.configure(patched.mirror(0, "c", src=["a"], dst=["b"]))
    other.configure(other.mirror(0, "y", dst=["x"]))
    assert patched.ports(frame(), "a") == [
        ("c", 0),
        ("b", None),
        ("there", None),
        ("x", None),
        ("y", 0),
    ]


def test_rule_31_a_patch_within_a_bridge_shares_it(switch: Switch) -> None:
    switch.patch("out", switch, "back")
    switch.configure(switch.mirror(0, "c", src=["a"], dst=["b"]))
    copies = [port for port, mirror in switch.ports(frame(), "a") if mirror is not None]
    assert copies == ["c"]


def test_rule_126_a_copy_goes_on_in_the_peer_bridge(patched: Switch, other: Switch) -> None:
    patched.configure(patched.mirror(0, "there", src=["a"]))
    other.configure(other.mirror(0, "y", dst=["x"]))
    sent = patched.ports(frame(), "a")
    assert sent[0] == ("there", 0)
    assert [(port, mirror) for port, mirror in sent if port in {"b", "c"}] == [
        ("b", None),
        ("c", None),
    ]
    assert [(port, mirror) for port, mirror in sent if port in {"x", "y"}] == [
        ("x", None),
        ("y", 0),
    ]


@pytest.mark.parametrize("snaplen", [14, 1500, 65535])
def test_rule_81_not_with_a_snaplen(patched: Switch, snaplen: int) -> None:
    patched.configure(patched.mirror(0, "there", src=["a"], snaplen=snaplen))
    assert patched.ports(frame(), "a") == [("b", None), ("c", None)]
    assert refusals(patched, frame()) == [Reason.DROP_PATCH_SNAPLEN]


def test_rules_53_and_55_a_patch_port_that_is_reserved(patched: Switch, other: Switch) -> None:
    """What comes in by it is dropped; nothing but copies goes out by it."""
    patched.configure(patched.mirror(0, "there", src=["b"]))
    assert through(patched, frame(), "a") == ["b", "c"]
    assert refusals(other, frame(), "x") == [Reason.DROP_RESERVED_PORT]


def test_rule_77_protected_ends(switch: Switch, other: Switch) -> None:
    switch.patch("there", other, "here", protected=True)
    switch.port("a", protected=True)
    other.port("x", protected=True)
    switch.configure()
    other.configure()
    assert through(switch, frame(), "a") == ["b", "c"]
    assert through(switch, frame(), "b") == ["a", "c", "there", "y"]


def test_two_patches_between_two_bridges_do_not_storm(switch: Switch, other: Switch) -> None:
    """A loop of the user's: it ends by itself, and what ended is said."""
    switch.patch("there", other, "here")
    switch.patch("there2", other, "here2")
    switch.configure()
    other.configure()
    sent = through(switch, frame())
    assert sent.count("there") + sent.count("there2") == DEPTH
    assert sent.count("x") == DEPTH
    assert refusals(switch, frame()) == [Reason.DROP_TOO_DEEP] * 2


def test_departure_9_one_copy_each_however_often_the_frame_comes_back(
    switch: Switch, other: Switch
) -> None:
    """Two patches, and mirrors of both kinds on both bridges."""
    for near, far in (("there", "here"), ("there2", "here2")):
        switch.patch(near, other, far, mode=VlanMode.TRUNK, trunks=(0,))
    for bridge, output, ports in (
        (switch, "c", ["a", "b", "c", "there", "there2"]),
        (other, "y", ["x", "y", "here", "here2"]),
    ):
        bridge.configure(
            bridge.mirror(0, output, src=ports, dst=ports),
            bridge.mirror(1, None, src=ports, dst=ports, output_vlan=111),
        )
    taken = [e.mirror for e in switch.events(frame(), "a") if e.kind == EventKind.EVENT_MIRROR]
    assert sorted(taken, key=str) == [0, 0, 1, 1]
    copies = [port for port, mirror in switch.ports(frame(), "a") if mirror == 0]
    assert sorted(copies) == ["c", "y"]


def test_at_most_eight_patch_ports_one_after_the_other(switch: Switch) -> None:
    """A chain of ten within one bridge: each VLAN leads to the next."""
    for number in range(10):
        switch.patch(f"o{number}", switch, f"i{number}")
        for end, vlan in (("o", number), ("i", number + 1)):
            name, peer = f"{end}{number}", f"{'i' if end == 'o' else 'o'}{number}"
            switch.port(
                name,
                VlanMode.ACCESS,
                100 + vlan,
                device=False,
                peer=(switch.slot, switch.numbers[peer]),
            )
    for name in "bc":
        switch.port(name, VlanMode.ACCESS, 999)
    switch.port("a", VlanMode.ACCESS, 100)
    switch.configure()
    assert through(switch, frame()) == [f"o{number}" for number in range(DEPTH)]
    assert refusals(switch, frame()) == [Reason.DROP_TOO_DEEP]
