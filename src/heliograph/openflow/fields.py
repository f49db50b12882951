# SPDX-License-Identifier: Apache-2.0
"""The fields of packets and pipeline, named as in ovs-fields(7), with their headers on the wire."""

from collections.abc import Mapping
from dataclasses import dataclass

from heliograph.openflow.errors import NICIRA, ONF
from heliograph.openflow.match import Masked

# Classes of headers. An experimenter's field is (0xFFFF, number, experimenter).
_CLASSES = {
    "OF": (0x0000, 0),  # NXM_OF
    "NX": (0x0001, 0),  # NXM_NX
    "OXM": (0x8000, 0),  # OXM_OF
    "PKT": (0x8001, 0),  # OXM_OF_PKT_REG
    "ET": (0xFFFF, NICIRA),  # NXOXM_ET
    "ONF": (0xFFFF, ONF),  # ONFOXM_ET
}
Header = tuple[int, int, int]  # class, number, experimenter

# name, bits, bytes on the wire, headers (the first is written where the peer speaks NXM,
# the second OXM, a third only from 1.5), then: m may be masked, w may be written; prerequisites
_TABLE = """
in_port       16  2  OF:0                  w  -
in_port_oxm   32  4  OXM:0                 -  -
conj_id       32  4  NX:37                 -  -
dp_hash       32  4  NX:35                 m  -
recirc_id     32  4  NX:36                 -  -
tun_id        64  8  NX:16,OXM:38          mw -
tun_src       32  4  NX:31                 mw -
tun_dst       32  4  NX:32                 mw -
tun_ipv6_src  128 16 NX:109                mw -
tun_ipv6_dst  128 16 NX:110                mw -
tun_flags     1   2  NX:104                mw -
tun_gbp_id    16  2  NX:38                 mw -
tun_gbp_flags 8   1  NX:39                 mw -
tun_erspan_idx  20 4 ET:11                 mw -
tun_erspan_ver  4  1 ET:12                 mw -
tun_erspan_dir  1  1 ET:13                 mw -
tun_erspan_hwid 6  1 ET:14                 mw -
metadata      64  8  OXM:2                 mw -
pkt_mark      32  4  NX:33                 mw -
actset_output 32  4  ONF:43,ONF:43,OXM:43  -  -
packet_type   32  4  OXM:44                -  -
ct_state      32  4  NX:105                m  -
ct_zone       16  2  NX:106                -  -
ct_mark       32  4  NX:107                m  -
ct_label      128 16 NX:108                m  -
ct_nw_proto   8   1  NX:119                -  CT
ct_nw_src     32  4  NX:120                m  CT
ct_nw_dst     32  4  NX:121                m  CT
ct_ipv6_src   128 16 NX:122                m  CT
ct_ipv6_dst   128 16 NX:123                m  CT
ct_tp_src     16  2  NX:124                m  CT
ct_tp_dst     16  2  NX:125                m  CT
eth_dst       48  6  OF:1,OXM:3            mw -
eth_src       48  6  OF:2,OXM:4            mw -
eth_type      16  2  OF:3,OXM:5            -  -
vlan_tci      16  2  OF:4                  mw -
vlan_vid      12  2  OXM:6                 mw -
vlan_pcp      3   1  OXM:7                 w  VLAN
mpls_label    20  4  OXM:34                w  MPLS
mpls_tc       3   1  OXM:35                w  MPLS
mpls_bos      1   1  OXM:36                -  MPLS
mpls_ttl      8   1  NX:30                 w  MPLS
nw_proto      8   1  OF:6,OXM:10           -  IP
ip_src        32  4  OF:7,OXM:11           mw IPv4
ip_dst        32  4  OF:8,OXM:12           mw IPv4
ipv6_src      128 16 NX:19,OXM:26          mw IPv6
ipv6_dst      128 16 NX:20,OXM:27          mw IPv6
ipv6_label    20  4  NX:27,OXM:28          mw IPv6
nw_tos        8   1  OF:5                  w  IP
ip_dscp       6   1  OXM:8                 w  IP
nw_ecn        2   1  NX:28,OXM:9           w  IP
nw_ttl        8   1  NX:29                 w  IP
ip_frag       2   1  NX:26                 m  IP
arp_op        16  2  OF:15,OXM:21          w  ARP
arp_spa       32  4  OF:16,OXM:22          mw ARP
arp_tpa       32  4  OF:17,OXM:23          mw ARP
arp_sha       48  6  NX:17,OXM:24          mw ARP
arp_tha       48  6  NX:18,OXM:25          mw ARP
tcp_src       16  2  OF:9,OXM:13           mw TCP
tcp_dst       16  2  OF:10,OXM:14          mw TCP
tcp_flags     12  2  NX:34,ONF:42,OXM:42   m  TCP
udp_src       16  2  OF:11,OXM:15          mw UDP
udp_dst       16  2  OF:12,OXM:16          mw UDP
sctp_src      16  2  OXM:17                mw SCTP
sctp_dst      16  2  OXM:18                mw SCTP
icmp_type     8   1  OF:13,OXM:19          w  ICMPv4
icmp_code     8   1  OF:14,OXM:20          w  ICMPv4
icmpv6_type   8   1  NX:21,OXM:29          w  ICMPv6
icmpv6_code   8   1  NX:22,OXM:30          w  ICMPv6
nd_target     128 16 NX:23,OXM:31          mw ND
nd_sll        48  6  NX:24,OXM:32          mw SOLICIT
nd_tll        48  6  NX:25,OXM:33          mw ADVERT
"""
_POSSIBLE = {"nw_tos": 0xFC, "arp_op": 0xFF}
_REGISTERS = [
    *(f"reg{n} 32 4 NX:{n} mw -" for n in range(16)),
    *(f"xreg{n} 64 8 PKT:{n} mw -" for n in range(8)),
    *(f"xxreg{n} 128 16 NX:{111 + n} mw -" for n in range(4)),
]


@dataclass(frozen=True, slots=True)
class Field:
    name: str
    bits: int
    size: int  # bytes on the wire
    headers: tuple[Header, ...]
    maskable: bool
    writable: bool
    prerequisite: str  # a key of PREREQUISITES, or ""
    value_bits: int  # what a value may have; `vlan_vid` says in one bit more that there is a tag
    impossible: int  # bits that no value has: no ECN, only an operation that a table can match

    @property
    def all_ones(self) -> int:
        return (1 << self.bits) - 1

    def header(self, version: int) -> Header:
        """The one to write; 1.0 speaks NXM as far as there is one."""
        wanted = 0 if version == 1 else 2 if version >= 6 else 1
        return self.headers[min(wanted, len(self.headers) - 1)]


def _header(text: str) -> Header:
    name, number = text.split(":")
    kind, experimenter = _CLASSES[name]
    return kind, int(number), experimenter


def _fields() -> dict[str, Field]:
    fields = {}
    for line in [*_TABLE.strip().splitlines(), *_REGISTERS]:
        name, bits, size, headers, can, needs = line.split()
        value_bits = 0x1FFF if name == "vlan_vid" else (1 << int(bits)) - 1
        fields[name] = Field(
            name=name,
            bits=int(bits),
            size=int(size),
            headers=tuple(map(_header, headers.split(","))),
            maskable="m" in can,
            writable="w" in can,
            prerequisite=needs.strip("-"),
            value_bits=value_bits,
            impossible=~_POSSIBLE.get(name, value_bits),
        )
    return fields


FIELDS: Mapping[str, Field] = _fields()

_IP = ("eth_type", (0x0800, 0x86DD))
_ICMPV6 = (("eth_type", (0x86DD,)), ("nw_proto", (58,)))
# What must be matched, exactly, for a field to be there.
PREREQUISITES: Mapping[str, tuple[tuple[str, tuple[int, ...]], ...]] = {
    "ARP": (("eth_type", (0x0806, 0x8035)),),
    "IP": (_IP,),
    "IPv4": (("eth_type", (0x0800,)),),
    "IPv6": (("eth_type", (0x86DD,)),),
    "MPLS": (("eth_type", (0x8847, 0x8848)),),
    "TCP": (_IP, ("nw_proto", (6,))),
    "UDP": (_IP, ("nw_proto", (17,))),
    "SCTP": (_IP, ("nw_proto", (132,))),
    "ICMPv4": (("eth_type", (0x0800,)), ("nw_proto", (1,))),
    "ICMPv6": _ICMPV6,
    "ND": (*_ICMPV6, ("icmpv6_type", (135, 136))),
    "SOLICIT": (*_ICMPV6, ("icmpv6_type", (135,))),
    "ADVERT": (*_ICMPV6, ("icmpv6_type", (136,))),
}
_PORTS = frozenset({"TCP", "UDP", "SCTP"})
_LATER = 2  # a bit of ip_frag
_ND = frozenset({"ND", "SOLICIT", "ADVERT"})  # their ICMPv6 code is 0, matched or not
_CT_TRACKED = 0x20  # a bit of ct_state
_NOTHING = 0, 0


def prerequisites_met(field: Field, matched: Mapping[str, Masked]) -> bool:
    """Whether packets that are so matched have the field; later fragments have no ports.

    They have no ICMP header either, but Open vSwitch lets a flow ask for one.
    """
    if not field.prerequisite:
        return True
    if field.prerequisite == "VLAN":
        value, mask = matched.get("vlan_tci", (0, 0))
        return bool(value & mask & 0x1000)
    if field.prerequisite == "CT":
        value, mask = matched.get("ct_state", (0, 0))
        return bool(value & mask & _CT_TRACKED)
    if field.prerequisite in _ND and matched.get("icmpv6_code", (0, 0))[0]:
        return False
    needs = PREREQUISITES[field.prerequisite]
    for name, values in needs:
        if matched.get(name, _NOTHING)[0] not in values:
            return False
    return field.prerequisite not in _PORTS or not matched.get("ip_frag", _NOTHING)[0] & _LATER
