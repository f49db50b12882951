# SPDX-License-Identifier: Apache-2.0
"""The match of OpenFlow 1.0: a fixed structure with wildcards."""

from struct import Struct

from heliograph.openflow.buffer import Reader
from heliograph.openflow.match import Masked, Match

MATCH = Struct("!IH6s6sHBxHBBxxIIHH")
_IN_PORT, _VLAN, _ETH_SRC, _ETH_DST, _TYPE, _PROTO, _TP_SRC, _TP_DST = (1 << n for n in range(8))
_PCP, _TOS = 1 << 20, 1 << 21
_ALL = 0x3F_FFFF
_NO_VLAN = 0xFFFF
_CFI = 0x1000
_MAC = 0xFFFF_FFFF_FFFF
_TRANSPORTS = {
    (0x0800, 6): ("tcp_src", "tcp_dst"),
    (0x86DD, 6): ("tcp_src", "tcp_dst"),
    (0x0800, 17): ("udp_src", "udp_dst"),
    (0x86DD, 17): ("udp_src", "udp_dst"),
    (0x0800, 132): ("sctp_src", "sctp_dst"),
    (0x86DD, 132): ("sctp_src", "sctp_dst"),
    (0x0800, 1): ("icmp_type", "icmp_code"),
    (0x86DD, 58): ("icmpv6_type", "icmpv6_code"),
}


def _vlan(wildcards: int, vid: int, pcp: int) -> Masked:
    if wildcards & _VLAN:
        return (0, 0) if wildcards & _PCP else (_CFI | (pcp & 7) << 13, 0xF000)
    if vid == _NO_VLAN:
        return 0, 0xFFFF
    if wildcards & _PCP:
        return _CFI | vid & 0xFFF, 0x1FFF
    return _CFI | vid & 0xFFF | (pcp & 7) << 13, 0xFFFF


def _prefix(wildcards: int, shift: int) -> int:
    """Six bits say how many bits of an address do not count."""
    return 0xFFFF_FFFF << min(wildcards >> shift & 0x3F, 32) & 0xFFFF_FFFF


def is_exact(reader: Reader) -> bool:
    """Whether the match that comes next has no wildcard at all."""
    return not int.from_bytes(reader.data[reader.pos : reader.pos + 4], "big") & _ALL


def read_match(reader: Reader) -> Match:
    (wild, port, src, dst, vid, pcp, kind, tos, proto, nw_src, nw_dst, tp_src, tp_dst) = (
        reader.unpack(MATCH)
    )
    fields: dict[str, Masked] = {"vlan_tci": _vlan(wild, vid, pcp)}
    if not wild & _IN_PORT:
        fields["in_port"] = port, 0xFFFF
    if not wild & _ETH_SRC:
        fields["eth_src"] = int.from_bytes(src, "big"), _MAC
    if not wild & _ETH_DST:
        fields["eth_dst"] = int.from_bytes(dst, "big"), _MAC
    if not wild & _TYPE:
        fields["eth_type"] = kind, 0xFFFF
        fields |= _network(wild, kind, (tos, proto), (nw_src, nw_dst))
        names = _TRANSPORTS.get((kind, proto)) if not wild & _PROTO else None
        if names:
            ones = 0xFF if names[0].startswith("icmp") else 0xFFFF
            fields[names[0]] = tp_src, 0 if wild & _TP_SRC else ones
            fields[names[1]] = tp_dst, 0 if wild & _TP_DST else ones
    return Match.of(fields)


def _network(
    wild: int, kind: int, octets: tuple[int, int], addresses: tuple[int, int]
) -> dict[str, Masked]:
    """What 1.0 does not know of a type is not looked at, as if it were wild."""
    tos, proto = octets
    nw_src, nw_dst = addresses
    masks = _prefix(wild, 8), _prefix(wild, 14)
    exact = 0 if wild & _PROTO else 0xFFFF
    if kind in {0x0806, 0x8035}:
        return {
            "arp_op": (proto, exact),
            "arp_spa": (nw_src, masks[0]),
            "arp_tpa": (nw_dst, masks[1]),
        }
    if kind not in {0x0800, 0x86DD}:
        return {}
    fields = {
        "nw_proto": (proto, exact & 0xFF),
        "ip_dscp": (tos >> 2, 0 if wild & _TOS else 0x3F),
    }
    if kind == 0x0800:
        fields |= {"ip_src": (nw_src, masks[0]), "ip_dst": (nw_dst, masks[1])}
    return fields


def _bits(mask: int) -> int:
    """How many bits do not count; a mask that is no prefix is none at all here."""
    wild = ~mask & 0xFFFF_FFFF
    return wild.bit_length() if wild & (wild + 1) == 0 else 32


def encode_match(match: Match) -> bytes:
    """What 1.0 cannot say stays wild."""
    fields = {name: (value, mask) for name, value, mask in match.fields}
    wild = _ALL & ~(0x3F << 8 | 0x3F << 14)

    def exact(bit: int, ones: int, *names: str) -> int:
        nonlocal wild
        for name in names:
            value, mask = fields.get(name, (0, 0))
            if mask == ones:
                wild &= ~bit
                return value
        return 0

    port = exact(_IN_PORT, 0xFFFF, "in_port")
    src, dst = exact(_ETH_SRC, _MAC, "eth_src"), exact(_ETH_DST, _MAC, "eth_dst")
    kind = exact(_TYPE, 0xFFFF, "eth_type")
    tos = exact(_TOS, 0x3F, "ip_dscp") << 2
    proto = exact(_PROTO, 0xFF, "nw_proto") or exact(_PROTO, 0xFFFF, "arp_op") & 0xFF
    sources = "tcp_src", "udp_src", "sctp_src"
    tp_src = exact(_TP_SRC, 0xFFFF, *sources) or exact(_TP_SRC, 0xFF, "icmp_type", "icmpv6_type")
    targets = "tcp_dst", "udp_dst", "sctp_dst"
    tp_dst = exact(_TP_DST, 0xFFFF, *targets) or exact(_TP_DST, 0xFF, "icmp_code", "icmpv6_code")
    vid = pcp = 0
    tci, tci_mask = fields.get("vlan_tci", (0, 0))
    if tci_mask & _CFI and not tci & _CFI:
        wild &= ~(_VLAN | _PCP)
        vid = _NO_VLAN
    elif tci_mask & _CFI:
        if tci_mask & 0xFFF == 0xFFF:
            wild, vid = wild & ~_VLAN, tci & 0xFFF
        if tci_mask >> 13 == 7:
            wild, pcp = wild & ~_PCP, tci >> 13
    nw_src, src_mask = fields.get("ip_src") or fields.get("arp_spa") or (0, 0)
    nw_dst, dst_mask = fields.get("ip_dst") or fields.get("arp_tpa") or (0, 0)
    wild |= _bits(src_mask) << 8 | _bits(dst_mask) << 14
    macs = src.to_bytes(6, "big"), dst.to_bytes(6, "big")
    return MATCH.pack(wild, port, *macs, vid, pcp, kind, tos, proto, nw_src, nw_dst, tp_src, tp_dst)
