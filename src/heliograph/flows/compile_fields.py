# SPDX-License-Identifier: Apache-2.0
"""Where the fields of packets and pipeline are in the data plane's key (bpf/flow_types.h)."""

from collections.abc import Iterator, Mapping
from typing import NamedTuple

from heliograph.kernel.layouts import KeyWord, OpNeed
from heliograph.openflow.match import Match


class Piece(NamedTuple):
    """`bits` bits of a field from bit `offset` up, which are in one word of the key."""

    offset: int
    bits: int
    word: int
    shift: int


_PLACES: Mapping[str, tuple[KeyWord, int]] = {
    "in_port": (KeyWord.KEY_PORT, 32),
    "eth_type": (KeyWord.KEY_PORT, 16),
    "vlan_tci": (KeyWord.KEY_PORT, 0),
    "vlan_vid": (KeyWord.KEY_PORT, 0),
    "vlan_pcp": (KeyWord.KEY_PORT, 13),
    "eth_dst": (KeyWord.KEY_ETH_DST, 16),
    "nw_proto": (KeyWord.KEY_ETH_DST, 8),
    "arp_op": (KeyWord.KEY_ETH_DST, 8),
    "ip_frag": (KeyWord.KEY_ETH_DST, 0),
    "eth_src": (KeyWord.KEY_ETH_SRC, 16),
    "ip_dscp": (KeyWord.KEY_ETH_SRC, 10),
    "nw_ecn": (KeyWord.KEY_ETH_SRC, 8),
    "nw_ttl": (KeyWord.KEY_ETH_SRC, 0),
    "ip_src": (KeyWord.KEY_IPV4, 32),
    "ip_dst": (KeyWord.KEY_IPV4, 0),
    "arp_spa": (KeyWord.KEY_IPV4, 32),
    "arp_tpa": (KeyWord.KEY_IPV4, 0),
    "tcp_flags": (KeyWord.KEY_L4, 16),
    "icmp_type": (KeyWord.KEY_L4, 48),
    "icmp_code": (KeyWord.KEY_L4, 32),
    "icmpv6_type": (KeyWord.KEY_L4, 48),
    "icmpv6_code": (KeyWord.KEY_L4, 32),
    "arp_sha": (KeyWord.KEY_SOURCE, 16),
    "arp_tha": (KeyWord.KEY_TARGET, 16),
    "nd_sll": (KeyWord.KEY_SOURCE, 16),
    "nd_tll": (KeyWord.KEY_TARGET, 16),
    "ipv6_label": (KeyWord.KEY_LABEL, 32),
    "metadata": (KeyWord.KEY_METADATA, 0),
    **{f"{kind}_src": (KeyWord.KEY_L4, 48) for kind in ("tcp", "udp", "sctp")},
    **{f"{kind}_dst": (KeyWord.KEY_L4, 32) for kind in ("tcp", "udp", "sctp")},
}
_BITS: Mapping[str, int] = {
    **dict.fromkeys(("in_port", "eth_type", "vlan_tci"), 16),
    **dict.fromkeys(("vlan_vid", "tcp_flags"), 12),
    **dict.fromkeys(("eth_dst", "eth_src", "arp_sha", "arp_tha", "nd_sll", "nd_tll"), 48),
    **dict.fromkeys(("ip_src", "ip_dst", "arp_spa", "arp_tpa"), 32),
    **{f"{kind}_{end}": 16 for kind in ("tcp", "udp", "sctp") for end in ("src", "dst")},
    **{f"{kind}_{what}": 8 for kind in ("icmp", "icmpv6") for what in ("type", "code")},
    **dict.fromkeys(("nw_proto", "nw_ttl", "arp_op"), 8),
    "vlan_pcp": 3,
    "ip_dscp": 6,
    "nw_ecn": 2,
    "ip_frag": 2,
    "ipv6_label": 20,
    "metadata": 64,
}
_WIDE: Mapping[str, KeyWord] = {
    "ipv6_src": KeyWord.KEY_IPV6_SRC,
    "ipv6_dst": KeyWord.KEY_IPV6_DST,
    "nd_target": KeyWord.KEY_ND_TARGET,
}


def _wide(first: int) -> tuple[Piece, ...]:
    return Piece(0, 64, first + 1, 0), Piece(64, 64, first, 0)


def _places() -> Iterator[tuple[str, tuple[Piece, ...]]]:
    for name, (word, shift) in _PLACES.items():
        yield name, (Piece(0, _BITS[name], word, shift),)
    for name, word in _WIDE.items():
        yield name, _wide(word)
    # The lower two bits of this one are neither read nor written.
    yield "nw_tos", (Piece(2, 6, KeyWord.KEY_ETH_SRC, 10),)
    registers = KeyWord.KEY_REGISTERS
    for n in range(16):
        yield f"reg{n}", (Piece(0, 32, registers + n // 2, 0 if n % 2 else 32),)
    for n in range(8):
        yield f"xreg{n}", (Piece(0, 64, registers + n, 0),)
    for n in range(4):
        yield f"xxreg{n}", _wide(registers + 2 * n)


# Bits of a field that no piece has are zero.
PIECES: Mapping[str, tuple[Piece, ...]] = dict(_places())

# What is no header: to write it is no change of the packet (rule 29).
PIPELINE = frozenset(
    name for name in PIECES if name in {"in_port", "metadata"} or name.lstrip("x").startswith("reg")
)

_NEEDS: Mapping[str, OpNeed] = {
    "": OpNeed.NEED_NOTHING,
    "VLAN": OpNeed.NEED_VLAN,
    "IP": OpNeed.NEED_IP,
    "IPv4": OpNeed.NEED_IPV4,
    "IPv6": OpNeed.NEED_IPV6,
    "ARP": OpNeed.NEED_ARP,
    "TCP": OpNeed.NEED_TCP,
    "UDP": OpNeed.NEED_UDP,
    "ICMPv4": OpNeed.NEED_ICMP,
    "ICMPv6": OpNeed.NEED_ICMPV6,
    "SOLICIT": OpNeed.NEED_ND_SOLICIT,
    "ADVERT": OpNeed.NEED_ND_ADVERT,
    "ND": OpNeed.NEED_ND,
}
_IMPLIED: Mapping[OpNeed, OpNeed] = {
    OpNeed.NEED_IPV4: OpNeed.NEED_IP,
    OpNeed.NEED_IPV6: OpNeed.NEED_IP,
    OpNeed.NEED_PORTS: OpNeed.NEED_IP,
    OpNeed.NEED_TCP: OpNeed.NEED_PORTS,
    OpNeed.NEED_UDP: OpNeed.NEED_PORTS,
    OpNeed.NEED_ICMP: OpNeed.NEED_IPV4,
    OpNeed.NEED_ICMPV6: OpNeed.NEED_IPV6,
    OpNeed.NEED_ND: OpNeed.NEED_ICMPV6,
    OpNeed.NEED_ND_SOLICIT: OpNeed.NEED_ND,
    OpNeed.NEED_ND_ADVERT: OpNeed.NEED_ND,
}


def need_of(prerequisite: str) -> OpNeed | None:
    """What an op needs of the frame for a field with it; None: the data plane cannot ask."""
    return _NEEDS.get(prerequisite)


def implies(need: OpNeed, other: OpNeed) -> bool:
    """Whether a frame that has what `need` says has what `other` says."""
    if other in {need, OpNeed.NEED_NOTHING}:
        return True
    return need in _IMPLIED and implies(_IMPLIED[need], other)


def transport(match: Match | None) -> tuple[bool, int]:
    """Whether all packets so matched are IP, and the protocol if it is always the same."""
    if match is None:
        return False, 0
    is_ip = (match.get("eth_type") or (0, 0))[0] in {0x0800, 0x86DD}
    return is_ip, (match.get("nw_proto") or (0, 0))[0] if is_ip else 0
