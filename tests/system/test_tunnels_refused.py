# SPDX-License-Identifier: Apache-2.0
"""What is not let out of tunnels: counted by its reason where it is looked for, answered by
nobody; and what is none of theirs, which the host has as if they were not there.

Every port has a host of its own at the far end, so it is known whose fault is counted where. The
host answers every packet that it gets and cannot use by ICMP here: silence at the collector says
that it got none.
"""

import socket
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import partial
from itertools import count
from pathlib import Path
from random import Random
from typing import Any

import pytest
from scapy.layers.inet import ICMP, IP, fragment
from scapy.layers.inet6 import ICMPv6EchoRequest, IPv6, IPv6ExtHdrFragment
from scapy.layers.l2 import Ether
from scapy.packet import Raw
from tests.oracle.tunnel import Kind, Outer, decode, encode, resealed
from tests.system.arrivals import (
    GUEST,
    OUTER_DROPS,
    Drop,
    Rig,
    arriving,
    is_answer,
    size_of_headers,
)
from tests.system.site import data, frame, silence
from tests.system.underlay import FAR, HOST_SIDE, NEAR, ROUTER, is_tunnelled, wire
from tools.lab.capture import Capture
from tools.lab.lab import Lab
from tools.lab.processes import PATIENCE, eventually

PLAIN = frame()
IDENTS = count(1)
SEED, PACKETS = 20_261_121, 4000
STRANGER = replace(FAR, ipv4="10.9.0.99", ipv6="fd09::99")
KINDS: dict[str, tuple[Kind, str, dict[str, Any]]] = {
    "gre": ("gre", "type=gre", {}),
    "sums": ("gre", "type=gre", {"csum": True, "seq": 4}),
    "second": ("erspan1", "type=erspan options:erspan_ver=1", {}),
    "third": ("erspan2", "type=erspan options:erspan_ver=2", {}),
    "vxlan": ("vxlan", "type=vxlan", {"csum": True}),
}
ERSPANS = ("second", "third")


class Ports:
    """A tunnel port of each of KINDS, over either family, that has key 5."""

    def __init__(self, rig: Rig) -> None:
        self.rig = rig
        rig.settle(STRANGER)
        ends = rig.neighbours(len(KINDS))
        self.ends = dict(zip(KINDS, ends, strict=True))
        self.names = [f"{name}{family}" for name in KINDS for family in (4, 6)]
        columns = {name: f"{KINDS[name[:-1]][1]} options:key=5" for name in self.names}
        rig.dig(
            {
                name: f"{words} options:remote_ip={self.remote(name)}"
                for name, words in columns.items()
            }
        )
        rig.introduce("")

    def remote(self, name: str) -> str:
        end = self.ends[name[:-1]]
        return end.ipv4 if name.endswith("4") else end.ipv6

    def outer(self, name: str, **fields: Any) -> Outer:
        """What the port receives, but for these fields."""
        kind, _, known = KINDS[name[:-1]]
        changed: dict[str, Any] = {"key": 5, "src": self.remote(name)} | known | fields
        return replace(arriving(kind, PLAIN, ipv6=name.endswith("6")), **changed)

    def refuse(self, wanted: Mapping[Drop, int], packets: list[bytes]) -> None:
        """Send what is to be dropped for these reasons, so often, by port and reason."""
        before = self.rig.dropped()
        with self.rig.under.capture() as answers, self.rig.site.capture(GUEST) as inside:
            self.rig.under.send(*packets)
            self.rig.drops(wanted, before)
            assert data(inside.collect(quiet=0.02)) == []
            assert data(answers.collect(keep=is_answer, quiet=0.02)) == []


@pytest.fixture(scope="module")
def built(tokens: list[str]) -> Iterator[Ports]:
    with Lab() as lab:
        tokens.append(lab.token)
        rig = Rig.build(lab)
        # Else the kernel answers so many of all that come to all namespaces, and no more.
        rig.under.host.set_sysctl("ipv4/icmp_ratemask", "0")
        rig.under.host.set_sysctl("ipv6/icmp/ratemask", "255")
        yield Ports(rig)


@pytest.fixture
def ports(built: Ports) -> Iterator[Ports]:
    yield built
    intact = [encode(built.outer(name)) for name in built.names]
    assert built.rig.deliver(*intact) == [PLAIN] * len(intact), "one no longer receives"


def test_wrong_keys_and_sessions(ports: Ports) -> None:
    """Rules 106, 112, 120: by a known remote."""
    for key in 0, 4, 6, 5 << 8, 1023:
        packets = [encode(ports.outer(name, key=key)) for name in ports.names]
        ports.refuse({(name, "key"): 1 for name in ports.names}, packets)
    keyless = [name for name in ports.names if name.startswith(("gre", "sums"))]
    packets = [encode(ports.outer(name, key=None)) for name in keyless]
    ports.refuse({(name, "key"): 1 for name in keyless}, packets)
    counted = ports.rig.counts("gre4")["drop_key"]
    found = ports.rig.site.settled("gre4", "interface", drop_key=counted)
    drops = [number for key, number in found.items() if key.startswith("drop_")]
    assert (found["drop_key"], found["rx_dropped"]) == (counted, sum(drops))


def test_wrong_remotes(ports: Ports) -> None:
    """Rule 105: the key is a port's, which takes it from another host only. Of which port, where
    several have that key, is not to be known."""
    before = ports.rig.dropped()
    for name in ports.names:
        src = STRANGER.ipv4 if name.endswith("4") else STRANGER.ipv6
        ports.rig.under.send(encode(ports.outer(name, src=src)))
    assert eventually(lambda: (ports.rig.dropped() - before).total() == len(ports.names))
    found: Counter[tuple[str, str, str]] = Counter()
    for (name, reason), number in (ports.rig.dropped() - before).items():
        found[KINDS[name[:-1]][0].rstrip("12"), name[-1], reason] += number
    each = {"gre": 2, "erspan": 2, "vxlan": 1}
    assert found == {(k, family, "remote"): n for k, n in each.items() for family in "46"}


def test_wrong_versions_and_flags(ports: Ports) -> None:
    """RFC 2784 2.3, rules 104 and 114: GRE versions other than 0, bits that have to be 0, ERSPAN
    with other flags than S (so type I, too)."""
    for name in ports.names:
        good = encode(ports.outer(name))
        at = 34 if name.endswith("4") else 54
        if name.startswith("vxlan"):
            packets = [good[: at + 8] + bytes([flags]) + good[at + 9 :] for flags in (0, 0xF7)]
            ports.refuse({(name, "malformed"): 2}, [without_sum(packet) for packet in packets])
            continue
        is_erspan = name[:-1] in ERSPANS
        flags = int.from_bytes(good[at : at + 2], "big")
        packets, reasons = [], Counter[Drop]()
        for bit in range(16):
            changed = flags ^ 1 << bit
            if is_erspan or changed & 0x4FFF:  # else it is one of C, K, S: just another packet
                packets.append(good[:at] + changed.to_bytes(2, "big") + good[at + 2 :])
                reasons[name, "version" if is_erspan or bit < 3 else "malformed"] += 1
        ports.refuse(reasons, packets)


def test_wrong_versions_of_erspan(ports: Ports) -> None:
    """Rules 114, 115, 119: of the header, and of the port."""
    for name in ports.names:
        if name[:-1] in ERSPANS:
            good = encode(ports.outer(name))
            at = 42 if name.endswith("4") else 62
            other = {"second": "third", "third": "second"}[name[:-1]] + name[-1]
            packets = [encode(ports.outer(other, src=ports.remote(name)))]
            packets += [
                good[:at] + bytes([version << 4]) + good[at + 1 :]
                for version in range(16)
                if version != good[at] >> 4
            ]
            ports.refuse({(name, "version"): 16}, packets)


def without_sum(packet: bytes) -> bytes:
    """The same, without a UDP checksum."""
    at = 40 if packet[12] == 8 else 60
    return packet[:at] + bytes(2) + packet[at + 2 :]


@pytest.mark.parametrize("padding", [b"", b"\xaa" * 64], ids=["bare", "padded"])
def test_truncated_at_every_byte(ports: Ports, padding: bytes) -> None:
    """Rules 104, 115: within the headers, or so that the inner frame is shorter than 14 bytes; the
    octets that may follow the outer packet are none of it."""
    for name in ports.names:
        outer = replace(ports.outer(name), csum=False)
        good, headers = encode(outer), size_of_headers(outer)
        start = 34 if name.endswith("4") else 54
        cut = [good[:length] for length in range(start, headers + 14)]
        if name.startswith("vxlan"):
            cut = [
                c[: start + 4] + (len(c) - start).to_bytes(2, "big") + c[start + 6 :] for c in cut
            ]
            cut = cut[8:]  # without a UDP header it is nobody's
        packets = [resealed(packet) + padding for packet in cut]
        ports.refuse({(name, "malformed"): len(packets)}, packets)


def test_frames_that_end_before_their_packets(ports: Ports) -> None:
    """What a cut frame holds is not delivered as if it were all."""
    for name in ports.names:
        outer = replace(ports.outer(name), csum=False)
        good, headers = encode(outer), size_of_headers(outer)
        packets = [good[:length] for length in (headers + 13, headers + 14, len(good) - 1)]
        ports.refuse({(name, "malformed"): 3}, packets)


def pieces(packet: bytes, size: int = 1200) -> list[bytes]:
    """The fragments of an outer packet, as a router or its sender makes them; they fit to no
    others, which the host may still have."""
    whole, ident = Ether(packet), next(IDENTS)
    if packet[12] == 8:
        whole[IP].id = ident
        return [bytes(piece) for piece in fragment(whole, fragsize=size)]
    payload = packet[54:]
    return [
        bytes(
            Ether(src=whole.src, dst=whole.dst)
            / IPv6(src=whole[IPv6].src, dst=whole[IPv6].dst)
            / IPv6ExtHdrFragment(
                nh=packet[20], offset=at // 8, m=at + size < len(payload), id=ident
            )
            / Raw(payload[at : at + size])
        )
        for at in range(0, len(payload), size)
    ]


def test_outer_fragments(ports: Ports) -> None:
    """Issue 4, item 5: the first, a middle one and the last. VXLAN's port stands in the first
    alone."""
    for name in ports.names:
        frames = pieces(encode(ports.outer(name, inner=frame(length=3000), df=False)))
        assert len(frames) == 3
        counted = 1 if name.startswith("vxlan") else 3
        ports.refuse({(name, "fragment"): counted}, frames)


def test_wrong_checksums(ports: Ports) -> None:
    """RFC 791, 2784, 768: a byte of the outer IPv4 header, of what GRE's or UDP's checksum covers,
    or of the checksum itself."""
    for name in ports.names:
        good = encode(ports.outer(name))
        places = []
        if name.endswith("4"):
            places += [15, 18, 19, 22, 24, 25]  # what the packet still is the port's with
        if name.startswith(("sums", "vxlan")):
            places += [len(good) - 1, len(good) - 60, size_of_headers(ports.outer(name)) + 1]
            places += [(34 if name.endswith("4") else 54) + (4 if name.startswith("sums") else 6)]
        packets = [good[:at] + bytes([good[at] ^ 0x10]) + good[at + 1 :] for at in places]
        if packets:
            ports.refuse({(name, "checksum"): len(packets)}, packets)


def others_packets(ports: Ports) -> list[bytes]:
    """GRE that is for no port: of other protocol types, or by a stranger with another key."""
    found = []
    for family, stranger in ("4", STRANGER.ipv4), ("6", STRANGER.ipv6):
        good = encode(ports.outer(f"gre{family}"))
        at = 34 if family == "4" else 54
        for flags, kind in (0x2000, 0x0800), (0x2000, 0x6559), (0x2001, 0x880B), (0, 0x86DD):
            head = flags.to_bytes(2, "big") + kind.to_bytes(2, "big")
            found.append(good[:at] + head + good[at + 4 :])
        for name in "gre", "second", "third":
            found.append(encode(ports.outer(f"{name}{family}", src=stranger, key=6)))
    return found


def of_host(ports: Ports, family: int, kind: int, protocol: int = 0) -> socket.socket:
    """A socket in the host's namespace."""
    made = ports.rig.under.host.call(lambda: socket.socket(family, kind, protocol))
    made.settimeout(PATIENCE)
    return made


def test_others_gre_is_the_hosts(ports: Ports) -> None:
    """Issue 4, item 5: it has every byte; without anybody there it says so, as it always did."""
    before, packets = ports.rig.dropped(), others_packets(ports)
    with (
        of_host(ports, socket.AF_INET, socket.SOCK_RAW, 47) as four,
        of_host(ports, socket.AF_INET6, socket.SOCK_RAW, 47) as six,
        ports.rig.under.capture() as answers,
    ):
        assert ports.rig.deliver(*packets, count=0) == []
        for packet in packets:
            if packet[12] == 8:
                assert four.recv(2048) == packet[14:]
            else:
                assert six.recv(2048) == packet[54:]
        assert data(answers.collect(keep=is_answer, quiet=0.01)) == []
    with ports.rig.under.capture() as answers:
        ports.rig.under.send(*packets)
        told = answers.collect(len(packets), keep=is_answer)
    assert [frame.data[12:14] for frame in told] == [packet[12:14] for packet in packets]
    assert ports.rig.dropped() == before


def test_others_udp_is_the_hosts(ports: Ports) -> None:
    """Issue 4, item 5: to another port, whole and in fragments; to VXLAN's by a stranger with
    another VNI; and a fragmented datagram to another port from a tunnel's remote_ip, whose second
    fragment looks like VXLAN."""
    before = ports.rig.dropped()
    for family, name, host in (
        (socket.AF_INET, "vxlan4", STRANGER.ipv4),
        (socket.AF_INET6, "vxlan6", STRANGER.ipv6),
    ):
        any_address = "0.0.0.0" if family == socket.AF_INET else "::"
        with (
            of_host(ports, family, socket.SOCK_DGRAM) as vxlan,
            of_host(ports, family, socket.SOCK_DGRAM) as other,
        ):
            for made, port in (vxlan, 4789), (other, 4790):
                made.bind((any_address, port))
            same = encode(ports.outer(name, dport=4790))
            foreign = encode(ports.outer(name, src=host, key=6))
            payload = 42 if family == socket.AF_INET else 62
            trap = encode(ports.outer(name))[payload - 8 : payload + 8]
            inner = frame(length=1184) + trap + frame(length=1000)
            long = encode(ports.outer(name, dport=4790, df=False, inner=inner))
            assert pieces(long)[1].endswith(long[payload - 8 + 1200 : payload - 8 + 2400])
            assert long[payload - 8 + 1200 :].startswith(trap)
            assert ports.rig.deliver(same, foreign, *pieces(long), count=0) == []
            assert other.recv(4096) == same[payload:]
            assert other.recv(4096) == long[payload:]
            assert vxlan.recv(4096) == foreign[payload:]
    assert ports.rig.dropped() == before


def test_what_else_the_host_hears(ports: Ports) -> None:
    """Echo requests and TCP, from a tunnel's remote_ip as well; frames to another station, or with
    a VLAN tag, are not read."""
    under, before = ports.rig.under, ports.rig.dropped()
    head = Ether(src=FAR.mac, dst=NEAR.mac)
    echoes = [
        head / IP(src=end, dst=NEAR.ipv4) / ICMP() for end in (FAR.ipv4, ports.remote("gre4"))
    ]
    ends = FAR.ipv6, ports.remote("gre6")
    echoes += [head / IPv6(src=end, dst=NEAR.ipv6) / ICMPv6EchoRequest() for end in ends]
    with under.capture() as answers:
        under.send(*map(bytes, echoes))
        assert len(answers.collect(4, keep=is_answer)) == 4
    for family, address in (socket.AF_INET, NEAR.ipv4), (socket.AF_INET6, NEAR.ipv6):
        listen = partial(socket.create_server, (address, 0), family=family)
        with under.host.call(listen) as server:
            reach = partial(socket.create_connection, server.getsockname()[:2], PATIENCE)
            with under.collector.call(reach) as client, server.accept()[0] as there:
                client.sendall(b"by TCP")
                assert there.recv(6) == b"by TCP"
    good = encode(ports.outer("gre4"))
    strange = [b"\x02\0\0\0\0\x77" + good[6:], b"\x01\0\x5e\0\0\x01" + good[6:]]
    strange.append(good[:12] + b"\x81\0\0\x05" + good[12:])
    ports.refuse({}, strange)
    assert ports.rig.dropped() == before


def test_what_the_host_forwards(ports: Ports) -> None:
    """Issue 4, item 5: packets of tunnels that end elsewhere, over either family."""
    under, lab = ports.rig.under, ports.rig.under.lab
    beyond = lab.namespace("beyond")
    silence(beyond)
    wire((under.host, "beyond0"), (beyond, "beyond0"))
    HOST_SIDE.settle(under.host, "beyond0")
    ROUTER.settle(beyond, "beyond0")
    under.host.set_sysctl("ipv4/ip_forward", "1")
    under.host.set_sysctl("ipv6/conf/all/forwarding", "1")
    for address in HOST_SIDE.ipv4, HOST_SIDE.ipv6:
        assert eventually(partial(lambda to: beyond.ping(to, 1) == 1, address))
    before = ports.rig.dropped()
    packets = [
        encode(ports.outer(name, dst=ROUTER.ipv4 if name.endswith("4") else ROUTER.ipv6))
        for name in ports.names
    ]
    with Capture(beyond, "beyond0") as found:
        assert ports.rig.deliver(*packets, count=0) == []
        passed = data(found.collect(len(packets), keep=is_tunnelled))
    for packet, there in zip(packets, passed, strict=True):
        assert replace(decode(there), ttl=64, to_mac=b"", from_mac=b"") == replace(
            decode(packet), to_mac=b"", from_mac=b""
        )
        assert decode(there).ttl == 63
    assert ports.rig.dropped() == before


def host_received() -> int:
    """IP packets that the host's stack has seen here, but for what is said unasked and what it
    said to itself."""
    read = partial(Path, "/proc/thread-self/net")
    four = read("snmp").read_text().splitlines()
    names, values = (line.split() for line in four if line.startswith("Ip:"))
    six = dict(line.split() for line in read("snmp6").read_text().splitlines())
    loopback = next(line.split() for line in read("dev").read_text().splitlines() if " lo:" in line)
    received = int(values[names.index("InReceives")]) + int(six["Ip6InReceives"])
    unasked = int(six["Ip6InMcastPkts"]) + int(six["Icmp6InNeighborAdvertisements"])
    return received - unasked - int(loopback[2])


def mutation(rng: Random, packet: bytes) -> bytes:
    """Something of the packet is changed, most often in its headers. The Ethernet header stays,
    who sent it (the host shall not answer to everybody), and that it is for one host."""
    made = bytearray(packet)
    fixed = range(26, 30) if packet[12] == 8 else range(22, 39)
    for _ in range(rng.choice((0, 1, 1, 2, 8))):
        at = min(14 + int(rng.expovariate(1 / 24)), len(made) - 1)
        value = rng.choice((0, 0xFF, made[at] ^ 1 << rng.randrange(8), rng.randrange(256)))
        made[at] = made[at] if at in fixed else value
    choice = rng.randrange(4)
    if choice == 0:
        made = made[: rng.randrange(14, len(made) + 1)]
    elif choice == 1:
        made += rng.randbytes(rng.randrange(200))
    if rng.randrange(2) and len(made) > 54:
        return resealed(bytes(made))
    return bytes(made)


def test_every_packet_is_accounted_for(ports: Ports) -> None:
    """Issue 4, item 5: whatever comes, it is a frame of a port, a drop with its reason, or the
    host's."""
    rng, rig = Random(SEED), ports.rig
    print("seed", SEED)
    whole = [ports.outer(name) for name in ports.names]
    whole += [
        replace(each, src=STRANGER.ipv6 if ":" in each.src else STRANGER.ipv4) for each in whole
    ]
    intact = [encode(outer) for outer in whole]

    def accounted() -> int:
        counts = rig.all_counts().values()
        arrived = sum(each.get("rx_packets", 0) for each in counts)
        arrived += sum(each.get(f"drop_{reason}", 0) for each in counts for reason in OUTER_DROPS)
        return arrived + rig.under.host.call(host_received)

    before = accounted()
    for _ in range(20):
        rig.under.send(*(mutation(rng, rng.choice(intact)) for _ in range(PACKETS // 20)))
    assert eventually(lambda: accounted() == before + PACKETS), accounted() - before
    reasons = {reason for _, reason in rig.dropped()}
    assert reasons >= set(OUTER_DROPS) - {"ecn", "decapsulation"}
    rig.introduce("")
