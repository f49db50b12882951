# SPDX-License-Identifier: Apache-2.0
"""Random frames for flow tables: few values of everything, so that flows match and meet.

No address is both source and destination, so that a switch that learns still floods.

What Open vSwitch 3.1 does not do right, and `stock` leaves out: it loses the drop-eligible bit; its
NORMAL does with the tag of VLAN 0 what it did for the priority of the frame before; it changes the
payload of later IPv4 fragments as if the header of TCP, UDP or ICMP were there, and IP headers that
it could not parse; with IPv6 addresses it changes no checksum behind a routing header with segments
left or in a fragment that is the whole; it changes nothing of RARP, nor of ARP whose operation does
not fit into 8 bits, but ARP of other hardware than Ethernet.
"""

from dataclasses import dataclass
from random import Random

from tests.oracle.flow_pipeline_frame import ARP, FRAGMENT, ICMP, ICMPV6, IPV4, IPV6, TCP, UDP

SOURCES = [bytes.fromhex("0200000000") + bytes([n]) for n in (1, 2, 3)]
DESTINATIONS = [
    *(bytes.fromhex("0200000001") + bytes([n]) for n in (1, 2, 3)),
    b"\xff" * 6,
    bytes.fromhex("01005e000001"),
    bytes.fromhex("3333ff000001"),
]
ADDRESSES = [bytes([10, 0, net, last]) for net in (0, 1) for last in (1, 2, 200)]
ADDRESSES6 = [bytes.fromhex("fd07" + "00" * 12 + last) for last in ("0001", "0002", "ff00")] + [
    bytes.fromhex("fe80" + "00" * 13 + "09")
]
PORTS = (0, 80, 443, 5000, 65535)
_NO_IP = (b"\x08\x06", b"\x88\xb5")
_SHORTEST = 24  # a device takes no frame that ends right behind its tag, and it may lose one more
VIDS = (0, 5, 6, 100, 4095)


def checksum(data: bytes) -> int:
    """RFC 1071, plainly."""
    data += bytes(len(data) % 2)
    total = sum(int.from_bytes(data[n : n + 2], "big") for n in range(0, len(data), 2))
    while total > 0xFFFF:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def with_sum(segment: bytes, place: int, pseudo: bytes, *, udp: bool = False) -> bytes:
    found = checksum(pseudo + segment[:place] + b"\0\0" + segment[place + 2 :])
    found = found or (0xFFFF if udp else 0)
    return segment[:place] + found.to_bytes(2, "big") + segment[place + 2 :]


@dataclass
class Frames:
    random: Random
    stock: bool = False  # only what Open vSwitch does right
    drop_eligible: bool = True  # also tags with that bit

    def frame(self) -> bytes:
        random = self.random
        payload = random.choice([self.ipv4, self.ipv4, self.ipv4, self.ipv6, self.ipv6])
        if random.random() < 0.2:
            payload = random.choice([self.arp, self.other])
        kind = payload()
        whole = random.choice(DESTINATIONS) + random.choice(SOURCES) + self.tags() + kind
        if random.random() < 0.15:
            whole += bytes(random.choice([1, 6, 30]))  # padding
        if random.random() < 0.07 and (kind[:2] in _NO_IP or not self.stock):
            whole = whole[: random.randint(_SHORTEST, max(len(whole), _SHORTEST))]
        return whole

    def tags(self) -> bytes:
        tags = b""
        for _ in range(self.random.choice([0, 0, 0, 1, 1, 2])):
            tpid = self.random.choice([0x8100, 0x8100, 0x88A8])
            vid, priority = self.random.choice(VIDS), self.random.choice([0, 0, 3, 7])
            tci = vid | (priority << 13 if vid or not self.stock else 0)
            marked = self.random.random() < 0.1 and self.drop_eligible and not self.stock
            if tci and marked:
                tci |= 0x1000
            tags += (tpid << 16 | tci).to_bytes(4, "big")
        return tags

    def body(self) -> bytes:
        size = self.random.choice([0, 1, 6, 7, 18, 40, 41, 200, 1000])
        start = self.random.randrange(200)
        return bytes((start + n) % 256 for n in range(size))

    def arp(self) -> bytes:
        random = self.random
        ethernet = random.random() < 0.9 or self.stock
        head = (b"\0\1" if ethernet else b"\0\6") + b"\x08\0\6\4"
        odd = 3 if self.stock else 0x0101
        operation = random.choice([1, 1, 2, 2, odd]).to_bytes(2, "big")
        sender = random.choice(SOURCES) + random.choice(ADDRESSES)
        target = random.choice([bytes(6), *DESTINATIONS]) + random.choice(ADDRESSES)
        kind = ARP if self.stock or random.random() < 0.9 else 0x8035
        return kind.to_bytes(2, "big") + head + operation + sender + target

    def other(self) -> bytes:
        """No IP: unknown types, IEEE 802.3 with LLC and SNAP."""
        body = self.body() + bytes(8)
        snap = b"\xaa\xaa\3\0\0\0" + self.random.choice([b"\x88\xb5", b"\x01\x00"])
        return self.random.choice(
            [
                b"\x88\xb5" + body,
                len(body).to_bytes(2, "big") + b"\x42\x42\3" + body,
                (len(body) + 8).to_bytes(2, "big") + snap + body,
                (len(body) + 8).to_bytes(2, "big") + b"\xaa\xaa\3\0\0\0" + self.ipv4(),
            ]
        )

    # Transport, whose checksums cover what `pseudo` says of the rest

    def transport(self, protocol: int, pseudo: bytes) -> bytes:
        random = self.random
        ports = b"".join(random.choice(PORTS).to_bytes(2, "big") for _ in range(2))
        body = self.body()
        if protocol == TCP:
            flags = random.choice([2, 0x12, 0x10, 0x18, 0x11, 0x1FF]).to_bytes(2, "big")
            offset = random.choice([5, 5, 5, 7, 5 if self.stock else random.choice([0, 4, 15])])
            head = ports + bytes(8) + bytes([offset << 4 | flags[0], flags[1]]) + bytes(6)
            segment, place = head + bytes(max(4 * min(offset, 7) - 20, 0)) + body, 16
        elif protocol == UDP:
            segment, place = ports + (8 + len(body)).to_bytes(2, "big") + bytes(2) + body, 6
        elif protocol == ICMPV6 and random.random() < 0.6:
            segment, place = self.neighbour(), 2
        elif protocol in {ICMP, ICMPV6}:
            kinds = [(8, 0), (0, 0), (3, 1)] if protocol == ICMP else [(128, 0), (129, 0), (1, 3)]
            segment, place = bytes(random.choice(kinds)) + bytes(6) + body, 2
            pseudo = b"" if protocol == ICMP else pseudo
        else:
            return body
        r = random.random()
        if protocol == UDP and r < 0.3:
            return segment  # without a checksum
        if r < 0.95:
            segment = with_sum(segment, place, pseudo_of(pseudo, segment), udp=protocol == UDP)
        return segment

    def neighbour(self) -> bytes:
        random = self.random
        kind = random.choice([135, 135, 136])
        options = b""
        for _ in range(random.choice([0, 1, 1, 2])):
            which = random.choice([1, 2, 14, kind - 134])
            options += bytes([which, 1]) + random.choice(SOURCES)
        head = bytes([kind, random.choice([0, 0, 0, 0, 1])]) + bytes(6)
        return head + random.choice(ADDRESSES6) + options

    def ipv4(self) -> bytes:
        random = self.random
        protocol = random.choice([TCP, TCP, UDP, UDP, ICMP, 47])
        source, target = random.choice(ADDRESSES), random.choice(ADDRESSES)
        options = b"\1" * random.choice([0, 0, 0, 0, 4, 12])
        segment = self.transport(protocol, source + target + bytes([0, protocol]))
        fragment = random.choice([0, 0, 0x4000, 0x4000, 0, 0x2000, 0x2010, 0x0003])
        if self.stock and protocol in {TCP, UDP, ICMP}:
            fragment &= 0xE000
        head = (
            bytes([0x40 | (20 + len(options)) // 4, random.choice([0, 0, 0xB8, 3, 0x29])])
            + (20 + len(options) + len(segment)).to_bytes(2, "big")
            + random.choice([0, 1, 0x1234]).to_bytes(2, "big")
            + fragment.to_bytes(2, "big")
            + bytes([random.choice([64, 64, 255, 2, 1, 0]), protocol])
        )
        head += bytes(2) + source + target + options
        if random.random() < 0.97:
            head = with_sum(head, 10, b"")
        return IPV4.to_bytes(2, "big") + head + segment

    def ipv6(self) -> bytes:
        random = self.random
        protocol = random.choice([TCP, UDP, ICMPV6, ICMPV6, 47])
        source, target = random.choice(ADDRESSES6), random.choice(ADDRESSES6)
        pseudo = source + target + bytes([0, protocol])
        segment = self.transport(protocol, pseudo)
        first, segment = self.extended(protocol, segment)
        tos, label = random.choice([0, 0, 0xB8, 3]), random.choice([0, 0, 0x12345, 0xFFFFF])
        head = (6 << 28 | tos << 20 | label).to_bytes(4, "big")
        head += len(segment).to_bytes(2, "big") + bytes([first])
        head += bytes([random.choice([64, 64, 255, 2, 1, 0])])
        return IPV6.to_bytes(2, "big") + head + source + target + segment

    def extended(self, protocol: int, segment: bytes) -> tuple[int, bytes]:
        """Extension headers in front of a segment."""
        random = self.random
        for _ in range(random.choice([0, 0, 0, 0, 1, 1, 2])):
            kind = random.choice([0, 43, 60, 51, FRAGMENT, FRAGMENT])
            if kind == FRAGMENT:
                offset = random.choice([1, 1, 8, 17, *([] if self.stock else [0])])
                segment = bytes([protocol, 0, *offset.to_bytes(2, "big")]) + b"\0\0\0\7" + segment
            elif kind == 43:
                left = 0 if self.stock else random.choice([0, 1])
                segment = bytes([protocol, 2, 0, left]) + bytes(4) + ADDRESSES6[0] + segment
            elif kind == 51:
                segment = bytes([protocol, 2]) + bytes(14) + segment
            else:
                segment = bytes([protocol, 0, 1, 4]) + bytes(4) + segment
            protocol = kind
        return protocol, segment


def pseudo_of(start: bytes, segment: bytes) -> bytes:
    """With the length of the segment, where there is one at all."""
    if not start:
        return b""
    size = len(segment)
    return start + size.to_bytes(2, "big")
