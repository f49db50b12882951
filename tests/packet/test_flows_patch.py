# SPDX-License-Identifier: Apache-2.0
"""Two bridges with flow tables, joined by a patch: what crosses, and what stays behind.

What the second bridge does comes after all that the first one does (design, "Ports are devices").
"""

from collections.abc import Iterator

import pytest
from scapy.layers.inet import IP, TCP
from scapy.layers.l2 import Dot1Q, Ether
from tests.oracle.flow_pipeline_program import NUMBERS, SLOT, FlowProgram, bridge, port
from tests.packet.flows import IP as IPV4
from tests.packet.flows import add

from heliograph.kernel.dataplane import DataPlane
from heliograph.kernel.layouts import EventKind, Reason, VlanMode
from heliograph.kernel.snapshot import BridgeEntry, MirrorEntry, PortEntry
from heliograph.openflow import actions as a
from heliograph.openflow.actions import Port
from heliograph.openflow.match import Match

OTHER = SLOT + 1
PATCH = 3  # its ofport in the first bridge, that of its peer is
PEER = 9
FAR = {PEER: 51, 8: 52, 7: 53}  # the ports of the other bridge
NAMES = {number: f"far{ofport}" for ofport, number in FAR.items()}
NAMES |= {number: f"near{ofport}" for ofport, number in NUMBERS.items()}
ETHER = Ether(src="02:00:00:00:00:01", dst="02:00:00:00:00:02")
PLAIN = bytes(ETHER / IP(dst="10.0.0.2") / TCP())
Sent = list[tuple[str, int | None, bytes]]  # port, mirror, frame


def _far(ofport: int, peer: tuple[int, int] | None = None) -> PortEntry:
    number = FAR[ofport]
    return PortEntry(
        number=number,
        ifindex=0 if peer else 2000 + number,
        mode=VlanMode.TRUNK,
        tag=0,
        trunks=frozenset(),
        generation=number,
        ofport=ofport,
        peer=peer,
    )


def mirror(slot: int, number: int, output: int, *, src: list[int], dst: list[int]) -> MirrorEntry:
    """By the switch's numbers of ports."""
    return MirrorEntry(
        number, slot * 32 + number, frozenset(src), frozenset(dst), frozenset(), output, 0
    )


class Pair:
    def __init__(self, plane: DataPlane) -> None:
        self.near, self.far = FlowProgram(plane), FlowProgram(plane, OTHER)

    def start(self, near: tuple[MirrorEntry, ...] = (), far: tuple[MirrorEntry, ...] = ()) -> None:
        patch = port(PATCH, ifindex=0, peer=(OTHER, FAR[PEER]))
        ports = (_far(PEER, (SLOT, NUMBERS[PATCH])), _far(8), _far(7))
        self.near.start(bridge(*near, ports=[patch]))
        self.far.start(bridge_of(ports, far))

    def run(self, data: bytes = PLAIN) -> Sent:
        events = self.near.events(1, data)
        assert events is not None
        return [
            (NAMES[event.port], event.mirror, event.image)
            for event in events
            if event.kind == EventKind.EVENT_OUTPUT
            and event.reason == Reason.DELIVERED
            and NAMES[event.port] not in {f"near{PATCH}", f"far{PEER}"}
        ]


def bridge_of(ports: tuple[PortEntry, ...], mirrors: tuple[MirrorEntry, ...]) -> BridgeEntry:
    return BridgeEntry(
        slot=OTHER,
        forwarding=True,
        forward_bpdu=False,
        mac_age=300,
        mac_limit=8192,
        ports=ports,
        mirrors=mirrors,
        flows=True,
        mirror_changed=True,
    )


@pytest.fixture(scope="module")
def loaded(plane: DataPlane) -> Iterator[Pair]:
    made = Pair(plane)
    yield made
    made.near.close()
    made.far.close()


@pytest.fixture
def pair(loaded: Pair) -> Pair:
    loaded.start()
    return loaded


def test_a_frame_crosses_as_it_is_then(pair: Pair) -> None:
    """What the first bridge does to it before is seen, what it does later is not."""
    before, after = (a.SetTtl(9), a.SetVlanVid(5)), (a.SetTtl(3), a.StripVlan(), a.Output(2))
    pair.near.change([add(*before, a.Output(PATCH), *after, match=IPV4)], version=1)
    tagged = Match((("vlan_tci", 0x1005, 0x1FFF),))
    pair.far.change([add(a.Output(8), match=tagged)])
    assert pair.run() == [
        ("near2", None, bytes(ETHER / IP(dst="10.0.0.2", ttl=3) / TCP())),
        ("far8", None, bytes(ETHER / Dot1Q(vlan=5) / IP(dst="10.0.0.2", ttl=9) / TCP())),
    ]


def test_the_other_bridge_knows_its_own_port_and_no_register(pair: Pair) -> None:
    known = (a.SetField("reg0", 7, 0xFF), a.SetField("metadata", 7, 0xFF), a.Output(PATCH))
    pair.near.change([add(*known)])
    pair.far.change(
        [
            add(a.Output(8), a.Output(PEER), priority=9, match=Match((("in_port", PEER, 0xFFFF),))),
            add(a.Output(7), priority=99, match=Match((("reg0", 7, 0xFF),))),
            add(a.Output(7), priority=98, match=Match((("metadata", 7, 0xFF),))),
        ]
    )
    assert pair.run() == [("far8", None, PLAIN)]


@pytest.mark.parametrize("way", [Port.ALL, Port.FLOOD, Port.NORMAL])
def test_floods_cross(pair: Pair, way: int) -> None:
    pair.near.change([add(a.Output(way))])
    pair.far.change([add(a.Output(way))])
    assert {name for name, _, _ in pair.run()} == {"near2", "near4", "near65534", "far8", "far7"}


def test_what_returns_meets_the_tables_again(pair: Pair) -> None:
    pair.near.change(
        [add(a.Output(PATCH)), add(a.Output(2), priority=9, match=Match((("in_port", 3, 0xFFFF),)))]
    )
    pair.far.change([add(a.SetEthSrc(5), a.Output(Port.IN_PORT))])
    ether = Ether(src="00:00:00:00:00:05", dst="02:00:00:00:00:02")
    assert pair.run() == [("near2", None, bytes(ether / IP(dst="10.0.0.2") / TCP()))]


def test_rule_13_a_patch_is_mirrored_in_neither_bridge(pair: Pair) -> None:
    near = mirror(SLOT, 0, NUMBERS[4], src=[], dst=[NUMBERS[PATCH]])
    far = mirror(OTHER, 0, FAR[7], src=[FAR[PEER]], dst=[])
    pair.start((near,), (far,))
    pair.near.change([add(a.Output(PATCH))])
    pair.far.change([add(a.Output(8))])
    assert pair.run() == [("far8", None, PLAIN)]


def test_rule_31_each_bridge_has_its_own_set(pair: Pair) -> None:
    """Both have a mirror 0, and each takes the frame; none takes it twice."""
    near = mirror(SLOT, 0, NUMBERS[4], src=[NUMBERS[1]], dst=[NUMBERS[2]])
    far = mirror(OTHER, 0, FAR[7], src=[], dst=[FAR[8]])
    pair.start((near,), (far,))
    pair.near.change([add(a.Output(PATCH), a.Output(2))])
    pair.far.change([add(a.Output(8), a.Output(8))])
    assert pair.run() == [
        ("near4", 0, PLAIN),
        ("near2", None, PLAIN),
        ("far8", None, PLAIN),
        ("far7", 0, PLAIN),
        ("far8", None, PLAIN),
    ]


def test_rule_31_what_one_bridge_clears_the_other_has_not_forgotten(pair: Pair) -> None:
    """Rule 26 is asked for in the other bridge alone."""
    near = mirror(SLOT, 0, NUMBERS[4], src=[NUMBERS[1]], dst=[NUMBERS[2]])
    far = mirror(OTHER, 0, FAR[7], src=[], dst=[FAR[8]])
    pair.start((near,), (far,))
    pair.near.change([add(a.Output(PATCH), a.SetEthSrc(5), a.Output(2))])
    pair.far.change([add(a.Output(8), a.SetEthSrc(6), a.Output(8))])
    assert [(name, number) for name, number, _ in pair.run()] == [
        ("near4", 0),
        ("near2", None),
        ("far8", None),
        ("far7", 0),
        ("far8", None),
        ("far7", 0),
    ]
