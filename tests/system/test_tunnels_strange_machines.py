# SPDX-License-Identifier: Apache-2.0
"""Super-frames as virtual machines hand them over, with tags in their bytes and checksums begun,
into tunnels: what comes out is held against frames that were made one by one."""

import socket
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import pytest
from scapy.layers.inet import IP, TCP, UDP
from scapy.layers.inet6 import IPv6
from scapy.layers.l2 import Dot1Q, Ether
from scapy.packet import Packet
from tests.oracle.tunnel import checksum
from tests.system.remote_span import RemoteSpan, outers
from tests.system.test_odd_frames import NEEDS_CSUM, PACKET_VNET_HDR, TCPV4, TCPV6, UDP_L4, VIRTIO
from tools.lab.capture import SOL_PACKET
from tools.lab.lab import Lab
from tools.lab.namespaces import one_processor

SIZE, SEGMENTS = 1400, 8
SAID = bytes(number % 251 for number in range(SIZE * SEGMENTS - 399))
TAGS = (), ((5, 3),), ((200, 2), (7, 1))  # VID and PCP
TUNNELS = [
    ("gre", "options:key=7 options:csum=true options:seq=true"),
    ("erspan", "options:erspan_ver=1"),
    ("erspan", "options:erspan_ver=2"),
    ("vxlan", "options:csum=true"),
]


@dataclass(frozen=True)
class Speech:
    """SAID by TCP or UDP over IPv4 or IPv6, in tags."""

    tcp: bool
    ipv6: bool
    tags: tuple[tuple[int, int], ...]

    def frame(self, number: int, said: bytes, *, last: bool) -> Packet:
        """Segment `number`, which scapy gives its lengths and checksums."""
        made = Ether(src="02:00:00:00:00:01", dst="02:00:00:00:00:02")
        for vid, priority in self.tags:
            made /= Dot1Q(vlan=vid, prio=priority)
        if self.ipv6:
            made /= IPv6(src="fd07::1", dst="fd07::2", hlim=9)
        else:
            made /= IP(src="10.7.0.1", dst="10.7.0.2", id=100 + number, flags="DF", ttl=9)
        if self.tcp:
            flags = "PA" if last else "A"
            made /= TCP(sport=1000, dport=2000, seq=5000 + number * SIZE, flags=flags)
        else:
            made /= UDP(sport=1000, dport=2000)
        return made / said

    @property
    def start(self) -> int:
        """Where its TCP or UDP begins."""
        return 14 + 4 * len(self.tags) + (40 if self.ipv6 else 20)

    def handed_over(self) -> bytes:
        """All of it behind a virtio header, with the sum of the pseudo-header in the checksum."""
        whole = bytearray(bytes(self.frame(0, SAID, last=True)))
        kind = TCPV6 if self.ipv6 else TCPV4
        head, at = (20, 16) if self.tcp else (8, 6)
        addresses = whole[self.start - (32 if self.ipv6 else 8) : self.start]
        length = len(whole) - self.start
        pseudo = bytes(addresses) + bytes([0, 6 if self.tcp else 17]) + length.to_bytes(2, "big")
        begun = checksum(pseudo) ^ 0xFFFF
        whole[self.start + at : self.start + at + 2] = begun.to_bytes(2, "big")
        words = (NEEDS_CSUM, kind if self.tcp else UDP_L4, self.start + head, SIZE, self.start, at)
        return VIRTIO.pack(*words) + bytes(whole)

    def on_the_wire(self) -> list[bytes]:
        parts = [SAID[at : at + SIZE] for at in range(0, len(SAID), SIZE)]
        made = enumerate(parts)
        return [bytes(self.frame(n, part, last=n == len(parts) - 1)) for n, part in made]


SPEECHES = [
    Speech(tcp, ipv6, tags) for tcp in (True, False) for ipv6 in (False, True) for tags in TAGS
]


@pytest.fixture(scope="module")
def span(tokens: list[str]) -> Iterator[RemoteSpan]:
    lab = Lab()
    tokens.append(lab.token)
    with lab:
        made = RemoteSpan(lab)
        made.under.ready()
        yield made
        for process in lab.processes:
            print(process.log_text())


def said_by(span: RemoteSpan, speeches: Sequence[Speech]) -> None:
    with span.site.guests["tap1"].packet_socket("tap1", 0) as sender:
        sender.setsockopt(SOL_PACKET, PACKET_VNET_HDR, 1)
        sender.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
        for speech in speeches:
            sender.send(speech.handed_over())


@pytest.mark.parametrize(
    ("kind", "options", "snaplen"), [*((*tunnel, 0) for tunnel in TUNNELS), (*TUNNELS[0], 100)]
)
def test_departure_10_super_frames_of_virtual_machines(
    span: RemoteSpan, kind: str, options: str, snaplen: int
) -> None:
    """D4, rules 109 and 114: each segment by itself, byte for byte, cut before it is wrapped."""
    columns = "select_src_port=@1" + (f" snaplen={snaplen}" if snaplen else "")
    span.mirror(kind, options, columns=columns)
    span.until_well()
    wanted = [frame[: snaplen or None] for speech in SPEECHES for frame in speech.on_the_wire()]
    # On another processor, one might overtake another on its way through the segmenter.
    with one_processor(), span.under.capture() as wire:
        said_by(span, SPEECHES)
        found = outers(wire, len(wanted))
    assert len(found) == len(wanted)
    # Their numbers, for lists of long frames are no message.
    pairs = enumerate(zip(found, wanted, strict=True))
    assert [number for number, (outer, frame) in pairs if outer.inner != frame] == []
    if kind != "vxlan":
        assert [outer.seq for outer in found] == list(range(len(wanted)))
    told = span.site.live("m0")
    assert told["tx_packets"] == len(wanted)
    assert told["tx_bytes"] == sum(
        len(frame) for speech in SPEECHES for frame in speech.on_the_wire()
    )
