# SPDX-License-Identifier: Apache-2.0
"""What flow tables make of a frame, against frames that scapy makes, and what the recording says
of the way there."""

from collections.abc import Iterator

import pytest
from scapy.layers.inet import ICMP, IP, TCP, UDP, fragment
from scapy.layers.inet6 import (
    ICMPv6EchoRequest,
    ICMPv6ND_NS,
    IPv6,
    IPv6ExtHdrDestOpt,
    IPv6ExtHdrFragment,
    IPv6ExtHdrHopByHop,
    IPv6ExtHdrRouting,
)
from scapy.layers.l2 import ARP, Dot1AD, Dot1Q, Ether
from scapy.packet import Packet, Raw
from tests.oracle.flow_pipeline_program import FlowProgram, bridge, port
from tests.packet.flows import add, group

from heliograph.kernel.dataplane import DataPlane
from heliograph.kernel.layouts import EventKind, OpCode, PortFlags, Reason
from heliograph.openflow import actions as a
from heliograph.openflow.actions import Port
from heliograph.openflow.flows import GroupType
from heliograph.openflow.match import Match

ETHER = Ether(src="02:00:00:00:00:01", dst="02:00:00:00:00:02")
BODY = Raw(b"payload of odd size")
V4, V6 = IP(src="10.0.0.1", dst="10.0.0.2", id=7), IPv6(src="fd00::1", dst="fd00::2")
ONE, NEW4 = 0xC0000201, "192.0.2.1"
NEW6, ONES = "2001:db8::7", (1 << 128) - 1
SIX = 0x20010DB8000000000000000000000007


@pytest.fixture(scope="module")
def program(plane: DataPlane) -> Iterator[FlowProgram]:
    made = FlowProgram(plane)
    yield made
    made.close()


def sent(program: FlowProgram, data: bytes, in_port: int = 1) -> list[bytes]:
    events = program.events(in_port, data)
    assert events is not None
    return [event.image for event in events if event.kind == EventKind.EVENT_OUTPUT]


def reasons(program: FlowProgram, data: bytes, in_port: int = 1) -> list[Reason]:
    events = program.events(in_port, data)
    assert events is not None
    return [event.reason for event in events if event.kind == EventKind.EVENT_DROP]


def ip(layer: Packet, **fields: object) -> Packet:
    """The layer, an IP header, with these fields."""
    made = layer.copy()
    for name, value in fields.items():
        setattr(made, name, value)
    return made


def set_field(name: str, value: int, bits: int) -> a.SetField:
    return a.SetField(name, value, (1 << bits) - 1)


# Actions as of OpenFlow 1.0, for any packet; before and after.
CHANGES: list[tuple[str, a.Actions, Packet, Packet]] = [
    ("source", (a.SetIpv4Src(ONE),), V4 / TCP() / BODY, ip(V4, src=NEW4) / TCP() / BODY),
    ("target", (a.SetIpv4Dst(ONE),), V4 / UDP() / BODY, ip(V4, dst=NEW4) / UDP() / BODY),
    ("icmp", (a.SetIpv4Dst(ONE),), V4 / ICMP() / BODY, ip(V4, dst=NEW4) / ICMP() / BODY),
    (
        "no checksum",
        (a.SetIpv4Dst(ONE), a.SetTpDst(99)),
        V4 / UDP(chksum=0) / BODY,
        ip(V4, dst=NEW4) / UDP(chksum=0, dport=99) / BODY,
    ),
    (
        "options",
        (a.SetTos(0xB8),),
        ip(V4, options=b"\1" * 8) / UDP(),
        ip(V4, options=b"\1" * 8, tos=0xB8) / UDP(),
    ),
    ("ecn stays", (a.SetTos(0x20),), ip(V4, tos=0xB9) / UDP(), ip(V4, tos=0x21) / UDP()),
    ("tos of IPv6", (a.SetTos(0x20),), ip(V6, tc=0xB9) / UDP(), ip(V6, tc=0x21) / UDP()),
    ("ttl", (a.DecTtl(), a.DecTtl()), ip(V4, ttl=3) / TCP(), ip(V4, ttl=1) / TCP()),
    ("hop limit", (a.DecTtl(),), ip(V6, hlim=2) / TCP(), ip(V6, hlim=1) / TCP()),
    (
        "port of TCP",
        (a.SetTpSrc(1), a.SetTpDst(2)),
        V4 / TCP() / BODY,
        V4 / TCP(sport=1, dport=2) / BODY,
    ),
    (
        "port of UDP",
        (a.SetTpSrc(1), a.SetTpDst(2)),
        V6 / UDP() / BODY,
        V6 / UDP(sport=1, dport=2) / BODY,
    ),
    ("no port of ICMP", (a.SetTpSrc(1),), V4 / ICMP() / BODY, V4 / ICMP() / BODY),
    ("no IPv4", (a.SetIpv4Src(1), a.SetTos(4), a.DecTtl()), ARP(), ARP()),
    (
        "behind options",
        (a.SetTpDst(5),),
        V6 / IPv6ExtHdrHopByHop() / IPv6ExtHdrDestOpt() / UDP() / BODY,
        V6 / IPv6ExtHdrHopByHop() / IPv6ExtHdrDestOpt() / UDP(dport=5) / BODY,
    ),
]


@pytest.mark.parametrize(
    ("actions", "before", "after"), [c[1:] for c in CHANGES], ids=[c[0] for c in CHANGES]
)
def test_changes(program: FlowProgram, actions: a.Actions, before: Packet, after: Packet) -> None:
    program.start()
    program.change([add(*actions, a.Output(2))], version=1)
    assert not program.refused
    for head in (ETHER, ETHER / Dot1Q(vlan=5, prio=3), ETHER / Dot1AD(vlan=5, prio=3)):
        assert sent(program, bytes(head / before)) == [bytes(head / after)]


def matching(**exact: int) -> Match:
    bits = {"eth_type": 16, "nw_proto": 8, "icmpv6_type": 8, "icmpv6_code": 8}
    return Match.of({name: (value, (1 << bits[name]) - 1) for name, value in exact.items()})


IPV6, TCP6 = matching(eth_type=0x86DD), matching(eth_type=0x86DD, nw_proto=6)
ICMP4, ICMP6 = matching(eth_type=0x800, nw_proto=1), matching(eth_type=0x86DD, nw_proto=58)
# With the match that they need.
FIELDS: list[tuple[str, Match, a.Action, Packet, Packet]] = [
    (
        "IPv6 source",
        IPV6,
        set_field("ipv6_src", SIX, 128),
        V6 / TCP() / BODY,
        ip(V6, src=NEW6) / TCP() / BODY,
    ),
    (
        "IPv6 target",
        IPV6,
        set_field("ipv6_dst", SIX, 128),
        V6 / UDP() / BODY,
        ip(V6, dst=NEW6) / UDP() / BODY,
    ),
    (
        "ICMPv6",
        IPV6,
        set_field("ipv6_dst", SIX, 128),
        V6 / ICMPv6EchoRequest(data=b"abc"),
        ip(V6, dst=NEW6) / ICMPv6EchoRequest(data=b"abc"),
    ),
    (
        "neighbour",
        IPV6,
        set_field("ipv6_src", SIX, 128),
        V6 / ICMPv6ND_NS(tgt="fd00::9"),
        ip(V6, src=NEW6) / ICMPv6ND_NS(tgt="fd00::9"),
    ),
    ("label", IPV6, set_field("ipv6_label", 0xABCDE, 20), V6 / TCP(), ip(V6, fl=0xABCDE) / TCP()),
    ("TCP port", TCP6, set_field("tcp_dst", 7, 16), V6 / TCP() / BODY, V6 / TCP(dport=7) / BODY),
    ("type", ICMP4, set_field("icmp_type", 3, 8), V4 / ICMP() / BODY, V4 / ICMP(type=3) / BODY),
    (
        "type of ICMPv6",
        ICMP6,
        set_field("icmpv6_code", 4, 8),
        V6 / ICMPv6EchoRequest(data=b"ab"),
        V6 / ICMPv6EchoRequest(code=4, data=b"ab"),
    ),
    (
        "ARP",
        matching(eth_type=0x806),
        set_field("arp_spa", ONE, 32),
        ARP(psrc="10.0.0.1", pdst="10.0.0.2"),
        ARP(psrc=NEW4, pdst="10.0.0.2"),
    ),
]


@pytest.mark.parametrize(
    ("match", "action", "before", "after"), [f[1:] for f in FIELDS], ids=[f[0] for f in FIELDS]
)
def test_fields(
    program: FlowProgram, match: Match, action: a.Action, before: Packet, after: Packet
) -> None:
    program.start()
    program.change([add(action, a.Output(2), match=match)])
    assert not program.refused
    for head in (ETHER, ETHER / Dot1Q(vlan=5)):
        assert sent(program, bytes(head / before)) == [bytes(head / after)]


def test_later_fragments_have_no_ports_and_no_checksum(program: FlowProgram) -> None:
    program.start()
    program.change([add(a.SetIpv4Dst(ONE), a.SetTpDst(7), a.Output(2))], version=1)
    whole = V4 / UDP(sport=1, dport=2) / Raw(bytes(range(256)) * 4)
    want = ip(V4, dst=NEW4) / UDP(sport=1, dport=7) / Raw(bytes(range(256)) * 4)
    for before, after in zip(fragment(whole, 400), fragment(want, 400), strict=True):
        assert sent(program, bytes(ETHER / before)) == [bytes(ETHER / after)[:256]]


def test_later_fragments_of_ipv6(program: FlowProgram) -> None:
    program.start()
    program.change([add(set_field("ipv6_dst", SIX, 128), a.Output(2), match=IPV6)])
    later = IPv6ExtHdrFragment(nh=17, offset=9) / Raw(bytes(range(80)))
    want = bytes(ETHER / ip(V6, dst=NEW6) / later)
    assert sent(program, bytes(ETHER / V6 / later)) == [want]


@pytest.mark.parametrize("left", [0, 1])
def test_the_checksum_covers_the_last_stop_of_a_routing_header(
    program: FlowProgram, left: int
) -> None:
    """RFC 8200, 8.1: with segments left that is not in the header's destination."""
    program.start()
    program.change([add(set_field("ipv6_dst", SIX, 128), a.Output(2), match=IPV6)])
    stops = IPv6ExtHdrRouting(addresses=["fd00::9"], segleft=left)
    before = bytes(ETHER / V6 / stops / UDP() / BODY)
    want = bytes(ETHER / ip(V6, dst=NEW6) / stops / UDP() / BODY)
    assert sent(program, before) == [want]


@pytest.mark.parametrize("offset", [4, 12])
def test_ports_of_a_tcp_header_that_lies_about_its_length(
    program: FlowProgram, offset: int
) -> None:
    """As in Open vSwitch, they match, and stay."""
    program.start()
    port_80 = Match.of(
        {"eth_type": (0x800, 0xFFFF), "nw_proto": (6, 0xFF), "tcp_dst": (80, 0xFFFF)}
    )
    program.change([add(a.SetTpDst(7), a.Output(2), match=port_80)], version=1)
    before = bytes(ETHER / V4 / TCP(dport=80, dataofs=offset))
    assert sent(program, before) == [before]


@pytest.mark.parametrize("tags", [0, 1, 2])
def test_tags(program: FlowProgram, tags: int) -> None:
    """Each output has the tags that the frame has then, and what is behind them as it came."""
    heads = [ETHER, ETHER / Dot1Q(vlan=5, prio=3), ETHER / Dot1AD(vlan=5, prio=3) / Dot1Q(vlan=6)]
    inner = V4 / UDP() / BODY
    program.start()
    changes = (a.StripVlan(), a.SetVlanVid(9), a.SetVlanPcp(1))
    program.change([add(*(x for c in changes for x in (c, a.Output(2))))], version=1)
    left = [inner, inner, Dot1Q(vlan=6) / inner][tags]
    assert sent(program, bytes(heads[tags] / inner)) == [
        bytes(ETHER / left),
        bytes(ETHER / Dot1Q(vlan=9) / left),
        bytes(ETHER / Dot1Q(vlan=9, prio=1) / left),
    ]
    program.start()
    push = (a.PushVlan(0x88A8), a.SetField("vlan_vid", 0x1007, 0x1FFF), a.Output(3))
    program.change([add(*push, a.StripVlan(), a.Output(2))])
    want = (
        ETHER / Dot1AD(vlan=7) / heads[tags].payload / inner
        if tags
        else ETHER / Dot1AD(vlan=7) / inner
    )
    assert sent(program, bytes(heads[tags] / inner)) == [bytes(want), bytes(heads[tags] / inner)]


def test_the_drop_eligible_bit_stays_with_a_tag_that_stays(program: FlowProgram) -> None:
    program.start()
    program.change(
        [add(a.Output(2), a.DecTtl(), a.Output(3), a.SetVlanVid(9), a.Output(4))], version=1
    )
    before = ETHER / Dot1Q(vlan=5, dei=1) / V4 / UDP()
    assert sent(program, bytes(before)) == [
        bytes(before),
        bytes(ETHER / Dot1Q(vlan=5, dei=1) / ip(V4, ttl=63) / UDP()),
        bytes(ETHER / Dot1Q(vlan=9) / ip(V4, ttl=63) / UDP()),
    ]


@pytest.mark.parametrize("to", [2, Port.IN_PORT, Port.LOCAL])
def test_max_len_cuts_one_output(program: FlowProgram, to: int) -> None:
    program.start()
    program.change([add(a.Output(3), a.Output(to, 40), a.Output(3))])
    for head in (ETHER, ETHER / Dot1Q(vlan=5)):
        frame = bytes(head / V4 / UDP() / Raw(bytes(100)))
        assert sent(program, frame) == [frame, frame[:40], frame]


def test_the_recording_names_tables_flows_and_actions(program: FlowProgram) -> None:
    program.start()
    program.change(
        [
            add(a.SetField("reg0", 1, 0xFF), a.Resubmit(None, 3), a.GotoTable(5)),
            add(a.DecTtl(), a.Output(2), table=3, match=matching(eth_type=0x800)),
        ]
    )
    events = program.events(1, bytes(ETHER / V4 / UDP()))
    assert events is not None
    ids = {flow.table_id: flow.id for flow in program.tables.flows.values()}
    steps = [
        (e.table, None if e.rule is None else program.store.rule_at(e.rule))
        if e.action is None
        else e.action
        for e in events
        if e.kind in {EventKind.EVENT_FLOW, EventKind.EVENT_ACTION}
    ]
    assert steps == [
        (0, ids[0]),
        OpCode.OP_SET,
        OpCode.OP_RESUBMIT,
        (3, ids[3]),
        OpCode.OP_DEC_TTL,
        OpCode.OP_OUTPUT,
        OpCode.OP_GOTO,
        (5, None),
    ]


@pytest.mark.parametrize(
    ("actions", "reason"),
    [
        ((), Reason.DROP_FLOW),
        ((a.Output(1),), Reason.DROP_FLOW),  # where it came in
        ((a.Output(9),), Reason.DROP_FLOW),  # no such port
        ((a.GotoTable(7),), Reason.DROP_NO_FLOW),
        ((a.Resubmit(None, 7),), Reason.DROP_FLOW),
    ],
)
def test_why_a_frame_goes_nowhere(program: FlowProgram, actions: a.Actions, reason: Reason) -> None:
    frame = bytes(ETHER / V4 / UDP())
    program.start()
    assert reasons(program, frame) == [Reason.DROP_NO_FLOW]
    program.change([add(*actions)])
    assert reasons(program, frame) == [reason]


def test_what_is_told_to_controllers_is_not_dropped(program: FlowProgram) -> None:
    program.start()
    program.change([add(a.Controller())])
    assert reasons(program, bytes(ETHER / V4 / UDP())) == []
    program.change([add(a.DecTtl())], version=1)
    assert reasons(program, bytes(ETHER / ip(V4, ttl=1) / UDP())) == []
    assert reasons(program, bytes(ETHER / ip(V4, ttl=2) / UDP())) == [Reason.DROP_FLOW]


def test_no_flood_ports_and_groups(program: FlowProgram) -> None:
    program.start(bridge(ports=[port(3, config=PortFlags.PORT_NO_FLOOD)]))
    program.change([group(1, GroupType.ALL, (a.Output(Port.FLOOD),)), add(a.Group(1))])
    frame = bytes(ETHER / V4 / UDP())
    assert len(sent(program, frame)) == 3
    program.change([add(a.Output(Port.ALL))])
    assert len(sent(program, frame)) == 4
