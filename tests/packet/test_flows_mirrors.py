# SPDX-License-Identifier: Apache-2.0
"""Mirrors of a bridge with flow tables: rules 5 to 9, 25 to 32, 34, 35, 54, and D7, D9, byte for
byte. What changed frames are to be is made by scapy."""

from collections.abc import Iterator

import pytest
from scapy.layers.inet import IP, TCP
from scapy.layers.l2 import Dot1Q, Ether
from tests.oracle.flow_pipeline_program import (
    NUMBERS,
    OFPORTS,
    SLOT,
    FlowProgram,
    bridge,
    port,
    run_random_mirrored,
)
from tests.packet.flows import IP as IPV4
from tests.packet.flows import TCP as TCP4
from tests.packet.flows import add, group

from heliograph.kernel.dataplane import DataPlane
from heliograph.kernel.layouts import EventKind, PortFlags, Reason, VlanMode
from heliograph.kernel.snapshot import MirrorEntry
from heliograph.openflow import actions as a
from heliograph.openflow.actions import Port
from heliograph.openflow.flows import GroupType

SEED = 20_261_121
TABLES, FRAMES = 120, 25
LOCAL = int(Port.LOCAL)
Sent = list[tuple[int, int | None, bytes]]  # ofport, mirror, frame


def frame(ttl: int = 64, vlan: int | None = None, **fields: int | str) -> bytes:
    """TCP, with the fields of Ether, IP and TCP that are given."""
    ether = Ether(src=fields.get("src", "02:00:00:00:00:01"), dst="02:00:00:00:00:02")
    tag = ether if vlan is None else ether / Dot1Q(vlan=vlan)
    ip = IP(src="10.0.0.1", dst=fields.get("to", "10.0.0.2"), ttl=ttl)
    return bytes(tag / ip / TCP(dport=fields.get("dport", 80)) / b"payload")


PLAIN = frame()


def mirror(
    number: int,
    output: int,
    *,
    src: list[int] | None = None,
    dst: list[int] | None = None,
    vlans: list[int] | None = None,
    snaplen: int = 0,
) -> MirrorEntry:
    """By ofports."""
    return MirrorEntry(
        number=number,
        slot=SLOT * 32 + number,
        sources=frozenset(NUMBERS[n] for n in src or ()),
        destinations=frozenset(NUMBERS[n] for n in dst or ()),
        vlans=frozenset(vlans or ()),
        output_port=NUMBERS[output],
        snaplen=snaplen,
    )


@pytest.fixture(scope="module")
def program(plane: DataPlane) -> Iterator[FlowProgram]:
    made = FlowProgram(plane)
    yield made
    made.close()


def run(program: FlowProgram, data: bytes = PLAIN, in_port: int = 1) -> Sent:
    """What leaves, in order."""
    events = program.events(in_port, data)
    assert events is not None
    return [
        (OFPORTS[event.port], event.mirror, event.image)
        for event in events
        if event.kind == EventKind.EVENT_OUTPUT and event.reason == Reason.DELIVERED
    ]


def reasons(program: FlowProgram, data: bytes = PLAIN, in_port: int = 1) -> list[Reason]:
    events = program.events(in_port, data)
    assert events is not None
    return [event.reason for event in events if event.kind == EventKind.EVENT_DROP]


def test_rule_4_what_no_flow_matches_is_mirrored_on_ingress(program: FlowProgram) -> None:
    program.start(bridge(mirror(0, 4, src=[1])))
    assert run(program) == [(4, 0, PLAIN)]
    assert reasons(program) == [Reason.DROP_NO_FLOW]
    program.change([add()])
    assert run(program) == [(4, 0, PLAIN)]
    assert reasons(program) == [Reason.DROP_FLOW]


def test_rules_5_and_34_as_received_and_as_output(program: FlowProgram) -> None:
    """The ingress copy knows nothing of what flows do; the egress copy has all of it."""
    program.start(bridge(mirror(0, 4, src=[1]), mirror(1, 3, dst=[2])))
    program.change(
        [
            add(
                a.SetTtl(9),
                a.SetTpDst(8080),
                a.SetVlanVid(5),
                a.Output(2),
                match=IPV4,
            )
        ],
        version=1,
    )
    changed = frame(ttl=9, dport=8080, vlan=5)
    assert run(program) == [(4, 0, PLAIN), (2, None, changed), (3, 1, changed)]


def test_rule_6_a_port_that_is_loaded_is_not_where_it_came_in(program: FlowProgram) -> None:
    program.start(bridge(mirror(0, 4, src=[1])))
    program.change([add(a.Load(a.Subfield("in_port", 0, 16), 2), a.Output(1))])
    assert run(program) == [(4, 0, PLAIN), (1, None, PLAIN)]
    assert run(program, in_port=2) == [(1, None, PLAIN)]


@pytest.mark.parametrize(
    ("actions", "outputs"),
    [
        ((a.Output(2),), 1),
        ((a.Output(Port.NORMAL),), 1),
        ((a.Output(Port.FLOOD),), 1),
        ((a.Output(Port.ALL),), 1),
        ((a.Load(a.Subfield("in_port", 0, 16), 2), a.Output(Port.IN_PORT)), 1),
        ((a.Group(1),), 1),
        ((a.Output(2), a.Output(2)), 2),
        ((a.Clone((a.Output(2),)),), 1),
        ((a.Resubmit(None, 1),), 1),
        ((a.GotoTable(1),), 1),
        ((a.Controller(),), 0),
    ],
)
def test_rule_7_every_way_of_outputting(
    program: FlowProgram, actions: a.Actions, outputs: int
) -> None:
    program.start(bridge(mirror(0, 4, dst=[2])))
    program.change(
        [
            group(1, GroupType.ALL, (a.Output(2),)),
            add(a.Output(2), table=1),
            add(*actions),
        ]
    )
    assert not program.refused
    sent = run(program)
    assert [s for s in sent if s[0] == 2] == [(2, None, PLAIN)] * outputs
    assert [s for s in sent if s[0] == 4] == [(4, 0, PLAIN)] * bool(outputs)  # D9


def test_rule_7_to_local(program: FlowProgram) -> None:
    program.start(bridge(mirror(0, 4, dst=[LOCAL])))
    program.change([add(a.Output(LOCAL))])
    assert run(program) == [(LOCAL, None, PLAIN), (4, 0, PLAIN)]


def test_rule_8_what_is_refused_has_no_copies(program: FlowProgram) -> None:
    mirrors = mirror(0, 4, dst=[2]), mirror(1, 3, dst=[7] if 7 in NUMBERS else [2])
    no_forward = port(2, config=PortFlags.PORT_NO_FORWARD)
    program.start(bridge(*mirrors, ports=[no_forward]))
    program.change([add(a.Output(2), a.Output(9))])
    assert run(program) == []
    protected = [port(1, protected=True), port(2, protected=True)]
    program.start(bridge(*mirrors, ports=protected))
    program.change([add(a.Output(2))])
    assert run(program) == []
    assert run(program, in_port=LOCAL) == [(2, None, PLAIN), (4, 0, PLAIN), (3, 1, PLAIN)]


def test_rule_11_not_received_not_mirrored(program: FlowProgram) -> None:
    program.start(bridge(mirror(0, 4, src=[1]), ports=[port(1, config=PortFlags.PORT_NO_RECEIVE)]))
    program.change([add(a.Output(2))])
    assert run(program) == []
    assert reasons(program) == [Reason.DROP_NO_RECEIVE]


def test_rules_18_and_76_a_tagged_frame_to_an_access_port(program: FlowProgram) -> None:
    """OpenFlow outputs it as it is; in the eyes of a mirror it is not allowed on that port."""
    program.start(bridge(mirror(0, 4, dst=[2]), ports=[port(2, VlanMode.ACCESS, 5)]))
    program.change([add(a.Output(2))])
    tagged = frame(vlan=5)
    assert run(program, tagged) == [(2, None, tagged)]
    # An untagged one is in VLAN 5 there, and a trunk shows it.
    assert run(program) == [(2, None, PLAIN), (4, 0, frame(vlan=5))]


def test_rule_25_and_d9_once_through_resubmits_groups_and_clones(program: FlowProgram) -> None:
    program.start(bridge(mirror(0, 4, src=[1], dst=[2])))
    program.change(
        [
            group(1, GroupType.ALL, (a.Output(2),), (a.SetEthSrc(3), a.Output(2))),
            add(a.Output(2), a.GotoTable(2), table=1),
            add(a.Group(1), table=2),
            add(a.Clone((a.Output(2),)), a.Resubmit(None, 1), a.Output(2)),
        ]
    )
    other = frame(src="00:00:00:00:00:03")
    assert run(program) == [
        (4, 0, PLAIN),
        (2, None, PLAIN),
        (2, None, PLAIN),
        (2, None, PLAIN),
        (2, None, other),
        (2, None, PLAIN),
    ]


CHANGING: list[tuple[a.Actions, bytes]] = [
    ((a.SetEthSrc(3),), frame(src="00:00:00:00:00:03")),
    ((a.SetVlanVid(7),), frame(vlan=7)),
    ((a.DecTtl(),), frame(ttl=63)),
    ((a.SetTtl(9),), frame(ttl=9)),
    ((a.SetIpv4Dst(0x0A000009),), frame(to="10.0.0.9")),
    ((a.SetField("ip_dst", 0x0A000009, 0xFFFFFFFF),), frame(to="10.0.0.9")),
    ((a.Load(a.Subfield("tcp_dst", 0, 16), 81),), frame(dport=81)),
    ((a.SetTpDst(81),), frame(dport=81)),
    # These clear though nothing changes.
    ((a.StripVlan(),), PLAIN),
    ((a.SetEthDst(0x020000000002),), PLAIN),
    ((a.SetTos(0),), PLAIN),
]


@pytest.mark.parametrize(("actions", "changed"), CHANGING)
def test_rules_26_and_28_a_changed_frame_is_mirrored_again_for_who_asks(
    program: FlowProgram, actions: a.Actions, changed: bytes
) -> None:
    entry = mirror(0, 4, src=[1], dst=[2])
    flow = add(a.Output(2), *actions, a.Output(2), a.Output(2), match=TCP4)
    outputs = [(2, None, PLAIN), (2, None, changed), (2, None, changed)]
    program.start(bridge(entry, mirror_changed=True))
    program.change([flow], version=1)
    assert not program.refused
    assert run(program) == [(4, 0, PLAIN), *outputs[:2], (4, 0, changed), outputs[2]]
    # D9, rule 27: otherwise it is mirrored once, whatever happens to it.
    program.start(bridge(entry))
    program.change([flow], version=1)
    assert run(program) == [(4, 0, PLAIN), *outputs]


NOT_CHANGING: list[a.Actions] = [
    (a.SetField("reg0", 5, 0xFFFF_FFFF),),
    (a.SetField("metadata", 5, 0xFFFF),),
    (a.Load(a.Subfield("in_port", 0, 16), 3),),
    (a.Move(a.Subfield("reg1", 0, 16), a.Subfield("eth_src", 0, 16)),),
    (a.Resubmit(None, 9),),
    (a.Output(3, 60),),
    (a.Controller(),),
    (a.Note(bytes(6)),),
    # Rule 28: only what the packet has.
    (a.SetIpv4Dst(1),),
    (a.SetTpDst(1),),
    (a.SetTos(8),),
]


@pytest.mark.parametrize("actions", NOT_CHANGING)
def test_rule_29_what_does_not_clear(program: FlowProgram, actions: a.Actions) -> None:
    arp = bytes.fromhex("ffffffffffff 020000000001 0806 0001 0800 06 04 0001") + bytes(20)
    program.start(bridge(mirror(0, 4, src=[1], dst=[2]), mirror_changed=True))
    program.change([add(a.Output(2), *actions, a.Output(2))], version=1)
    assert not program.refused
    assert [s[:2] for s in run(program, arp) if s[0] == 4] == [(4, 0)]


def test_rule_30_normal_clears_nothing(program: FlowProgram) -> None:
    program.start(
        bridge(
            mirror(0, 4, src=[1], dst=[2]), ports=[port(1, VlanMode.ACCESS, 5)], mirror_changed=True
        )
    )
    program.change([add(a.Output(Port.NORMAL))])
    tagged = frame(vlan=5)
    sent = run(program)
    assert sent[0] == (4, 0, tagged)
    assert (2, None, tagged) in sent
    assert [s for s in sent if s[1] is not None] == [(4, 0, tagged)]


def test_rule_32_a_copy_is_an_output(program: FlowProgram) -> None:
    """Another mirror takes the copy where it leaves."""
    program.start(bridge(mirror(0, 4, dst=[2]), mirror(1, 3, dst=[4])))
    program.change([add(a.Output(2))])
    assert run(program) == [(2, None, PLAIN), (4, 0, PLAIN), (3, 1, PLAIN)]


def test_rule_35_each_output_is_followed_by_its_copies(program: FlowProgram) -> None:
    program.start(bridge(mirror(0, 4, src=[1]), mirror(1, 3, dst=[2]), mirror(2, LOCAL, dst=[1])))
    program.change([add(a.Output(2), a.DecTtl(), a.Output(Port.IN_PORT), match=IPV4)])
    changed = frame(ttl=63)
    assert run(program) == [
        (4, 0, PLAIN),
        (2, None, PLAIN),
        (3, 1, PLAIN),
        (1, None, changed),
        (LOCAL, 2, changed),
    ]


def test_rule_51_nothing_that_comes_in_by_a_mirror_port_sees_a_flow(program: FlowProgram) -> None:
    program.start(bridge(mirror(0, 4, src=[1])))
    program.change([add(a.Output(2))])
    assert run(program, in_port=4) == []
    assert reasons(program, in_port=4) == [Reason.DROP_RESERVED_PORT]


@pytest.mark.parametrize("way", [Port.ALL, Port.FLOOD, Port.NORMAL])
def test_rule_54_and_d7_only_who_names_a_mirror_port_sends_to_it(
    program: FlowProgram, way: int
) -> None:
    program.start(bridge(mirror(0, 4, src=[3])))
    program.change([add(a.Output(way))])
    assert {s[0] for s in run(program)} == {2, 3, LOCAL}
    program.change([add(a.Output(4))])
    assert run(program) == [(4, None, PLAIN)]


def test_a_copy_of_a_cut_output_is_whole(program: FlowProgram) -> None:
    """As in Open vSwitch: max_len is of that one output. The mirror has a snaplen for its own."""
    program.start(bridge(mirror(0, 4, dst=[2]), mirror(1, 3, dst=[2], snaplen=20)))
    program.change([add(a.Output(2, 40))])
    assert run(program) == [(2, None, PLAIN[:40]), (4, 0, PLAIN), (3, 1, PLAIN[:20])]


def test_random_tables_ports_and_mirrors(program: FlowProgram) -> None:
    compared = 0
    for number in range(TABLES):
        count, said = run_random_mirrored(program, f"{SEED}/{number}", FRAMES)
        assert not said, f"seed {SEED}/{number}\n{program.bridge}\n{said}"
        compared += count
    assert compared > TABLES * FRAMES * 0.9, "too few frames could be compared"
