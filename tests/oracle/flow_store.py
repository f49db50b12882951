# SPDX-License-Identifier: Apache-2.0
"""The data plane's look-up (bpf/classify.h) over the bytes of a store, and what it must find.

`look_up` knows the layout and nothing of who wrote it; `best` knows flows and nothing of stores.
"""

from collections.abc import Iterable, Mapping, Sequence
from random import Random

from heliograph.flows.flow import Flow
from heliograph.flows.tables import Tables
from heliograph.kernel import layouts
from heliograph.kernel.layouts import KeyWord, Op
from heliograph.openflow.match import ANYTHING, Masked, Match

_LONG = (1 << 64) - 1
Key = Sequence[int]
Packet = Mapping[str, int]


def cell(data: bytes | bytearray, number: int) -> bytes:
    return bytes(data[number * 128 : (number + 1) * 128])


def version_of(data: bytes | bytearray) -> int:
    return layouts.StoreHeader.unpack(cell(data, 0)).version


def look_up(
    data: bytes | bytearray, table: int, key: Key, version: int
) -> tuple[int, layouts.StoreRule] | None:
    """The cell of the rule that a frame of this version meets, and the rule."""
    header = layouts.StoreHeader.unpack(cell(data, 0))
    row = layouts.StoreTable.unpack(cell(data, 1 + table))
    best: tuple[int, layouts.StoreRule] | None = None
    for number in range(row.masks, row.masks + row.number):
        mask = layouts.StoreMask.unpack(cell(data, number))
        if best is not None and best[1].priority >= mask.priority:
            break
        if (key[mask.skip_word] ^ mask.skip_value) & mask.skip_mask:
            continue
        places = zip(mask.words, mask.masks, strict=False)
        words = [key[word] & bits for word, bits in places][: mask.count]
        found = _in_bucket(data, header, mask, words, version)
        if found and (best is None or found[1].priority > best[1].priority):
            best = found
    return best


def _in_bucket(
    data: bytes | bytearray,
    header: layouts.StoreHeader,
    mask: layouts.StoreMask,
    words: Sequence[int],
    version: int,
) -> tuple[int, layouts.StoreRule] | None:
    value = header.seed << 32 | mask.id
    for word in words:
        value = (value ^ word) * 0x9E3779B97F4A7C15 & _LONG
        value ^= value >> 29
    value = (value ^ value >> 32) * 0xFF51AFD7ED558CCD & _LONG
    value ^= value >> 33
    wanted = value & 0xFFFF_FFFF or 1
    number = header.buckets + (value >> 32 & header.bucket_mask)
    bucket = layouts.StoreBucket.unpack(cell(data, number))
    if not bucket.signature >> (wanted & 63) & 1:
        return None
    for print_, place in zip(bucket.prints, bucket.rules, strict=True):
        if print_ != wanted or not place:
            continue
        rule = layouts.StoreRule.unpack(cell(data, place))
        seen = rule.added <= version < rule.removed
        if rule.mask == mask.id and seen and rule.words[: mask.count] == tuple(words):
            return place, rule
    return None


def ops_of(data: bytes | bytearray, first: int, count: int) -> tuple[Op, ...]:
    size = layouts.OP.size
    return tuple(
        Op.unpack(bytes(data[n * size : (n + 1) * size])) for n in range(first, first + count)
    )


def group_ops(data: bytes | bytearray, number: int, version: int) -> tuple[Op, ...]:
    """The ops of the group in a cell, for a frame of this version."""
    group = layouts.StoreGroup.unpack(cell(data, number))
    forms = list(zip(group.since, group.ops, group.counts, strict=True))
    latest = forms[group.newest :: -1] + forms[: group.newest : -1]
    first, count = next((ops, n) for since, ops, n in latest if since <= version)
    return ops_of(data, first, count)


def best(tables: Tables, table: int, packet: Packet) -> tuple[int, set[int]] | None:
    """The highest priority of all flows that match, and the ids of those that have it."""
    found: dict[int, set[int]] = {}
    for flow in tables.tables[table].covered(ANYTHING):
        if _matches(flow, packet):
            found.setdefault(flow.priority, set()).add(flow.id)
    return max(found.items()) if found else None


def _matches(flow: Flow, packet: Packet) -> bool:
    return all(packet.get(name, 0) & mask == value for name, value, mask in flow.match)


def key_of(packet: Packet) -> list[int]:
    """The key of a packet with these fields, as bpf/key.h would have it; written anew here."""
    key = [0] * KeyWord.KEY_SPACE
    value = packet.get

    def put(word: int, up: int, *names: str) -> None:
        key[word] |= sum(value(name, 0) for name in names) << up

    put(KeyWord.KEY_PORT, 32, "in_port")
    put(KeyWord.KEY_PORT, 16, "eth_type")
    put(KeyWord.KEY_PORT, 0, "vlan_tci")
    put(KeyWord.KEY_ETH_DST, 16, "eth_dst")
    put(KeyWord.KEY_ETH_DST, 8, "nw_proto", "arp_op")
    put(KeyWord.KEY_ETH_DST, 0, "ip_frag")
    put(KeyWord.KEY_ETH_SRC, 16, "eth_src")
    put(KeyWord.KEY_ETH_SRC, 10, "ip_dscp")
    put(KeyWord.KEY_ETH_SRC, 8, "nw_ecn")
    put(KeyWord.KEY_ETH_SRC, 0, "nw_ttl")
    put(KeyWord.KEY_IPV4, 32, "ip_src", "arp_spa")
    put(KeyWord.KEY_IPV4, 0, "ip_dst", "arp_tpa")
    put(KeyWord.KEY_L4, 48, "tcp_src", "udp_src", "icmp_type", "icmpv6_type")
    put(KeyWord.KEY_L4, 32, "tcp_dst", "udp_dst", "icmp_code", "icmpv6_code")
    put(KeyWord.KEY_L4, 16, "tcp_flags")
    for name, word in (("ipv6_src", KeyWord.KEY_IPV6_SRC), ("ipv6_dst", KeyWord.KEY_IPV6_DST)):
        key[word] |= value(name, 0) >> 64
        key[word + 1] |= value(name, 0) & _LONG
    put(KeyWord.KEY_METADATA, 0, "metadata")
    for n in range(16):
        put(KeyWord.KEY_REGISTERS + n // 2, 0 if n % 2 else 32, f"reg{n}")
    put(KeyWord.KEY_SOURCE, 16, "arp_sha")
    put(KeyWord.KEY_TARGET, 16, "arp_tha")
    put(KeyWord.KEY_LABEL, 32, "ipv6_label")
    return key


class Cases:
    """Packets and matches of few values, so that they meet."""

    def __init__(self, random: Random) -> None:
        self.random = random

    def packet(self) -> dict[str, int]:
        pick = self.random.choice
        packet = {
            "in_port": pick([1, 2, 3]),
            "eth_src": pick([0x020000000001, 0x020000000002]),
            "eth_dst": pick([0x020000000001, 0xFFFFFFFFFFFF]),
            "vlan_tci": pick([0, 0, 0x1001, 0x3001, 0x1002]),
            "metadata": pick([0, 0, 1 << 63, 5]),
            "reg0": pick([0, 0, 1]),
            "reg7": pick([0, 0, 7 << 20]),
            "eth_type": pick([0x800, 0x800, 0x86DD, 0x806, 0x88CC]),
        }
        kind = packet["eth_type"]
        if kind == 0x806:
            packet |= {"arp_op": pick([1, 2]), "arp_spa": pick([0x0A000001, 0x0A000002])}
        elif kind == 0x800:
            packet |= {"ip_src": self._ipv4(), "ip_dst": self._ipv4()}
        elif kind == 0x86DD:
            packet |= {"ipv6_src": self._ipv6(), "ipv6_dst": self._ipv6()}
        if kind in {0x800, 0x86DD}:
            packet |= {"ip_dscp": pick([0, 46]), "nw_ttl": pick([1, 64])}
            self._transport(packet)
        return packet

    def _ipv4(self) -> int:
        return self.random.choice([0x0A000001, 0x0A000002, 0x0A000101, 0xC0A80001])

    def _ipv6(self) -> int:
        return self.random.choice([1 << 127 | 1, 1 << 127 | 2, 1 << 126 | 1])

    def _transport(self, packet: dict[str, int]) -> None:
        pick = self.random.choice
        icmp = 1 if packet["eth_type"] == 0x800 else 58
        packet["nw_proto"] = protocol = pick([6, 17, icmp])
        if protocol == icmp:
            packet["icmp_type" if icmp == 1 else "icmpv6_type"] = pick([8, 0, 128])
            return
        name = "tcp" if protocol == 6 else "udp"
        packet |= {f"{name}_src": pick([1000, 1001]), f"{name}_dst": pick([80, 443])}

    def match(self, packet: Packet) -> Match:
        """Some of the fields of a packet, some of their bits; with what they need."""
        needed: Iterable[str] = ()
        chosen: dict[str, Masked] = {}
        for name, value in packet.items():
            if self.random.random() < 0.7:
                continue
            chosen[name] = value, self._mask(name)
            if name.startswith(("ip", "nw", "arp")):
                needed = (*needed, "eth_type")
            elif name.startswith(("tcp", "udp", "icmp")):
                needed = (*needed, "eth_type", "nw_proto")
        for name in needed:
            chosen[name] = packet[name], 0xFFFF if name == "eth_type" else 0xFF
        return Match.of(chosen)

    def _mask(self, name: str) -> int:
        pick = self.random.choice
        if name in {"ip_src", "ip_dst", "arp_spa"}:
            return pick([0xFFFF_FFFF, 0xFFFF_FF00, 0xFF00_0000, 0xFF])
        if name in {"ipv6_src", "ipv6_dst"}:
            return pick([(1 << 128) - 1, (1 << 128) - (1 << 64), 3 << 126, 3])
        if name in {"metadata", "reg0", "reg7", "eth_dst", "vlan_tci", "tcp_dst", "udp_dst"}:
            ones = {"metadata": 64, "eth_dst": 48, "vlan_tci": 16, "tcp_dst": 16, "udp_dst": 16}
            full = (1 << ones.get(name, 32)) - 1
            return pick([full, full, 1, full & ~1, 0x1000 if name == "vlan_tci" else full])
        widths = {"eth_src": 48, "in_port": 16, "eth_type": 16, "arp_op": 16, "ip_dscp": 6}
        return (1 << widths.get(name, 16 if name[:3] in {"tcp", "udp"} else 8)) - 1
