# SPDX-License-Identifier: Apache-2.0
"""Super-frames of real sockets into tunnels: every segment once, by itself, and right.

The guests' kernels hand over up to 64 KB at once with the checksum pending, as on any host. What
arrives at the underlay's far end has to be what a wire without offloads would have shown (D10).
"""

import socket
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from random import Random

import pytest
from tests.oracle.tunnel import Outer, checksum, decode
from tests.system.fan import JUMBO, MTU, TRUNK, TUNNELS, Case, Fan, is_tagged
from tests.system.underlay import FAR, NEAR, Pair, is_tunnelled
from tools.lab.capture import Frame
from tools.lab.lab import Lab
from tools.lab.namespaces import Namespace, one_processor
from tools.lab.processes import eventually

from heliograph.kernel.layouts import VlanMode
from heliograph.switch.feedback import LiveCounters

SENT = Random(5).randbytes(1_000_000)
IN_FLIGHT = 1 << 16  # at most a super-frame, whose segments fit into the kernel's queues
TCP, UDP = 6, 17
UDP_SEGMENT = 103
# One of each kind and family, with sequence numbers where there can be any.
CHOSEN = tuple(
    {
        (t.sends.kind, t.sends.family): t
        for t in TUNNELS
        if t.sends.csum or t.sends.seq is not None
    }.values()
)


@pytest.fixture(scope="module")
def fan(tokens: list[str]) -> Iterator[Fan]:
    """Guests with addresses: 10.8.0.N and fd08::N."""
    lab = Lab()
    tokens.append(lab.token)
    with lab:
        fan = Fan.build(lab, CHOSEN)
        for number, (name, guest) in enumerate(fan.site.guests.items(), start=1):
            guest.address_up(name, f"10.8.0.{number}/24")
            for key, value in (
                ("accept_dad", "0"),
                ("router_solicitations", "0"),
                ("mldv2_unsolicited_report_interval", "1"),  # what it says unasked, it says now
                ("disable_ipv6", "0"),
            ):
                guest.set_sysctl(f"ipv6/conf/{name}/{key}", value)
            guest.ip(f"address add fd08::{number}/64 dev {name} nodad")
        yield fan
        for process in lab.processes:
            print(process.log_text())


def transfer(client: Namespace, server: Namespace, address: str) -> int:
    """Sends SENT over TCP; returns how many segments had to be sent again.

    All on one processor: else the kernel itself has some overtake others.
    """
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    listener = server.call(lambda: socket.create_server((address, 5001), family=family))
    before, got = _again(client), bytearray()
    with (
        one_processor(),
        listener,
        client.call(lambda: socket.create_connection((address, 5001))) as sender,
        listener.accept()[0] as receiver,
    ):
        sent = 0
        while len(got) < len(SENT):
            if sent - len(got) < IN_FLIGHT:
                sent += sender.send(SENT[sent : sent + IN_FLIGHT])
            got += receiver.recv(1 << 20)
    assert got == SENT
    return _again(client) - before


def _again(namespace: Namespace) -> int:
    """Segments that a namespace has sent more than once."""
    text = namespace.call(lambda: Path("/proc/thread-self/net/snmp").read_text())
    names, values = (line.split() for line in text.splitlines() if line.startswith("Tcp:"))
    return int(values[names.index("RetransSegs")])


def payload(frame: bytes) -> tuple[int, int, bytes] | None:
    """Protocol, sequence number (0 of UDP) and data of a frame that is no chatter, whose checksums
    and lengths are right."""
    at = 18 if is_tagged(frame) else 14
    ip = frame[at:]
    if frame[at - 2 : at] == b"\x08\0":
        assert checksum(ip[:20]) == 0
        protocol, size, start, addresses = ip[9], int.from_bytes(ip[2:4], "big"), 20, ip[12:20]
    elif frame[at - 2 : at] == b"\x86\xdd":
        protocol, size, start, addresses = ip[6], 40 + int.from_bytes(ip[4:6], "big"), 40, ip[8:40]
    else:
        return None
    if protocol not in (TCP, UDP):
        return None
    assert len(ip) == size
    packet = ip[start:]
    assert checksum(addresses + bytes([0, protocol]) + len(packet).to_bytes(2, "big") + packet) == 0
    if protocol == UDP:
        return UDP, 0, packet[8:]
    return TCP, int.from_bytes(packet[4:8], "big"), packet[packet[12] >> 4 << 2 :]


def stream(frames: Sequence[bytes], again: int) -> bytes:
    """What the TCP segments to the server say together: in order, and none is there more often
    than it was sent."""
    found = [seen for frame in frames if (seen := payload(frame)) and seen[0] == TCP and seen[2]]
    numbers = [number for _, number, _ in found]
    assert len(numbers) - len(set(numbers)) <= again
    assert again or numbers == sorted(numbers)
    said = bytearray(len(SENT))
    for _, number, data in found:
        at = number - min(numbers)
        said[at : at + len(data)] = data
    return bytes(said)


def in_order(outers: Sequence[Outer]) -> bool:
    """Rules 109 and 114: numbered one by one, if at all."""
    numbers = [outer.seq for outer in outers if outer.seq is not None]
    return not numbers or numbers == list(range(numbers[0], numbers[0] + len(outers)))


@pytest.mark.parametrize(
    ("address", "mtu", "tag"),
    [
        ("10.8.0.2", 1500, ""),
        ("fd08::2", 1500, ""),
        ("10.8.0.2", 1500, "5"),
        ("fd08::2", 9000, "5"),
    ],
)
def test_departure_10_a_mirrored_stream(fan: Fan, address: str, mtu: int, tag: str) -> None:
    """Every segment of both directions, in every tunnel alike, with a header that says what it is
    (rules 104 to 123, D5). The copy from an access port has a tag (rule 36)."""
    client, server = fan.site.guests.values()
    for name, guest in fan.site.guests.items():
        guest.ip(f"link set {name} mtu {mtu}")
        fan.site.ovs.vsctl(f"set port {name} tag={tag or '[]'}")
    fan.mirror("select_src_port=@p1 select_dst_port=@p1")
    with fan.under.capture() as capture:
        before = fan.counters()
        again = transfer(client, server, address)
        seen = capture.collect(keep=is_tunnelled)
        after = fan.counters()
        seen += capture.collect(counted(fan, before, after) - len(seen), keep=is_tunnelled)
    assert not any(frame.pending_checksum for frame in seen)
    carried, own = fan.carried(seen), client.mac("p1")
    assert carried.keys() == {tunnel.name for tunnel in CHOSEN}
    frames = by_source(carried[CHOSEN[0].name])
    assert stream([frame for frame in frames if frame[6:12] == own], again) == SENT
    assert max(map(len, frames)) == 14 + mtu + (4 if tag else 0)
    mode = replace(TRUNK, mode=VlanMode.ACCESS, tag=5) if tag else TRUNK
    for tunnel in CHOSEN:
        outers = carried[tunnel.name]
        assert by_source(outers) == frames
        assert in_order(outers)
        for outer in outers:
            case = Case(mode) if outer.inner[6:12] == own else Case(mode, sink=mode)
            bare = outer.inner[:12] + outer.inner[16:] if tag else outer.inner
            assert as_variable(outer) == case.outer(tunnel, bare)
        length = sum(map(len, frames)) - (4 * len(frames) if tag else 0)
        row = fan.uuids["mirror", f"m{tunnel.name}"]
        told = Counter(after.mirrors[row]) - Counter(before.mirrors[row])
        assert told == {"tx_packets": len(frames), "tx_bytes": length}
        ways = {(outer.inner[:12], outer.sport) for outer in outers if payload(outer.inner)}
        assert len(ways) == 2, "one UDP source port for each direction of a flow, at most"


def test_departure_10_every_segments_head_arrives(fan: Fan) -> None:
    """Cut to the path's MTU or to the snaplen (D4), of which each is told in its own header, and
    counted: a segment and not a super-frame has been cut."""
    client, server = fan.site.guests.values()
    client.ip(f"link set p1 mtu {JUMBO}")
    fan.mirror("select_src_port=@p1")
    fan.settle(1500)
    for name, guest in fan.site.guests.items():
        guest.ip(f"link set {name} mtu 1500")
        fan.site.ovs.vsctl(f"clear port {name} tag")
    for snaplen in 0, 18, 100:
        fan.mirror(f"select_src_port=@p1 {f'snaplen={snaplen}' if snaplen else ''}")
        with fan.under.capture() as capture:
            transfer(client, server, "10.8.0.2")
            seen = capture.collect(keep=is_tunnelled)
            counters = fan.counters()
        for name, outers in fan.carried(seen).items():
            room = 1500 - next(tunnel.headers for tunnel in CHOSEN if tunnel.name == name)
            told = counters.mirrors[fan.uuids["mirror", f"m{name}"]]
            check_heads(outers, told, room, snaplen)
    client.ip(f"link set p1 mtu {JUMBO}")
    fan.mirror("select_src_port=@p1")
    fan.settle(MTU)


def counted(fan: Fan, before: LiveCounters, after: LiveCounters) -> int:
    """Copies that went into all tunnels between two readings."""
    rows = [fan.uuids["mirror", f"m{tunnel.name}"] for tunnel in CHOSEN]
    return sum(after.mirrors[r]["tx_packets"] - before.mirrors[r]["tx_packets"] for r in rows)


def check_heads(outers: Sequence[Outer], told: dict[str, int], room: int, snaplen: int) -> None:
    """That a cut stream is all there, and what its mirror counted of it."""
    assert in_order(outers)
    assert max(len(outer.inner) for outer in outers) == (snaplen or room)
    for outer in outers:
        if outer.erspan and outer.inner[12:14] == b"\x08\0":
            length = 14 + int.from_bytes(outer.inner[16:18], "big")
            assert outer.erspan.truncated == (length > len(outer.inner))
    cut = 0 if snaplen else sum(len(outer.inner) == room for outer in outers)
    assert told.get("cut_mtu", 0) == cut
    assert told.keys() - {"cut_mtu"} == {"tx_packets", "tx_bytes"}, "something was dropped"
    assert told["tx_packets"] == len(outers)
    assert told["tx_bytes"] > len(SENT) + 66 * (len(SENT) // 1448)


def test_departure_10_a_stream_in_a_guests_own_tunnel(fan: Fan) -> None:
    """Its super-frames have two headers of each kind, which are all made right."""
    guests = client, server = tuple(fan.site.guests.values())
    for number, guest in enumerate(guests, start=1):
        fan.site.ovs.vsctl(f"clear port p{number} tag")
        guest.ip(f"link set p{number} mtu 1500")
        guest.ip(
            f"link add vx type vxlan id 5 remote 10.8.0.{3 - number} dstport 4789 dev p{number}"
        )
        guest.ip("link set vx mtu 1450")
        guest.address_up("vx", f"10.20.0.{number}/24")
    fan.mirror("select_src_port=@p1")
    with fan.under.capture() as capture:
        again = transfer(client, server, "10.20.0.2")
        seen = capture.collect(keep=is_tunnelled)
    for guest in guests:
        guest.ip("link del vx")
    for outers in fan.carried(seen).values():
        assert in_order(outers)
        own = [decode(o.inner) for o in outers if is_tunnelled(Frame(o.inner, len(o.inner)))]
        assert stream([outer.inner for outer in own], again) == SENT
        assert max(len(outer.inner) for outer in own) == 1464


@pytest.mark.parametrize("address", ["10.8.0.2", "fd08::2"])
def test_departure_10_datagrams_sent_as_one(fan: Fan, address: str) -> None:
    """UDP has super-frames, too: each datagram has its own length and checksum."""
    client, server = fan.site.guests.values()
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    sender, receiver = (
        guest.call(lambda: socket.socket(family, socket.SOCK_DGRAM)) for guest in (client, server)
    )
    data = SENT[: 20 * 1000 + 300]
    with sender, receiver, fan.under.capture() as capture:
        receiver.bind((address, 5002))
        fan.mirror("select_src_port=@p1")
        sender.setsockopt(socket.SOL_UDP, UDP_SEGMENT, 1000)
        sender.sendto(data, (address, 5002))
        seen = capture.collect(21 * len(CHOSEN), keep=is_tunnelled)
    for outers in fan.carried(seen).values():
        found = [told[2] for outer in outers if (told := payload(outer.inner)) and told[0] == UDP]
        assert [len(datagram) for datagram in found] == [1000] * 20 + [300]
        assert b"".join(found) == data
        assert in_order(outers)


def by_source(outers: Sequence[Outer]) -> list[bytes]:
    """The inner frames of one direction after those of the other, each in order."""
    return sorted((outer.inner for outer in outers), key=lambda frame: frame[6:12])


def as_variable(outer: Outer) -> Outer:
    """Without what depends on time, and on which flow it is."""
    erspan = outer.erspan and replace(outer.erspan, timestamp=0)
    return replace(outer, seq=None if outer.seq is None else 0, sport=None, erspan=erspan)


ORDINARY = [
    ("gre", 4, "type=gre options:key=7 options:seq=true"),
    ("gre", 6, "type=gre options:csum=true options:seq=true"),
    ("erspan1", 4, "type=erspan options:erspan_ver=1 options:key=7"),
    ("erspan2", 6, "type=erspan options:erspan_ver=2 options:key=7"),
    ("vxlan", 4, "type=vxlan options:key=7"),
    ("vxlan", 6, "type=vxlan options:key=7"),
]


def test_departure_10_the_stream_itself(lab: Lab) -> None:
    """Between two bridges that a tunnel joins, of each kind."""
    pair = Pair.build(lab)
    ends = ((pair.near, FAR), (pair.far, NEAR))
    client, server = pair.near.guests["tap1"], pair.far.guests["tap2"]
    client.address_up("tap1", "10.8.0.1/24")
    server.address_up("tap2", "10.8.0.2/24")
    for kind, family, words in ORDINARY:
        for site, peer in ends:
            remote = peer.ipv4 if family == 4 else peer.ipv6
            site.ovs.vsctl(
                f"--if-exists del-port br0 tun0 -- add-port br0 tun0"
                f" -- set interface tun0 {words} options:remote_ip={remote}"
            )
        assert eventually(lambda: client.ping("10.8.0.2", 1) == 1)
        with pair.underlay.capture() as capture:
            again = transfer(client, server, "10.8.0.2")
            seen = capture.collect(keep=is_tunnelled)
        outers = [decode(frame.data) for frame in seen]
        assert {(outer.kind, outer.family) for outer in outers} == {(kind, family)}
        assert in_order(outers)
        assert stream([outer.inner for outer in outers], again) == SENT
        assert max(len(outer.inner) for outer in outers) == 1514
        assert len({outer.sport for outer in outers if payload(outer.inner)}) == 1
