# SPDX-License-Identifier: Apache-2.0
"""What comes out of tunnels: packets crafted in the collector's namespace, frames at a guest.

One switch, its underlay and its guests serve all tests of the module; each digs its own tunnels.
"""

from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from itertools import product
from operator import ge
from typing import Any

import pytest
from scapy.layers.inet import IP, TCP
from scapy.layers.inet6 import IPv6
from scapy.layers.l2 import ARP, Dot1Q, Ether
from scapy.packet import Packet
from tests.oracle.tunnel import Erspan, Kind, Outer, decode, encode, resealed
from tests.system.arrivals import (
    GUEST,
    MACS,
    Rig,
    arriving,
    inner_frames,
    with_limit,
    with_options,
    with_subheader,
)
from tests.system.site import MAC1, MAC2, frame
from tests.system.underlay import DEVICE, FAR, NEAR, is_tunnelled
from tools.lab.lab import Lab

PADDING = b"\xaa" * 46
INNERS = inner_frames()
PLAIN = frame()
# All that is none of the session's business is set.
FULL_SECOND = Erspan(vlan=0xFFF, cos=7, encapsulation=3, truncated=1, index=0xFFFFF)
FULL_THIRD = Erspan(
    vlan=0xFFF,
    cos=7,
    bso=3,
    truncated=1,
    timestamp=0xFFFFFFFF,
    sgt=0xFFFF,
    p=1,
    frame_type=31,
    hwid=63,
    direction=1,
    granularity=3,
)
# Ports, and the packets that are each one's whatever else it is told to send.
PORTS: dict[str, tuple[str, list[tuple[Kind, dict[str, Any]]]]] = {
    "plain": ("type=gre", [("gre", {}), ("gre", {"csum": True}), ("gre", {"seq": 9})]),
    "keyed": (
        "type=gre options:key=0xfffffffe options:csum=true options:seq=true",
        [
            ("gre", {"key": 0xFFFFFFFE, "csum": csum, "seq": seq})
            for csum, seq in product((False, True), (None, 5))
        ],
    ),
    "second": (
        "type=erspan options:erspan_ver=1 options:key=1023",
        [("erspan1", {"key": 1023, "erspan": header}) for header in (Erspan(), FULL_SECOND)],
    ),
    "third": (
        "type=erspan options:erspan_ver=2 options:key=0",
        [("erspan2", {"key": 0, "erspan": header}) for header in (Erspan(), FULL_THIRD)],
    ),
    "vxlan": (
        "type=vxlan options:key=0xfffffe options:csum=true",
        [("vxlan", {"key": 0xFFFFFE}), ("vxlan", {"key": 0xFFFFFE, "csum": True})],
    ),
    "other": ("type=vxlan options:dst_port=8472", [("vxlan", {"dport": 8472})]),
}


@pytest.fixture(scope="module")
def built(tokens: list[str]) -> Iterator[Rig]:
    with Lab() as lab:
        tokens.append(lab.token)
        yield Rig.build(lab)


@pytest.fixture
def rig(built: Rig) -> Iterator[Rig]:
    yield built
    if built.uuids:
        built.fill_in()


def packets_of(inner: bytes, ipv6: bool) -> list[tuple[str, Outer]]:
    """One of each, with the port it is for."""
    return [
        (name, arriving(kind, inner, ipv6=ipv6, **fields))
        for name, (_, packets) in PORTS.items()
        for kind, fields in packets
    ]


@pytest.mark.parametrize("ipv6", [False, True])
def test_every_frame_comes_out_as_it_went_in(rig: Rig, ipv6: bool) -> None:
    """Rules 103, 104, 106, 114, 115, 123; without the padding that may follow the outer packet."""
    remote = FAR.ipv6 if ipv6 else FAR.ipv4
    rig.dig({name: f"{columns} options:remote_ip={remote}" for name, (columns, _) in PORTS.items()})
    rig.introduce("", "81000005", "88a86005")
    for name, inner in INNERS.items():
        packets = [encode(outer) for _, outer in packets_of(inner, ipv6)]
        found = rig.deliver(*packets, *(packet + PADDING for packet in packets))
        assert found == [inner] * 2 * len(packets), name
    for name, (_, variants) in PORTS.items():
        total = 2 * len(variants)
        octets = total * sum(map(len, INNERS.values()))
        assert rig.counts(name) == {"rx_packets": total * len(INNERS), "rx_bytes": octets}, name


def test_headers_that_are_longer(rig: Rig) -> None:
    """IPv4 options, the optional subheader of ERSPAN type III (rule 115), reserved bits of VXLAN
    that a receiver has to overlook, octets that follow the datagram."""
    rig.dig(
        {name: f"{columns} options:remote_ip={FAR.ipv4}" for name, (columns, _) in PORTS.items()}
    )
    rig.introduce("")
    packets = [encode(outer) for _, outer in packets_of(PLAIN, ipv6=False)]
    longer = [with_options(packet, b"\x01" * size) for packet in packets for size in (4, 40)]
    third = arriving("erspan2", PLAIN, key=0)
    longer.append(resealed(with_subheader(encode(third), third)))
    longer.append(with_options(longer[-1], b"\x01" * 8) + PADDING)
    vxlan = encode(arriving("vxlan", PLAIN, key=0xFFFFFE))
    longer.append(vxlan[:42] + b"\xff\xff\xff\xff" + vxlan[46:49] + b"\xff" + vxlan[50:])
    longer.append(resealed(vxlan + b"the UDP length says that this is not of it"))
    assert rig.deliver(*longer) == [PLAIN] * len(longer)


def test_the_limit_for_tunnels_in_tunnels(rig: Rig) -> None:
    """As Linux's own ip6gretap and ip6erspan send it, before GRE."""
    rig.dig(
        {name: f"{columns} options:remote_ip={FAR.ipv6}" for name, (columns, _) in PORTS.items()}
    )
    rig.introduce("")
    packets = [encode(outer) for _, outer in packets_of(PLAIN, ipv6=True)]
    limited = [with_limit(packet) for packet in packets]
    assert rig.deliver(*limited) == [PLAIN] * len(limited)


def dig_apart(rig: Rig, ports: dict[str, str]) -> None:
    """Tunnel ports that are access ports, each of a VLAN of its own: so the guest can tell."""
    tags = [f"-- set port {name} tag={101 + number}" for number, name in enumerate(ports)]
    rig.dig(ports, then=" ".join(tags))
    rig.introduce(*(f"8100{101 + number:04x}" for number in range(len(ports))))


def check(rig: Rig, names: list[str], outers: list[Outer], wanted: list[str | None]) -> None:
    """Each comes in by the port of dig_apart() that is wanted, or not at all; their inner frames
    are told apart by length."""
    packets = [
        encode(replace(outer, inner=frame(length=60 + number)))
        for number, outer in enumerate(outers)
    ]
    found: list[str | None] = [None] * len(outers)
    for came in rig.deliver(*packets, count=len(wanted) - wanted.count(None)):
        number = len(came) - 64
        tag = int.from_bytes(came[14:16], "big")
        assert came == frame(tag=f"8100{tag:04x}", length=60 + number)
        assert found[number] is None, "it came twice"
        found[number] = names[tag - 101]
    assert found == wanted


def test_keys(rig: Rig) -> None:
    """Rule 106: no key is key 0, "flow" is any; in_key overrides key."""
    ends = rig.neighbours(5)
    options = ["", "options:key=0", "options:key=flow", "options:key=7 options:in_key=5"]
    options.append("options:in_key=flow options:key=9")
    names = ["absent", "zero", "flow", "in", "in-flow"]
    remotes = dict(zip(names, ends, strict=True))
    dig_apart(
        rig,
        {
            name: f"type=gre options:remote_ip={end.ipv4} {words}"
            for (name, end), words in zip(remotes.items(), options, strict=True)
        },
    )
    keys = [None, 0, 5, 7, 0xFFFFFFFF]
    taken: dict[str, set[int | None]] = {"absent": {None, 0}, "zero": {None, 0}, "in": {5}}
    missed: Counter[tuple[str, str]] = Counter()
    for name, end in remotes.items():
        packets = [arriving("gre", PLAIN, key=key, src=end.ipv4) for key in keys]
        wanted = [name if key in taken.get(name, {key}) else None for key in keys]
        check(rig, names, packets, wanted)
        missed[name, "key"] = wanted.count(None)
    rig.drops(+missed, Counter())


@pytest.mark.parametrize(
    ("kind", "ipv6"), [("gre", False), ("gre", True), ("erspan1", True), ("vxlan", False)]
)
def test_the_most_specific_port_wins(rig: Rig, kind: Kind, ipv6: bool) -> None:
    """Rule 112: in_key counts for more than remote_ip, and that for more than local_ip."""
    second, stranger = ("fd09::65", "fd09::66") if ipv6 else ("10.9.0.101", "10.9.0.102")
    rig.under.host.ip(f"address replace {second}/{64 if ipv6 else 24} dev {DEVICE}")
    remote_ip, local_ip = (FAR.ipv6, NEAR.ipv6) if ipv6 else (FAR.ipv4, NEAR.ipv4)
    type_ = {"gre": "gre", "erspan1": "erspan options:erspan_ver=1"}.get(kind, "vxlan")
    kinds = list(product((True, False), repeat=3))  # from the most to the least specific
    ports = {}
    for keyed, remote, local in kinds:
        name = "k"[:keyed] + "r"[:remote] + "l"[:local] + "port"
        words = [f"type={type_}", f"options:key={5 if keyed else 'flow'}"]
        words.append(f"options:remote_ip={remote_ip if remote else 'flow'}")
        if local:
            words.append(f"options:local_ip={local_ip}")
        ports[name] = " ".join(words)
    dig_apart(rig, ports)
    fields = list(product((5, 6), (remote_ip, stranger), (local_ip, second)))
    packets = [
        arriving(kind, PLAIN, ipv6=ipv6, key=key, src=src, dst=dst) for key, src, dst in fields
    ]
    has = [(key == 5, src == remote_ip, dst == local_ip) for key, src, dst in fields]
    left = dict(zip(kinds, ports, strict=True))
    while left:
        fitting = [
            [name for asked, name in left.items() if all(map(ge, found, asked))] for found in has
        ]
        wanted = [names[0] if names else None for names in fitting]
        check(rig, list(ports), packets, wanted)
        rig.fill_in(left.pop(next(iter(left))))


QINQ = "tag=9 vlan_mode=dot1q-tunnel other_config:qinq-ethtype=802.1q"
# Columns of the port, the frame's tag in the tunnel, in the switch, and in the tunnel back.
VLAN_MODES = [
    ("tag=5", "", "81000005", ""),
    ("tag=5", "81000005", None, ""),
    ("tag=5", "8100e000", "8100e005", ""),
    ("trunks=7", "81006007", "81006007", "81006007"),
    ("trunks=7", "", None, ""),
    ("tag=5 vlan_mode=native-untagged", "", "81000005", ""),
    ("tag=5 vlan_mode=native-tagged", "81000007", "81000007", "81000007"),
    (QINQ, "81000007", "8100000981000007", "81000007"),
]


def test_the_port_has_its_vlan_mode(rig: Rig) -> None:
    """Rules 70 to 73 hold for what comes out of a tunnel, rule 37 for the way back, which the
    tunnel's outer packet shows."""
    options = "options:key=5 options:remote_ip="
    dropped = 0
    rig.dig({"gre0": f"type=gre {options}{FAR.ipv4}"})
    for columns, tag, inside, tag_back in VLAN_MODES:
        rig.site.ovs.vsctl(f"clear port gre0 tag trunks vlan_mode -- set port gre0 {columns}")
        wanted = [] if inside is None else [frame(tag=inside)]
        rig.introduce("" if inside is None else inside)
        packet = encode(arriving("gre", frame(tag=tag), key=5))
        assert rig.deliver(packet, count=len(wanted)) == wanted, (columns, tag)
        dropped += inside is None
        if inside is not None:
            with rig.under.capture() as outer:
                rig.site.send(GUEST, frame(MAC1, MAC2, inside))
                (back,) = outer.collect(1, keep=is_tunnelled)
            assert decode(back.data).inner == frame(MAC1, MAC2, tag_back), columns
    rig.drops({("gre0", "vlan"): dropped}, Counter())


def test_the_way_back_is_learned(rig: Rig) -> None:
    """Rules 57 to 61: what a tunnel's frame comes from is found by that tunnel and no other."""
    ends = rig.neighbours(3)
    rig.dig({f"gre{n}": f"type=gre options:remote_ip={end.ipv4}" for n, end in enumerate(ends)})
    rig.introduce("")
    hosts = [bytes([2, 0, 0, 0, 1, n]) for n in range(3)]
    packets = [
        encode(arriving("gre", frame(src=host), src=end.ipv4))
        for host, end in zip(hosts, ends, strict=True)
    ]
    with rig.under.capture() as outer:
        assert len(rig.deliver(*packets)) == 3
        rig.site.send(GUEST, *(frame(host, MAC2) for host in hosts))
        found = [decode(one.data) for one in outer.collect(3, keep=is_tunnelled)]
    assert [(one.dst, one.inner[:6]) for one in found] == [
        (end.ipv4, host) for host, end in zip(hosts, ends, strict=True)
    ]


def inner_packets(ecn: int) -> dict[str, bytes]:
    """IP packets with that field, in all the places where it may be."""
    heads: dict[str, Packet] = {
        "": Ether(**MACS),
        "tag ": Ether(**MACS) / Dot1Q(vlan=5, prio=7),
        "tags ": Ether(**MACS, type=0x88A8) / Dot1Q(vlan=5) / Dot1Q(vlan=6),
    }
    tos = 0xB8 | ecn
    packets: dict[str, Packet] = {
        "ipv4": IP(src="10.7.0.1", dst="10.7.0.2", tos=tos) / TCP() / b"odd",
        "options": IP(src="10.7.0.1", dst="10.7.0.2", tos=tos, options=b"\x01" * 8) / b"x",
        "sum": IP(src="10.7.0.1", dst="10.7.0.2", tos=tos, id=0xFFFF - 0x45B9),
        "ipv6": IPv6(src="fd07::1", dst="fd07::2", tc=tos, fl=0xABCDE) / TCP() / b"odd",
    }
    return {
        where + what: bytes(head / packet)
        for where, head in heads.items()
        for what, packet in packets.items()
    }


@pytest.mark.parametrize("ipv6", [False, True])
def test_congestion_is_passed_on(rig: Rig, ipv6: bool) -> None:
    """Rule 110, RFC 6040: the outer CE becomes the inner one, its checksum right, or the frame is
    dropped if it cannot say so; other codepoints of the outer header change nothing."""
    remote = FAR.ipv6 if ipv6 else FAR.ipv4
    rig.dig({"gre0": f"type=gre options:remote_ip={remote}"})
    rig.introduce("", "81000005", "88a80005")
    marked = inner_packets(3)
    dropped = 0
    for ecn in range(4):
        packets = inner_packets(ecn)
        for outer_ecn in range(4):
            wanted = packets
            if outer_ecn == 3:
                wanted = marked if ecn else {}
            dropped += len(packets) - len(wanted)
            sent = [
                encode(arriving("gre", packet, ipv6=ipv6, tos=0x20 | outer_ecn))
                for packet in packets.values()
            ]
            assert rig.deliver(*sent, count=len(wanted)) == list(wanted.values()), (ecn, outer_ecn)
    rig.drops({("gre0", "ecn"): dropped}, Counter())
    others = [PLAIN, bytes(Ether(**MACS) / ARP()), frame(tag="81000005"), frame(length=14)]
    sent = [encode(arriving("gre", inner, ipv6=ipv6, tos=3)) for inner in others]
    assert rig.deliver(*sent) == others
