# SPDX-License-Identifier: Apache-2.0
"""Access, trunk and native ports: what is admitted, what leaves how (rules 37, 40, 69 to 75)."""

import pytest
from tests.packet.conftest import Output, Switch, frame

from heliograph.kernel.layouts import Reason, VlanMode

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
