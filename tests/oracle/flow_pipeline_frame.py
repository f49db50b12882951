# SPDX-License-Identifier: Apache-2.0
"""Of a frame, the fields that flows see; and of changed fields, the frame again.

Written from ovs-fields(7) and the RFCs, by offsets into the frame, to be held against what knows
nothing of it. A field that the frame does not have reads 0. Tags are (TPID, TCI) with 0x1000 for
"there is one"; at most `limit` of them are looked at, and behind the last one what follows is
payload, with the next TPID as its type.
"""

from dataclasses import dataclass

Key = dict[str, int]  # by names of heliograph.openflow.fields; also tpid, tpid1, tci1
CFI = 0x1000
TPIDS = (0x8100, 0x88A8)
IPV4, IPV6, ARP, RARP = 0x0800, 0x86DD, 0x0806, 0x8035
ICMP, TCP, UDP, FRAGMENT, ICMPV6 = 1, 6, 17, 44, 58
FIRST, LATER = 1, 3  # ip_frag
_NO_TYPE = 0x05FF
_OPTIONS = (0, 43, 60)  # hop-by-hop, routing, destination


def number(data: bytes | bytearray, start: int, size: int) -> int:
    return int.from_bytes(data[start : start + size], "big")


@dataclass
class Parsed:
    """A frame as it came, and where in it things are; 0 where they are not."""

    data: bytes
    key: Key
    tags: int = 0  # parsed ones
    l3: int = 0  # of IPv4, IPv6 and ARP that are whole
    l4: int = 0
    end: int = 0  # of what the IP header says is there
    routed: bool = False  # IPv6 with segments left: the checksum has another destination

    @property
    def l4_size(self) -> int:
        return self.end - self.l4 if self.l4 else 0

    def parse(self, limit: int) -> None:
        data, key = self.data, self.key
        key["eth_dst"], key["eth_src"] = number(data, 0, 6), number(data, 6, 6)
        at = 12
        while self.tags < limit and number(data, at, 2) in TPIDS and len(data) - at >= 6:
            tpid, tci = ("tpid1", "tci1") if self.tags else ("tpid", "vlan_tci")
            key[tpid], key[tci] = number(data, at, 2), number(data, at + 2, 2) | CFI
            self.tags += 1
            at += 4
        key["eth_type"], at = self._type(at)
        if key["eth_type"] in {ARP, RARP}:
            self._arp(at)
        elif key["eth_type"] == IPV4:
            self._ipv4(at)
        elif key["eth_type"] == IPV6:
            self._ipv6(at)

    def _type(self, at: int) -> tuple[int, int]:
        """EtherType, also that of a SNAP header, and where its payload begins."""
        data = self.data
        kind = number(data, at, 2)
        if kind >= 0x600:
            return kind, at + 2
        snap = data[at + 2 : at + 8] == b"\xaa\xaa\x03\0\0\0" and len(data) >= at + 10
        if snap and number(data, at + 8, 2) >= 0x600:
            return number(data, at + 8, 2), at + 10
        return _NO_TYPE, at + 2

    def _arp(self, at: int) -> None:
        data, key = self.data, self.key
        if len(data) < at + 28 or data[at : at + 6] != b"\0\1\x08\0\6\4":
            return
        if number(data, at + 6, 2) <= 0xFF:
            key["arp_op"] = number(data, at + 6, 2)
        key["arp_sha"], key["arp_spa"] = number(data, at + 8, 6), number(data, at + 14, 4)
        key["arp_tha"], key["arp_tpa"] = number(data, at + 18, 6), number(data, at + 24, 4)
        self.l3 = at

    def _ipv4(self, at: int) -> None:
        data, key = self.data, self.key
        header, total = (data[at] & 15) * 4 if len(data) > at else 0, number(data, at + 2, 2)
        if header < 20 or len(data) < at + header or not header <= total <= len(data) - at:
            return
        offset = number(data, at + 6, 2)
        key["ip_frag"] = LATER if offset & 0x1FFF else FIRST if offset & 0x2000 else 0
        key["ip_dscp"], key["nw_ecn"] = data[at + 1] >> 2, data[at + 1] & 3
        key["nw_ttl"], key["nw_proto"] = data[at + 8], data[at + 9]
        key["ip_src"], key["ip_dst"] = number(data, at + 12, 4), number(data, at + 16, 4)
        self.l3, self.l4, self.end = at, at + header, at + total
        self._transport()

    def _ipv6(self, at: int) -> None:
        data, key = self.data, self.key
        end = at + 40 + number(data, at + 4, 2)
        if len(data) < at + 40 or len(data) < end:
            return
        key["ipv6_src"], key["ipv6_dst"] = number(data, at + 8, 16), number(data, at + 24, 16)
        found = self._extensions(at + 40, data[at + 6], end)
        if found is None:
            return
        key["nw_proto"], self.l4 = found
        word = number(data, at, 4)
        key["ip_dscp"], key["nw_ecn"] = word >> 22 & 0x3F, word >> 20 & 3
        key["ipv6_label"], key["nw_ttl"] = word & 0xFFFFF, data[at + 7]
        self.l3, self.end = at, end
        self._transport()

    def _extensions(self, at: int, kind: int, end: int) -> tuple[int, int] | None:
        """The protocol behind the extension headers and where; None: they are cut short."""
        data, key = self.data, self.key
        while kind in {*_OPTIONS, 51, FRAGMENT}:
            if end - at < 8:
                return None
            size = (data[at + 1] + 2) * 4 if kind == 51 else (data[at + 1] + 1) * 8
            if kind == FRAGMENT:
                size, offset = 8, number(data, at + 2, 2)
                if offset & 0xFFF8:
                    key["ip_frag"] = LATER
                    return FRAGMENT, at + 8
                if offset:
                    key["ip_frag"] = FIRST
            self.routed |= kind == 43 and data[at + 3] > 0
            kind, at = data[at], at + size
            if at > end:
                return None
        return kind, at

    def _transport(self) -> None:
        data, key, at, size = self.data, self.key, self.l4, self.l4_size
        kind = key["eth_type"], key["nw_proto"]
        if key.get("ip_frag") == LATER:
            return
        if kind[1] == TCP and size >= 20:
            key["tcp_src"], key["tcp_dst"] = number(data, at, 2), number(data, at + 2, 2)
            key["tcp_flags"] = number(data, at + 12, 2) & 0xFFF
        elif kind[1] == UDP and size >= 8:
            key["udp_src"], key["udp_dst"] = number(data, at, 2), number(data, at + 2, 2)
        elif kind == (IPV4, ICMP) and size >= 8:
            key["icmp_type"], key["icmp_code"] = data[at], data[at + 1]
        elif kind == (IPV6, ICMPV6) and size >= 8:
            key["icmpv6_type"], key["icmpv6_code"] = data[at], data[at + 1]
            if data[at] in {135, 136} and data[at + 1] == 0 and size >= 24:
                self._neighbour()

    def _neighbour(self) -> None:
        """Target and link-layer addresses; two of one kind make all of it void."""
        key, at = self.key, self.l4 + 24
        key["nd_target"] = number(self.data, self.l4 + 8, 16)
        while self.end - at >= 8:
            size = self.data[at + 1] * 8
            if not size or size > self.end - at:
                return
            name = {1: "nd_sll", 2: "nd_tll"}.get(self.data[at], "")
            if name and size == 8:
                if key.get(name):
                    for void in ("nd_target", "nd_sll", "nd_tll"):
                        key.pop(void, None)
                    return
                key[name] = number(self.data, at + 2, 6)
            at += size


def parse(data: bytes, in_port: int, limit: int = 1) -> Parsed:
    """`limit`: other_config:vlan-limit."""
    parsed = Parsed(data, {"in_port": in_port})
    parsed.parse(limit)
    return parsed


def tags_of(key: Key) -> list[tuple[int, int]]:
    """From the outer one on, as long as there are."""
    found = []
    for tpid, tci in (("tpid", "vlan_tci"), ("tpid1", "tci1")):
        if not key.get(tci, 0) & CFI:
            break
        found.append((key.get(tpid, 0), key[tci]))
    return found


class _Writer:
    """Changes a frame where the fields of a key differ from those it had."""

    def __init__(self, parsed: Parsed, key: Key) -> None:
        self.parsed, self.new = parsed, key
        self.data = bytearray(parsed.data)

    def changed(self, *names: str) -> bool:
        return any(self.new.get(n, 0) != self.parsed.key.get(n, 0) for n in names)

    def put(self, at: int, value: int, size: int, *sums: int) -> None:
        """Write a number, and mend the checksums at these places (all of them at even ones)."""
        first, last = at & ~1, (at + size + 1) & ~1
        before = bytes(self.data[first:last])
        self.data[at : at + size] = value.to_bytes(size, "big")
        after = bytes(self.data[first:last])
        for place in sums:
            if place and before != after:
                self._mend(place, before, after)

    def _mend(self, place: int, before: bytes, after: bytes) -> None:
        """RFC 1624, equation 3."""
        udp = place == self.parsed.l4 + 6 and self.parsed.key.get("nw_proto") == UDP
        old = number(self.data, place, 2)
        if udp and not old:
            return  # the sender made none
        total = ~old & 0xFFFF
        for at in range(0, len(before), 2):
            total += (~number(before, at, 2) & 0xFFFF) + number(after, at, 2)
        while total > 0xFFFF:
            total = (total & 0xFFFF) + (total >> 16)
        new = ~total & 0xFFFF
        self.data[place : place + 2] = (new or (0xFFFF if udp else 0)).to_bytes(2, "big")

    def write(self) -> bytes:
        key, parsed = self.new, self.parsed
        for at, name in ((0, "eth_dst"), (6, "eth_src")):
            if self.changed(name):
                self.put(at, key[name], 6)
        kind = parsed.key["eth_type"]
        if parsed.l3 and kind in {ARP, RARP}:
            self._arp()
        elif parsed.l3 and kind == IPV4:
            self._ipv4()
            self._transport()
        elif parsed.l3 and kind == IPV6:
            self._ipv6()
            self._transport()
        return self._with_tags()

    def _arp(self) -> None:
        at = self.parsed.l3
        for name, offset, size in (
            ("arp_op", 6, 2),
            ("arp_sha", 8, 6),
            ("arp_spa", 14, 4),
            ("arp_tha", 18, 6),
            ("arp_tpa", 24, 4),
        ):
            if self.changed(name):
                self.put(at + offset, self.new.get(name, 0), size)

    def _sum(self) -> int:
        """Where the checksum is that covers the addresses."""
        parsed, proto = self.parsed, self.parsed.key["nw_proto"]
        if parsed.key.get("ip_frag") == LATER:
            return 0
        places = {TCP: (16, 20), UDP: (6, 8)}
        if parsed.key["eth_type"] == IPV6:
            places[ICMPV6] = (2, 8)
        if proto == TCP and not self._whole_tcp():
            return 0  # other than in Open vSwitch
        place, header = places.get(proto, (0, 0))
        return parsed.l4 + place if header and parsed.l4_size >= header else 0

    def _whole_tcp(self) -> bool:
        parsed = self.parsed
        if parsed.l4_size < 20:
            return False
        return 20 <= (parsed.data[parsed.l4 + 12] >> 4) * 4 <= parsed.l4_size

    def _ipv4(self) -> None:
        at, key = self.parsed.l3, self.new
        if self.changed("ip_dscp", "nw_ecn"):
            self.put(at + 1, key["ip_dscp"] << 2 | key["nw_ecn"], 1, at + 10)
        if self.changed("nw_ttl"):
            self.put(at + 8, key["nw_ttl"], 1, at + 10)
        for name, offset in (("ip_src", 12), ("ip_dst", 16)):
            if self.changed(name):
                self.put(at + offset, key[name], 4, at + 10, self._sum())

    def _ipv6(self) -> None:
        at, key = self.parsed.l3, self.new
        if self.changed("ip_dscp", "nw_ecn", "ipv6_label"):
            word = 6 << 28 | key["ip_dscp"] << 22 | key["nw_ecn"] << 20 | key["ipv6_label"]
            self.put(at, word, 4)
        if self.changed("nw_ttl"):
            self.put(at + 7, key["nw_ttl"], 1)
        if self.changed("ipv6_src"):
            self.put(at + 8, key["ipv6_src"], 16, self._sum())
        if self.changed("ipv6_dst"):
            covered = 0 if self.parsed.routed else self._sum()
            self.put(at + 24, key["ipv6_dst"], 16, covered)

    def _transport(self) -> None:
        parsed, at, size = self.parsed, self.parsed.l4, self.parsed.l4_size
        if parsed.key.get("ip_frag") == LATER:
            return
        kind = parsed.key["eth_type"], parsed.key["nw_proto"]
        if kind[1] == TCP and self._whole_tcp():
            self._pair(at, 2, at + 16, "tcp_src", "tcp_dst")
        elif kind[1] == UDP and size >= 8:
            self._pair(at, 2, at + 6, "udp_src", "udp_dst")
        elif kind == (IPV4, ICMP) and size >= 8:
            self._pair(at, 1, at + 2, "icmp_type", "icmp_code")
        elif kind == (IPV6, ICMPV6) and size >= 8:
            self._pair(at, 1, at + 2, "icmpv6_type", "icmpv6_code")
            if size >= 24:
                self._neighbour()

    def _pair(self, at: int, size: int, place: int, *names: str) -> None:
        for name in names:
            if self.changed(name):
                self.put(at, self.new.get(name, 0), size, place)
            at += size

    def _neighbour(self) -> None:
        parsed, place = self.parsed, self.parsed.l4 + 2
        if self.changed("nd_target"):
            self.put(parsed.l4 + 8, self.new.get("nd_target", 0), 16, place)
        at = parsed.l4 + 24
        while parsed.end - at >= 8 and parsed.data[at + 1]:
            name = {1: "nd_sll", 2: "nd_tll"}.get(parsed.data[at], "")
            if name and parsed.data[at + 1] == 1:
                if self.changed(name):
                    self.put(at + 2, self.new.get(name, 0), 6, place)
                return  # a message has one of them
            at += parsed.data[at + 1] * 8

    def _with_tags(self) -> bytes:
        """Those that are as they were, from the inner one on, stay to the bit."""
        old, new = tags_of(self.parsed.key), tags_of(self.new)
        same = 0
        while same < min(len(old), len(new)) and old[-1 - same] == new[-1 - same]:
            same += 1
        made = b"".join(
            (tpid << 16 | tci & ~CFI).to_bytes(4, "big") for tpid, tci in new[: len(new) - same]
        )
        kept = 12 + 4 * (len(old) - same)
        return bytes(self.data[:12]) + made + bytes(self.data[kept:])


def emit(parsed: Parsed, key: Key) -> bytes:
    """The frame with the fields of `key`."""
    return _Writer(parsed, key).write()
