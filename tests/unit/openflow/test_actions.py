# SPDX-License-Identifier: Apache-2.0
"""Actions in the words of each version."""

import pytest

from heliograph.openflow import actions as a
from heliograph.openflow.action_decoder import decode_actions
from heliograph.openflow.action_encoder import encode_actions
from heliograph.openflow.codec import Frame, decode, encode
from heliograph.openflow.errors import Code, OpenFlowError
from heliograph.openflow.fields import FIELDS
from heliograph.openflow.flows import PacketOut
from heliograph.openflow.match import Match


@pytest.mark.parametrize("version", [4, 5, 6])
def test_ports_to_set_without_a_protocol_are_said_as_1_1_says_them(version: int) -> None:
    """A flow of 1.0 may set ports of packets of any kind; no field of later versions can."""
    actions = (a.SetTpSrc(5), a.SetTpDst(6))
    for match in (Match(), Match.of({"eth_type": (0x800, 0xFFFF), "nw_proto": (1, 0xFF)})):
        assert decode_actions(encode_actions(actions, version, match), version) == actions


OF_1_1 = [
    (b"\0\1\0\x08\0\5\0\0", a.SetField("vlan_vid", 0x1005, 0x1FFF)),
    (b"\0\2\0\x08\5\0\0\0", a.SetField("vlan_pcp", 5, 7)),
    (b"\0\3\0\x10\0\0\0\0\0\5" + bytes(6), a.SetEthSrc(5)),
    (b"\0\4\0\x10\0\0\0\0\0\5" + bytes(6), a.SetEthDst(5)),
    (b"\0\5\0\x08\0\0\0\5", a.SetIpv4Src(5)),
    (b"\0\6\0\x08\0\0\0\5", a.SetIpv4Dst(5)),
    (b"\0\7\0\x08\x14\0\0\0", a.SetTos(0x14)),
    (b"\0\x08\0\x08\2\0\0\0", a.SetField("nw_ecn", 2, 3)),
    (b"\0\x09\0\x08\0\5\0\0", a.SetTpSrc(5)),
    (b"\0\x0a\0\x08\0\5\0\0", a.SetTpDst(5)),
]


@pytest.mark.parametrize("version", [4, 5, 6])
@pytest.mark.parametrize(("said", "action"), OF_1_1)
def test_actions_of_1_1_are_still_read(version: int, said: bytes, action: a.Action) -> None:
    assert decode_actions(said, version) == (action,)


@pytest.mark.parametrize(
    ("actions", "in_1_0"),
    [
        ((a.PushVlan(), a.SetField("vlan_vid", 0x1005, 0x1FFF)), (a.SetVlanVid(5),)),
        ((a.PushVlan(), a.SetField("vlan_pcp", 3, 7)), (a.SetVlanPcp(3),)),
        ((a.SetField("vlan_vid", 0x1005, 0x1FFF),), None),
        ((a.StripVlan(), a.PushVlan(), a.Output(1)), (a.StripVlan(), a.Output(1))),
        ((a.SetField("eth_dst", 5, (1 << 48) - 1),), (a.SetEthDst(5),)),
        ((a.SetField("eth_dst", 5, 7),), None),
        ((a.SetField("ip_dst", 5, 0xFFFF_FFFF),), (a.SetIpv4Dst(5),)),
        ((a.SetField("ip_dscp", 5, 0x3F),), (a.SetTos(20),)),
        ((a.SetField("udp_src", 5, 0xFFFF),), (a.SetTpSrc(5),)),
        ((a.SetField("nw_ttl", 5, 0xFF),), (a.Load(a.Subfield("nw_ttl", 0, 8), 5),)),
        ((a.SetField("reg1", 5, 0xFFFF_FFFF),), (a.Load(a.Subfield("reg1", 0, 32), 5),)),
        ((a.SetField("xxreg1", 5, (1 << 128) - 1),), None),
        ((a.SetField("tun_erspan_ver", 1, 15),), None),
    ],
)
def test_fields_set_whole_are_told_1_0_in_its_own_words(
    actions: a.Actions, in_1_0: a.Actions | None
) -> None:
    """As Open vSwitch does (None: as they are). A tag comes with its VLAN, which alone would not
    bring it where none is known to be there."""
    udp = Match.of({"eth_type": (0x800, 0xFFFF), "nw_proto": (17, 0xFF)})
    assert decode_actions(encode_actions(actions, 1, udp), 1) == (in_1_0 or actions)
    assert decode_actions(encode_actions(actions, 6, udp), 6) == actions


def test_ports_are_set_in_the_words_of_1_0_only_where_the_protocol_is_matched() -> None:
    """A bucket may meet frames of another one, which `mod_tp_dst` would change."""
    actions = (a.SetField("tcp_dst", 5, 0xFFFF),)
    assert decode_actions(encode_actions(actions, 1), 1) == (
        a.Load(a.Subfield("tcp_dst", 0, 16), 5),
    )


def test_a_frame_of_a_controller_begins_with_nothing_that_comes_of_the_packet() -> None:
    """Of 1.5, whose packet-outs have a match, with the error of Open vSwitch."""
    for name in ("vlan_tci", "eth_dst", "eth_type", "pkt_mark"):
        begins = Match.of({name: (0x1005, FIELDS[name].value_bits)})
        said = encode(PacketOut(actions=(), data=bytes(60), metadata=begins), 6)
        with pytest.raises(OpenFlowError) as caught:
            decode(Frame(6, said[1], 0, said))
        assert caught.value.code is Code.OFPBRC_PIPELINE_FIELDS_ONLY


@pytest.mark.parametrize("version", [1, 4, 6])
def test_a_frame_of_a_controller_comes_by_a_port_that_can_be(version: int) -> None:
    said = {
        port: encode(PacketOut(actions=(), data=bytes(60), in_port=port), version)
        for port in (1, a.Port.LOCAL, a.Port.CONTROLLER, a.Port.NONE, a.Port.IN_PORT, a.Port.ALL)
    }
    for port, data in said.items():
        frame = Frame(version, data[1], 0, data)
        if port in {a.Port.IN_PORT, a.Port.ALL}:
            with pytest.raises(OpenFlowError) as caught:
                decode(frame)
            assert caught.value.code is Code.OFPBRC_BAD_PORT
        else:
            assert isinstance(decode(frame), PacketOut)


def test_a_packet_out_of_1_5_names_its_port() -> None:
    nothing_matched = bytes.fromhex("ffffffff0000" + "0000" + "0001000400000000") + bytes(60)
    head = bytes((6, 13, 0, 8 + len(nothing_matched))) + bytes(4)
    with pytest.raises(OpenFlowError) as caught:
        decode(Frame(6, 13, 0, head + nothing_matched))
    assert caught.value.code is Code.OFPBRC_BAD_PORT


def test_a_field_is_not_set_to_bits_outside_its_mask() -> None:
    """set_field:1.2.3.4/255.0.0.0->ip_src, with the error of Open vSwitch."""
    said = bytes.fromhex("0019001080001708" + "01020304" + "ff000000")
    with pytest.raises(OpenFlowError) as caught:
        decode_actions(said, 6)
    assert caught.value.code is Code.OFPBMC_BAD_WILDCARDS


def test_clones_in_clones_without_end_are_refused() -> None:
    said = bytes.fromhex("0000000800010000")
    for _ in range(900):
        said = (
            b"\xff\xff"
            + (16 + len(said)).to_bytes(2)
            + bytes.fromhex("00002320002a" + "00" * 6)
            + said
        )
    with pytest.raises(OpenFlowError) as caught:
        decode_actions(said, 1)
    assert caught.value.code is Code.OFPBAC_TOO_MANY
