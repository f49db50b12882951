# SPDX-License-Identifier: Apache-2.0
"""Which actions fit which match, with the codes that Open vSwitch 3.1 was seen to give; and what
the data plane has no place for."""

import pytest

from heliograph.flows.checks import (
    UNKNOWN_FIELDS,
    check_flow_mod,
    check_packet_out,
    check_unmatched,
)
from heliograph.openflow import actions as a
from heliograph.openflow.action_decoder import decode_actions
from heliograph.openflow.errors import OpenFlowError
from heliograph.openflow.fields import FIELDS
from heliograph.openflow.flows import FlowCommand, FlowMod, PacketOut
from heliograph.openflow.match import ANYTHING, Match

IPV4 = Match.of({"eth_type": (0x800, 0xFFFF)})
TCP = Match.of({"eth_type": (0x86DD, 0xFFFF), "nw_proto": (6, 0xFF)})
FRAGMENT = Match.of({"eth_type": (0x800, 0xFFFF), "nw_proto": (6, 0xFF), "ip_frag": (3, 3)})
TAGGED = Match.of({"vlan_tci": (0x1000, 0x1000)})
PUSH, STRIP = a.PushVlan(), a.StripVlan()
SET_VID = a.SetField("vlan_vid", 0x1005, 0x1FFF)
SET_PORT = a.SetField("tcp_dst", 80, 0xFFFF)
INCONSISTENT = "OFPBAC_MATCH_INCONSISTENT"


def error(actions: a.Actions, match: Match = ANYTHING, version: int = 4) -> str:
    mod = FlowMod(command=FlowCommand.ADD, table_id=3, match=match, actions=actions)
    try:
        check_flow_mod(mod, version)
    except OpenFlowError as refused:
        return refused.code.name
    return ""


@pytest.mark.parametrize(
    ("actions", "match"),
    [
        ((STRIP,), ANYTHING),
        ((STRIP, STRIP), TAGGED),
        ((PUSH, STRIP, STRIP), ANYTHING),
        ((a.Clone((PUSH,)), STRIP), ANYTHING),
        ((a.Clone((STRIP,)),), ANYTHING),
        ((a.SetIpv4Src(1),), TCP),
        ((a.SetIpv4Dst(1),), ANYTHING),
        ((a.SetTos(4),), ANYTHING),
        ((a.SetTtl(4),), ANYTHING),
        ((a.DecTtl(),), ANYTHING),
        ((a.SetTpSrc(4),), IPV4),
        ((a.SetTpDst(4),), FRAGMENT),
    ],
)
def test_from_1_3_on_a_header_must_be_matched_to_be_changed(
    actions: a.Actions, match: Match
) -> None:
    assert error(actions, match) == INCONSISTENT
    assert error(actions, match, version=1) == ""


@pytest.mark.parametrize("version", [1, 4, 6])
@pytest.mark.parametrize(
    ("actions", "match", "expected"),
    [
        ((SET_PORT,), ANYTHING, INCONSISTENT),
        ((SET_PORT,), TCP, ""),
        ((a.Load(a.Subfield("ip_src", 0, 32), 1),), TCP, INCONSISTENT),
        ((a.Move(a.Subfield("ip_src", 0, 8), a.Subfield("reg0", 0, 8)),), TCP, INCONSISTENT),
        ((a.Move(a.Subfield("reg0", 0, 8), a.Subfield("ip_src", 0, 8)),), TCP, INCONSISTENT),
        ((SET_VID,), ANYTHING, INCONSISTENT),
        ((SET_VID,), TAGGED, ""),
        ((PUSH, SET_VID), ANYTHING, ""),
        ((a.SetVlanPcp(3), SET_VID), ANYTHING, ""),
        ((a.Load(a.Subfield("vlan_tci", 0, 16), 0x1001), SET_VID), ANYTHING, ""),
        ((a.Load(a.Subfield("vlan_tci", 12, 1), 0), SET_VID), TAGGED, INCONSISTENT),
        ((PUSH, PUSH), ANYTHING, ""),
        ((PUSH, PUSH), TAGGED, "OFPBAC_BAD_TAG"),
        ((PUSH, PUSH, PUSH), ANYTHING, "OFPBAC_BAD_TAG"),
        ((a.GotoTable(3),), ANYTHING, "OFPBIC_BAD_TABLE_ID"),
        ((a.GotoTable(63),), ANYTHING, ""),
        ((a.GotoTable(64),), ANYTHING, "OFPBIC_BAD_TABLE_ID"),
        ((a.Output(a.Port.TABLE), a.Output(a.Port.IN_PORT), a.Output(0xFEFF)), ANYTHING, ""),
        ((a.Output(0xFF00),), ANYTHING, "OFPBAC_BAD_OUT_PORT"),
        ((a.Output(a.Port.NONE),), ANYTHING, "OFPBAC_BAD_OUT_PORT"),
        ((a.WriteActions((STRIP, a.SetIpv4Src(1), a.Resubmit(None, 2))),), ANYTHING, ""),
        ((a.WriteActions((SET_PORT,)),), ANYTHING, INCONSISTENT),
        ((a.WriteActions((a.Clone(()),)),), ANYTHING, "OFPBAC_BAD_TYPE"),
        ((a.WriteActions((a.Exit(),)),), ANYTHING, "OFPBAC_BAD_TYPE"),
    ],
)
def test_what_every_version_insists_on(
    actions: a.Actions, match: Match, expected: str, version: int
) -> None:
    assert error(actions, match, version) == expected


def test_what_is_merely_inconsistent_comes_last() -> None:
    assert error((a.DecTtl(), a.Output(0xFF00))) == "OFPBAC_BAD_OUT_PORT"


NICIRA = bytes.fromhex("ffff001000002320")
OUTPUT_REG = bytes.fromhex("ffff001800002320000f07c000010004ffff000000000000")
REFUSED: list[tuple[a.Action, str]] = [
    (decode_actions(OUTPUT_REG, 1)[0], "OFPBAC_BAD_VENDOR_TYPE"),
    (a.Unsupported("ct", NICIRA), "OFPBAC_BAD_VENDOR_TYPE"),
    (a.Unsupported("push_mpls", bytes.fromhex("0013000800000000")), "OFPBAC_BAD_TYPE"),
    (a.Meter(1), "OFPMMFC_INVALID_METER"),
    (a.Controller(meter_id=1, extended=True), "OFPMMFC_INVALID_METER"),
    (a.Controller(pause=True, extended=True), "OFPBAC_BAD_ARGUMENT"),
    (a.Resubmit(None, 1, ct=True), "OFPBAC_BAD_VENDOR_TYPE"),
    (a.SetTunnel(4), "OFPBAC_BAD_VENDOR_TYPE"),
    (a.SetField("tun_id", 4, 7), "OFPBAC_BAD_SET_TYPE"),
    (a.Load(a.Subfield("ct_mark", 0, 8), 4), "OFPBAC_BAD_SET_TYPE"),
    (a.Move(a.Subfield("pkt_mark", 0, 8), a.Subfield("reg0", 0, 8)), "OFPBAC_BAD_SET_TYPE"),
]


@pytest.mark.parametrize(("action", "expected"), REFUSED)
def test_what_the_data_plane_will_not_do_is_refused_wherever_it_stands(
    action: a.Action, expected: str
) -> None:
    assert error((action,)) == error((a.Clone((action,)),)) == expected
    if not isinstance(action, a.Meter | a.SetTunnel):
        assert error((a.WriteActions((action,)),)) == expected
        with pytest.raises(OpenFlowError, match=expected):
            check_unmatched((a.Output(1), action))


def test_without_a_match_nothing_is_asked_of_the_packet() -> None:
    check_unmatched((SET_PORT, SET_VID, a.DecTtl(), a.StripVlan()))


def test_matches_need_their_prerequisites_and_a_place_in_the_key() -> None:
    assert error((), TCP) == error((), FRAGMENT) == ""
    without = Match.of({"eth_type": (0x800, 0xFFFF), "tcp_dst": (1, 0xFFFF)})
    assert error((), without) == "OFPBMC_BAD_PREREQ"
    for name in UNKNOWN_FIELDS:
        assert error((), Match.of({name: (0, FIELDS[name].all_ones)})) == "OFPBMC_BAD_FIELD"


@pytest.mark.parametrize("command", FlowCommand)
def test_no_frame_waits_in_a_buffer(command: FlowCommand) -> None:
    """As in Open vSwitch: a flow for one is not added either; a deletion looks at none."""
    mod = FlowMod(command=command, table_id=0, buffer_id=7)
    if command in {FlowCommand.DELETE, FlowCommand.DELETE_STRICT}:
        check_flow_mod(mod, 4)
    else:
        with pytest.raises(OpenFlowError, match="OFPBRC_BUFFER_UNKNOWN"):
            check_flow_mod(mod, 4)


@pytest.mark.parametrize(
    ("action", "expected"),
    [
        (a.GotoTable(1), "OFPBAC_BAD_TYPE"),
        (a.SetField("nd_target", 1, 1), "OFPBAC_BAD_SET_ARGUMENT"),
    ],
)
def test_what_cannot_be_done_with_a_frame_is_refused(action: a.Action, expected: str) -> None:
    with pytest.raises(OpenFlowError, match=expected):
        check_packet_out(PacketOut(actions=(action, a.Output(1)), data=bytes(60)))


def test_what_a_frame_begins_with_is_checked_like_its_actions() -> None:
    begins = Match.of({"reg0": (5, 0xFFFF_FFFF), "tun_id": (5, 0xFF)})
    with pytest.raises(OpenFlowError, match="OFPBAC_BAD_SET_TYPE"):
        check_packet_out(PacketOut(actions=(a.Output(1),), data=bytes(60), metadata=begins))
