# SPDX-License-Identifier: Apache-2.0
"""Access, trunk and native ports: what is admitted, what leaves how (rules 37, 40, 69 to 75)."""

import pytest
from tests.packet.conftest import Output, Switch, frame

from heliograph.kernel.layouts import PriorityTags, Reason, VlanMode

PLAIN, FIVE, FIVE_P3, SIX = "", "81000005", "81006005", "81000006"
ZERO_P3, ZERO, SERVICE = "81006000", "81000000", "88a80005"


def leaves(switch: Switch, tag: str, by: str, to: str) -> str | None:
    """The tag that a frame tagged `tag` has when it leaves by `to`, or None if it does not."""
    sent = frame(tag=tag)
    for output in switch.outputs(sent, by):
        if output.port == to:
            image, untagged = bytes.fromhex(output.image), sent[:12] + sent[12 + len(tag) // 2 :]
            left = image[12 : 12 + len(image) - len(untagged)].hex()
            assert image == untagged[:12] + bytes.fromhex(left) + untagged[12:]
            return left
    return None


@pytest.mark.parametrize(
    ("tag", "expected"),
    [
        (PLAIN, FIVE),
        (ZERO, FIVE),
        (ZERO_P3, FIVE_P3),
        (FIVE, None),  # even its own VLAN
        (SIX, None),
    ],
)
def test_rule_70_access_port_in(switch: Switch, tag: str, expected: str | None) -> None:
    switch.port("a", VlanMode.ACCESS, 5)
    switch.configure()
    assert leaves(switch, tag, "a", "b") == expected
    assert switch.dropped(frame(tag=tag), "a") == (None if expected else Reason.DROP_VLAN)


@pytest.mark.parametrize(
    ("tag", "expected"), [(FIVE, PLAIN), (FIVE_P3, PLAIN), (PLAIN, None), (SIX, None)]
)
def test_rule_37_access_port_out(switch: Switch, tag: str, expected: str | None) -> None:
    switch.port("b", VlanMode.ACCESS, 5)
    switch.configure()
    assert leaves(switch, tag, "a", "b") == expected


@pytest.mark.parametrize(
    ("trunks", "tag", "passes"),
    [
        ((), PLAIN, True),
        ((), FIVE, True),
        ((5,), FIVE, True),
        ((5,), SIX, False),
        ((5,), PLAIN, False),
        ((5,), ZERO_P3, False),
        ((0, 5), PLAIN, True),
    ],
)
def test_rule_71_trunks(switch: Switch, trunks: tuple[int, ...], tag: str, passes: bool) -> None:
    switch.port("b", VlanMode.TRUNK, 0, trunks)
    switch.configure()
    assert (leaves(switch, tag, "a", "b") is not None) == passes
    assert (switch.dropped(frame(tag=tag), "b") is None) == passes


@pytest.mark.parametrize("tag", [FIVE, FIVE_P3, SERVICE, "81007005"])
def test_rule_37_a_trunk_leaves_the_tag_alone(switch: Switch, tag: str) -> None:
    switch.configure()
    whole = frame(tag=tag).hex()
    assert switch.outputs(frame(tag=tag), "a") == [
        Output("b", None, whole),
        Output("c", None, whole),
    ]


@pytest.mark.parametrize("nothing", [ZERO, "88a80000", "81001000"])
@pytest.mark.parametrize("mode", [VlanMode.TRUNK, VlanMode.ACCESS, VlanMode.NATIVE_UNTAGGED])
def test_rules_37_and_40_a_tag_that_says_nothing_goes(
    switch: Switch, mode: VlanMode, nothing: str
) -> None:
    """Neither VLAN nor priority: it is no tag, and no port sends it on."""
    switch.port("b", mode)
    switch.configure()
    assert leaves(switch, nothing, "a", "b") == PLAIN


def test_rule_75_a_vid_0_tag_with_priority_stays_on_a_trunk(switch: Switch) -> None:
    switch.configure()
    assert leaves(switch, ZERO_P3, "a", "b") == ZERO_P3


@pytest.mark.parametrize(
    ("mode", "tag", "expected"),
    [
        (VlanMode.NATIVE_TAGGED, PLAIN, FIVE),
        (VlanMode.NATIVE_TAGGED, FIVE, FIVE),
        (VlanMode.NATIVE_TAGGED, SIX, SIX),
        (VlanMode.NATIVE_UNTAGGED, ZERO_P3, FIVE_P3),
    ],
)
def test_rule_72_native_in(switch: Switch, mode: VlanMode, tag: str, expected: str) -> None:
    switch.port("a", mode, 5)
    switch.configure()
    assert leaves(switch, tag, "a", "b") == expected


@pytest.mark.parametrize(
    ("mode", "tag", "expected"),
    [
        (VlanMode.NATIVE_TAGGED, FIVE, FIVE),
        (VlanMode.NATIVE_UNTAGGED, FIVE, PLAIN),
        (VlanMode.NATIVE_UNTAGGED, SIX, SIX),
        (VlanMode.NATIVE_TAGGED, PLAIN, None),  # VLAN 0 is never carried
        (VlanMode.NATIVE_UNTAGGED, PLAIN, None),
    ],
)
def test_rule_72_native_out(switch: Switch, mode: VlanMode, tag: str, expected: str | None) -> None:
    switch.port("b", mode, 5)
    switch.configure()
    assert leaves(switch, tag, "a", "b") == expected


@pytest.mark.parametrize("mode", [VlanMode.NATIVE_TAGGED, VlanMode.NATIVE_UNTAGGED])
def test_rule_72_so_is_vlan_0_without_a_tag(switch: Switch, mode: VlanMode) -> None:
    switch.port("b", mode, 0, (6,))
    switch.configure()
    assert leaves(switch, PLAIN, "a", "b") == PLAIN
    assert leaves(switch, SIX, "a", "b") == SIX
    assert leaves(switch, FIVE, "a", "b") is None


def test_rule_72_the_native_vlan_is_carried_whatever_trunks_says(switch: Switch) -> None:
    switch.port("b", VlanMode.NATIVE_TAGGED, 5, (6,))
    switch.configure()
    assert leaves(switch, FIVE, "a", "b") == FIVE
    assert leaves(switch, SIX, "a", "b") == SIX
    assert leaves(switch, "81000007", "a", "b") is None


def test_rule_39_a_second_tag_is_payload(switch: Switch) -> None:
    switch.port("b", VlanMode.ACCESS, 5)
    switch.configure()
    double = frame(tag=FIVE + SIX)
    assert Output("b", None, (double[:12] + double[16:]).hex()) in switch.outputs(double, "a")


def test_rule_39_unless_two_are_looked_at(switch: Switch) -> None:
    switch.port("b", VlanMode.ACCESS, 5)
    switch.configure(vlan_limit=2)
    assert leaves(switch, FIVE + SIX, "a", "b") is None  # rule 74: it has a second VID
    assert leaves(switch, FIVE + ZERO, "a", "b") == PLAIN  # rule 37: every parsed tag goes
    assert leaves(switch, FIVE + SIX + SIX, "a", "c") == FIVE + SIX + SIX


@pytest.mark.parametrize(
    ("tag", "customers", "expected"),
    [
        (PLAIN, (), SERVICE),
        (SIX, (), SERVICE + SIX),
        ("8100e006", (), SERVICE + "8100e006"),  # the service tag has PCP 0
        (SIX, (6,), SERVICE + SIX),
        (SIX, (7,), None),
        (PLAIN, (7,), None),
        (PLAIN, (0, 7), SERVICE),
        (ZERO_P3, (0,), SERVICE + ZERO_P3),
    ],
)
def test_rule_73_tunnel_in(
    switch: Switch, tag: str, customers: tuple[int, ...], expected: str | None
) -> None:
    switch.port("a", VlanMode.DOT1Q_TUNNEL, 5, customer_vlans=frozenset(customers))
    switch.configure()
    assert leaves(switch, tag, "a", "b") == expected
    assert switch.dropped(frame(tag=tag), "a") == (None if expected else Reason.DROP_VLAN)


def test_rule_73_the_type_of_the_service_tag(switch: Switch) -> None:
    switch.port("a", VlanMode.DOT1Q_TUNNEL, 5, service_tpid=0x8100)
    switch.configure()
    assert leaves(switch, SIX, "a", "b") == FIVE + SIX


@pytest.mark.parametrize(
    ("tag", "customers", "expected"),
    [
        (SERVICE, (), PLAIN),
        (SERVICE + SIX, (), SIX),
        (FIVE + SIX, (6,), SIX),
        (SERVICE + SIX, (7,), None),
        (SERVICE, (7,), None),
        (SERVICE, (0,), PLAIN),
        (SIX, (), None),
    ],
)
def test_rules_73_and_74_tunnel_out(
    switch: Switch, tag: str, customers: tuple[int, ...], expected: str | None
) -> None:
    switch.port("b", VlanMode.DOT1Q_TUNNEL, 5, customer_vlans=frozenset(customers))
    switch.configure(vlan_limit=2)
    assert leaves(switch, tag, "a", "b") == expected


def test_rule_73_from_tunnel_to_tunnel_nothing_changes(switch: Switch) -> None:
    switch.port("a", VlanMode.DOT1Q_TUNNEL, 5)
    switch.port("b", VlanMode.DOT1Q_TUNNEL, 5)
    switch.configure()
    for tag in (PLAIN, SIX, "8100f006", ZERO_P3, SIX + SIX):
        assert leaves(switch, tag, "a", "b") == tag


def test_rule_18_a_tunnel_selects_by_its_service_vlan(switch: Switch) -> None:
    switch.port("a", VlanMode.DOT1Q_TUNNEL, 5)
    switch.port("d")
    switch.configure(switch.mirror(0, "d", src=["a"], vlans=[5]))
    assert leaves(switch, SIX, "a", "d") == SERVICE + SIX
    switch.configure(switch.mirror(0, "d", src=["a"], vlans=[6]))
    assert leaves(switch, SIX, "a", "d") is None


NEVER, IF_NONZERO, ALWAYS = PriorityTags


@pytest.mark.parametrize("mode", [VlanMode.ACCESS, VlanMode.NATIVE_UNTAGGED, VlanMode.DOT1Q_TUNNEL])
@pytest.mark.parametrize(
    ("tag", "wanted", "expected"),
    [
        (FIVE_P3, NEVER, PLAIN),
        (FIVE_P3, IF_NONZERO, ZERO_P3),
        (FIVE_P3, ALWAYS, ZERO_P3),
        (FIVE, NEVER, PLAIN),
        (FIVE, IF_NONZERO, PLAIN),
        (FIVE, ALWAYS, ZERO),
    ],
)
def test_rule_75_priority_tags(
    switch: Switch, mode: VlanMode, tag: str, wanted: PriorityTags, expected: str
) -> None:
    switch.port("b", mode, 5, priority_tags=wanted)
    switch.configure()
    assert leaves(switch, tag, "a", "b") == expected


def test_rule_75_on_a_trunk(switch: Switch) -> None:
    switch.port("b", priority_tags=ALWAYS)
    switch.port("c", priority_tags=IF_NONZERO)
    switch.configure()
    assert leaves(switch, PLAIN, "a", "b") == ZERO
    assert leaves(switch, PLAIN, "a", "c") == PLAIN
    assert leaves(switch, FIVE_P3, "a", "b") == FIVE_P3


def test_rule_77_protected_ports_exchange_nothing(switch: Switch) -> None:
    switch.port("a", protected=True)
    switch.port("b", protected=True)
    switch.configure()
    assert switch.ports(frame(), "a") == [("c", None)]
    assert switch.ports(frame(), "c") == [("a", None), ("b", None)]
    switch.learn("02:00:00:00:00:02", "b")
    assert switch.dropped(frame(), "a") == Reason.DROP_PROTECTED


def test_rules_8_and_77_nor_copies_and_what_is_refused_is_not_mirrored(switch: Switch) -> None:
    switch.port("a", protected=True)
    switch.port("b", protected=True)
    switch.port("d")
    switch.configure(switch.mirror(0, "b", src=["a"]), switch.mirror(1, "d", dst=["b"]))
    assert switch.ports(frame(), "a") == [("c", None)]
    assert switch.ports(frame(), "c") == [("a", None)]
