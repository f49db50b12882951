# SPDX-License-Identifier: Apache-2.0
"""Actions as ops: each action once, what frames need for it, and what clears (rules 28 and 29)."""

from typing import Any

import pytest

from heliograph.flows.compile_actions import Origin, compile_actions
from heliograph.kernel.layouts import KeyWord, Op, OpCode, OpFlags, OpNeed
from heliograph.openflow import actions as a
from heliograph.openflow.actions import Load, Move, Output, Port, SetField, Subfield
from heliograph.openflow.errors import OpenFlowError
from heliograph.openflow.match import Match

TCP = Match.of({"eth_type": (0x800, 0xFFFF), "nw_proto": (6, 0xFF)})
SCTP = Match.of({"eth_type": (0x800, 0xFFFF), "nw_proto": (132, 0xFF)})
_LONG = (1 << 64) - 1
_MAC = (1 << 48) - 1


def said(op: Op) -> dict[str, Any]:
    """What of an op is not 0, numbers by name."""
    fields: dict[str, Any] = {name: value for name, value in op._asdict().items() if value}
    fields["code"] = OpCode(op.code).name.removeprefix("OP_")
    if op.need:
        fields["need"] = OpNeed(op.need).name.removeprefix("NEED_")
    if op.code in {OpCode.OP_SET, OpCode.OP_MOVE}:
        fields["word"] = KeyWord(op.word).name if op.word < KeyWord.KEY_REGISTERS else op.word
    if fields.pop("flags", 0) & OpFlags.OP_CLEARS:
        fields["clears"] = True
    return fields


def ops(*actions: a.Action, match: Match | None = TCP, **more: Any) -> list[dict[str, Any]]:
    return [said(op) for op in compile_actions(actions, match, **more).ops]


def refused(*actions: a.Action, match: Match | None = TCP) -> str:
    with pytest.raises(OpenFlowError) as caught:
        compile_actions(actions, match)
    return caught.value.code.name


def of(code: str, **fields: Any) -> dict[str, Any]:
    return {"code": code, **fields}


@pytest.mark.parametrize(
    ("action", "op"),
    [
        (Output(7), of("OUTPUT", a=7)),
        (Output(7, 64), of("OUTPUT", a=7, b=64)),
        (Output(Port.LOCAL), of("OUTPUT", a=65534)),
        (Output(Port.IN_PORT), of("IN_PORT")),
        (Output(Port.NORMAL), of("NORMAL")),
        (Output(Port.FLOOD), of("FLOOD")),
        (Output(Port.ALL), of("ALL")),
        (Output(Port.TABLE), of("RESUBMIT", a=0xFFFF)),
        (a.Controller(128), of("CONTROLLER", a=0xFFFF, b=1)),
        (a.Controller(128, reason=0), of("CONTROLLER", a=0xFFFF)),
        (a.Controller(reason=0, extended=True), of("CONTROLLER", a=0xFFFF)),
        (a.Group(5), of("GROUP", a=5)),
        (a.Resubmit(3, None), of("RESUBMIT", a=3, b=0xFF)),
        (a.Resubmit(None, 9), of("RESUBMIT", a=0xFFFF, b=9)),
        (a.GotoTable(4), of("GOTO", b=4)),
        (a.Exit(), of("EXIT")),
        (a.PushVlan(0x88A8), of("PUSH_VLAN", a=0x88A8, clears=True)),
        (a.StripVlan(), of("POP_VLAN", clears=True)),
        (a.SetVlanVid(5), of("SET_VLAN", value=0x1005, mask=0x1FFF, clears=True)),
        (a.SetVlanPcp(5), of("SET_VLAN", value=0xB000, mask=0xF000, clears=True)),
        (a.DecTtl(), of("DEC_TTL", need="IP", clears=True)),
    ],
)
def test_actions_that_are_one_op(action: a.Action, op: dict[str, Any]) -> None:
    assert ops(action) == [op]


def set_op(word: str | int, value: int, mask: int, need: str = "", **more: Any) -> dict[str, Any]:
    fields = {"word": word, "value": value, "mask": mask, "need": need, **more}
    return {"code": "SET", **{name: said for name, said in fields.items() if said}}


@pytest.mark.parametrize(
    ("action", "op"),
    [
        (a.SetEthSrc(5), set_op("KEY_ETH_SRC", 5 << 16, _MAC << 16, clears=True)),
        (a.SetEthDst(5), set_op("KEY_ETH_DST", 5 << 16, _MAC << 16, clears=True)),
        (a.SetIpv4Src(5), set_op("KEY_IPV4", 5 << 32, 0xFFFFFFFF << 32, "IPV4", clears=True)),
        (a.SetIpv4Dst(5), set_op("KEY_IPV4", 5, 0xFFFFFFFF, "IPV4", clears=True)),
        (a.SetTos(0x48), set_op("KEY_ETH_SRC", 0x4800, 0xFC00, "IP", clears=True)),
        (SetField("ip_dscp", 18, 63), set_op("KEY_ETH_SRC", 0x4800, 0xFC00, "IP", clears=True)),
        (SetField("nw_ecn", 2, 3), set_op("KEY_ETH_SRC", 0x200, 0x300, "IP", clears=True)),
        (a.SetTtl(9), set_op("KEY_ETH_SRC", 9, 0xFF, "IP", clears=True)),
        (a.SetTpSrc(80), set_op("KEY_L4", 80 << 48, 0xFFFF << 48, "PORTS", clears=True)),
        (a.SetTpDst(80), set_op("KEY_L4", 80 << 32, 0xFFFF << 32, "PORTS", clears=True)),
        (
            SetField("udp_dst", 80, 0xFFFF),
            set_op("KEY_L4", 80 << 32, 0xFFFF << 32, "UDP", clears=True),
        ),
        (
            SetField("icmp_code", 3, 0xFF),
            set_op("KEY_L4", 3 << 32, 0xFF << 32, "ICMP", clears=True),
        ),
        (SetField("arp_op", 2, 0xFFFF), set_op("KEY_ETH_DST", 0x200, 0xFF00, "ARP", clears=True)),
        (SetField("in_port", 9, 0xFFFF), set_op("KEY_PORT", 9 << 32, 0xFFFF << 32)),
        (a.WriteMetadata(0xF5, 7), set_op("KEY_METADATA", 5, 7)),
        (Load(Subfield("reg1", 4, 8), 0xAB), set_op(10, 0xAB0, 0xFF0)),
        (Load(Subfield("xreg3", 0, 64), 7), set_op(13, 7, _LONG)),
    ],
)
def test_writes_of_a_field(action: a.Action, op: dict[str, Any]) -> None:
    """Rule 29: metadata, registers and in_port are no headers, so to write them clears nothing."""
    assert ops(action) == [op]


def test_a_wide_field_is_two_ops_of_which_the_first_clears() -> None:
    address = 1 << 127 | 5
    assert ops(SetField("ipv6_dst", address, (1 << 128) - 1)) == [
        set_op("KEY_IPV6_DST_LOW", 5, _LONG, "IPV6", clears=True),
        set_op("KEY_IPV6_DST", 1 << 63, _LONG, "IPV6"),
    ]
    assert ops(SetField("xxreg1", 3 << 64, 0xF << 64)) == [set_op(12, 3, 0xF)]


def test_the_bit_that_says_there_is_a_tag() -> None:
    """With it a tag comes, without it the tag goes; where it is not written there must be one."""
    port = KeyWord.KEY_PORT.name
    assert ops(SetField("vlan_vid", 0x1009, 0x1FFF)) == [
        of("SET_VLAN", value=0x1009, mask=0x1FFF, clears=True)
    ]
    assert ops(SetField("vlan_tci", 0, 0xFFFF)) == [of("SET", word=port, mask=0xFFFF, clears=True)]
    assert ops(Load(Subfield("vlan_tci", 0, 12), 9)) == [
        of("SET_VLAN", need="VLAN", value=9, mask=0xFFF, clears=True)
    ]
    assert ops(SetField("vlan_pcp", 5, 7)) == [
        of("SET_VLAN", need="VLAN", value=0xA000, mask=0xE000, clears=True)
    ]


def test_dec_ttl_clears_where_it_does_nothing_too() -> None:
    assert ops(a.DecTtl(), match=Match()) == [
        of("NOTHING", clears=True),
        of("DEC_TTL", need="IP", clears=True),
    ]
    told = compile_actions((a.DecTtl((1, 5)),)).tells
    assert [c.controller_id for c in told[1]] == [1, 5]


def move(source: tuple[str, int], target: tuple[str, int], bits: int) -> Move:
    return Move(Subfield(*source, bits), Subfield(*target, bits))


def test_moves_do_not_clear_and_are_cut_where_words_end() -> None:
    assert ops(move(("eth_src", 8), ("reg1", 0), 32)) == [
        of("MOVE", word=10, from_word=2, from_shift=24, bits=32)
    ]
    assert ops(move(("ipv6_src", 32), ("xxreg0", 0), 64), match=None) == [
        of("MOVE", need="IPV6", word=11, from_word=6, from_shift=32, bits=32),
        of("MOVE", need="IPV6", word=11, shift=32, from_word=5, bits=32),
    ]


def test_a_move_within_a_register_reads_before_it_writes() -> None:
    up = ops(move(("xxreg0", 0), ("xxreg0", 32), 96))
    down = ops(move(("xxreg0", 32), ("xxreg0", 0), 96))
    assert [(op["word"], op.get("shift", 0)) for op in up] == [(10, 32), (10, 0), (11, 32)]
    assert [(op["word"], op.get("shift", 0)) for op in down] == [(11, 0), (11, 32), (10, 0)]


def test_bits_that_the_key_does_not_have_are_moved_as_zeros() -> None:
    """arp_op has 8 bits in the key; of nw_tos the lower two are not read."""
    assert ops(move(("arp_op", 0), ("reg0", 0), 16), match=None) == [
        of("MOVE", need="ARP", word=10, shift=32, from_word=1, from_shift=8, bits=8),
        of("SET", need="ARP", word=10, mask=0xFF << 40),
    ]
    assert ops(move(("nw_tos", 0), ("reg1", 0), 8)) == [
        of("MOVE", word=10, shift=2, from_word=2, from_shift=10, bits=6),
        of("SET", word=10, mask=3),
    ]


def test_a_move_asks_for_both_fields_where_no_match_has() -> None:
    tcp = move(("ip_src", 0), ("tcp_dst", 0), 16)
    assert refused(tcp, match=None) == "OFPBAC_MATCH_INCONSISTENT"
    assert [op.get("need") for op in ops(tcp)] == ["TCP"]  # a later fragment has no ports
    assert [op.get("need") for op in ops(move(("ip_src", 0), ("ip_dst", 0), 16))] == [None]
    assert ops(move(("nw_ttl", 0), ("tcp_dst", 0), 8), match=None)[0]["need"] == "TCP"
    assert ops(move(("reg0", 0), ("vlan_vid", 0), 12), match=None)[0]["need"] == "VLAN"


def test_clones_are_flat() -> None:
    inner = a.Clone((Output(2), a.Clone((Output(3),)), a.Note(b"")))
    assert ops(Output(1), inner, Output(4)) == [
        of("OUTPUT", a=1),
        of("CLONE", a=3),
        of("OUTPUT", a=2),
        of("CLONE", a=1),
        of("OUTPUT", a=3),
        of("OUTPUT", a=4),
    ]


def nested(depth: int) -> a.Action:
    action: a.Action = Output(1)
    for _ in range(depth):
        action = a.Clone((action,))
    return action


def test_only_so_many_clones_in_one_another() -> None:
    assert len(ops(nested(8))) == 9
    assert refused(nested(9)) == "OFPBAC_TOO_MANY"
    with pytest.raises(OpenFlowError):
        compile_actions((nested(8),), None, Origin.BUCKET)


def test_a_list_that_no_frame_comes_to_the_end_of_is_refused() -> None:
    wide = SetField("xxreg0", 0, (1 << 128) - 1)
    assert len(ops(*[wide] * 2048)) == 4096
    assert refused(*[wide] * 2048, Output(1)) == "OFPBAC_TOO_MANY"


def test_a_packet_out_to_the_tables_misses_like_a_frame_that_came_in() -> None:
    out: dict[str, Any] = {"match": None, "origin": Origin.PACKET_OUT}
    assert ops(a.StripVlan(), Output(Port.TABLE), **out)[1] == of("GOTO")
    assert ops(Output(Port.TABLE), Output(1), **out)[0] == of("RESUBMIT", a=0xFFFF)
    assert ops(a.Controller(), **out) == [of("CONTROLLER", a=0xFFFF, b=5)]


def test_what_does_nothing_is_no_op() -> None:
    """Of an action set that is always empty nothing is left to clear."""
    nothing = a.Note(b"\0" * 6), a.ClearActions(), a.WriteActions(()), Output(Port.NONE)
    assert ops(*nothing) == []


@pytest.mark.parametrize(
    ("action", "code"),
    [
        (a.WriteActions((Output(1),)), "OFPBIC_UNSUP_INST"),
        (SetField("nd_target", 1, 1), "OFPBAC_BAD_SET_ARGUMENT"),
        (Load(Subfield("nd_sll", 0, 48), 1), "OFPBAC_BAD_SET_ARGUMENT"),
        (move(("eth_src", 0), ("nd_tll", 0), 48), "OFPBAC_BAD_SET_ARGUMENT"),
        (SetField("sctp_src", 1, 0xFFFF), "OFPBAC_BAD_SET_ARGUMENT"),
        (SetField("tcp_flags", 1, 1), "OFPBAC_BAD_SET_ARGUMENT"),
        (SetField("nw_proto", 1, 1), "OFPBAC_BAD_SET_ARGUMENT"),
        (SetField("eth_type", 1, 1), "OFPBAC_BAD_SET_ARGUMENT"),
        (Load(Subfield("arp_op", 8, 8), 1), "OFPBAC_BAD_SET_ARGUMENT"),
        (move(("reg0", 0), ("arp_op", 0), 16), "OFPBAC_BAD_SET_ARGUMENT"),
        (SetField("tun_id", 1, 1), "OFPBAC_BAD_SET_TYPE"),
        (move(("tun_id", 0), ("reg0", 0), 8), "OFPBAC_BAD_SET_TYPE"),
        (a.Resubmit(None, 64), "OFPBAC_BAD_ARGUMENT"),
        (a.Resubmit(0xFFFF, None), "OFPBAC_BAD_ARGUMENT"),
        (a.Unsupported("learn", b""), "OFPBAC_BAD_TYPE"),
        (a.Meter(1), "OFPBAC_BAD_TYPE"),
    ],
)
def test_what_is_not_done_is_refused(action: a.Action, code: str) -> None:
    assert refused(action) == code
    assert refused(a.Clone((action,))) == code


def test_ports_of_sctp_are_refused_where_the_match_says_so() -> None:
    assert refused(a.SetTpDst(5), match=SCTP) == "OFPBAC_BAD_SET_ARGUMENT"
    assert ops(a.SetTpSrc(5))
