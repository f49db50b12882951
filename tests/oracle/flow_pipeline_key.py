# SPDX-License-Identifier: Apache-2.0
"""Fields of a packet by name, also those that are parts of others or made of them."""

from tests.oracle.flow_pipeline_frame import (
    ARP,
    CFI,
    ICMP,
    ICMPV6,
    IPV4,
    IPV6,
    LATER,
    RARP,
    TCP,
    UDP,
    Key,
)


def has(key: Key, prerequisite: str) -> bool:
    """Whether a packet has the fields with this prerequisite (heliograph.openflow.fields)."""
    kind, proto = key["eth_type"], key.get("nw_proto", 0)
    ip = kind in {IPV4, IPV6}
    whole = key.get("ip_frag") != LATER
    icmpv6 = kind == IPV6 and proto == ICMPV6
    nd = key.get("icmpv6_type") if icmpv6 and not key.get("icmpv6_code") else None
    return {
        "": True,
        "VLAN": bool(key.get("vlan_tci", 0) & CFI),
        "ARP": kind in {ARP, RARP},
        "IP": ip,
        "IPv4": kind == IPV4,
        "IPv6": kind == IPV6,
        "TCP": ip and proto == TCP and whole,
        "UDP": ip and proto == UDP and whole,
        "ICMPv4": kind == IPV4 and proto == ICMP,
        "ICMPv6": icmpv6,
        "ND": nd in {135, 136},
        "SOLICIT": nd == 135,
        "ADVERT": nd == 136,
    }.get(prerequisite, False)


def read(key: Key, name: str) -> int:
    """A field, also one that is part of others or made of them."""
    if name == "vlan_vid":
        return key.get("vlan_tci", 0) & 0x1FFF
    if name == "vlan_pcp":
        return key.get("vlan_tci", 0) >> 13
    if name == "nw_tos":
        return key.get("ip_dscp", 0) << 2
    if name.startswith("x"):
        value = 0
        for register in _registers(name):
            value = value << 32 | key.get(register, 0)
        return value
    return key.get(name, 0)


def _registers(name: str) -> list[str]:
    size = 4 if name.startswith("xx") else 2
    first = int(name.lstrip("xreg")) * size
    return [f"reg{first + n}" for n in range(size)]


def write(key: Key, name: str, value: int) -> None:
    tci = key.get("vlan_tci", 0)
    if name == "vlan_tci":
        set_tag(key, value)
    elif name == "vlan_vid":
        set_tag(key, tci & ~0x1FFF | value)
    elif name == "vlan_pcp":
        set_tag(key, tci & 0x1FFF | value << 13 | CFI)
    elif name == "nw_tos":
        key["ip_dscp"] = value >> 2
    elif name.startswith("x"):
        for register in reversed(_registers(name)):
            key[register], value = value & 0xFFFF_FFFF, value >> 32
    else:
        key[name] = value


def set_tag(key: Key, tci: int) -> None:
    key["vlan_tci"] = tci
    if tci and not key.get("tpid"):
        key["tpid"] = 0x8100
