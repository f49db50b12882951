# SPDX-License-Identifier: Apache-2.0
"""What the kernel says about network devices: rtnetlink link messages to facts and back.

Pure functions over bytes; numbers are those of linux/if_link.h, rtnetlink.h and if.h.
"""

import struct
from dataclasses import dataclass
from typing import Final

from heliograph.kernel.netlink import attribute, attributes, text, u32

RTM_NEWLINK: Final = 16
RTM_DELLINK: Final = 17
RTM_GETLINK: Final = 18
RTM_SETLINK: Final = 19
RTM_GETSTATS: Final = 94
RTMGRP_LINK: Final = 1

IFF_UP: Final = 0x1
IFF_POINTOPOINT: Final = 0x10
IFF_RUNNING: Final = 0x40
IFF_NOARP: Final = 0x80
IFF_PROMISC: Final = 0x100

ARPHRD_ETHER: Final = 1
ARPHRD_LOOPBACK: Final = 772

IFLA_ADDRESS: Final = 1
IFLA_IFNAME: Final = 3
IFLA_MTU: Final = 4
IFLA_LINK: Final = 5
IFLA_MASTER: Final = 10
IFLA_WIRELESS: Final = 11
IFLA_LINKINFO: Final = 18
IFLA_IFALIAS: Final = 20
IFLA_GROUP: Final = 27
IFLA_EXT_MASK: Final = 29
IFLA_CARRIER_CHANGES: Final = 35
IFLA_LINK_NETNSID: Final = 37
IFLA_TARGET_NETNSID: Final = 46
IFLA_MIN_MTU: Final = 50
IFLA_MAX_MTU: Final = 51
IFLA_INFO_KIND: Final = 1
IFLA_INFO_DATA: Final = 2
VETH_INFO_PEER: Final = 1
RTEXT_FILTER_SKIP_STATS: Final = 1 << 3
IFLA_STATS_LINK_64: Final = 1

IFINFO: Final = struct.Struct("=BxHiII")  # family, link type, ifindex, flags, change mask
_U32: Final = struct.Struct("=I")
_S32: Final = struct.Struct("=i")

VETH_MIN_MTU: Final = 68
VETH_MAX_MTU: Final = 65535
# So large that whatever MTU the user gives his end is deliverable to ours (veth checks the MTU
# of the receiving end only), and IPv6 is never set up anew as it is when an MTU crosses 1,280.
FAR_MTU: Final = VETH_MAX_MTU


@dataclass(frozen=True, slots=True)
class Device:
    """Facts about one network device, as of the last event.

    `kind` is the driver's link kind ("veth", "tun", "bridge"), "" for hardware and loopback;
    `link_type` an ARPHRD_ number (1 is Ethernet); `carrier` means up and able to carry frames
    (IFF_RUNNING: of a veth pair both ends or none); `promiscuous` what a user set, not what
    programs asked for; `arp` means that neighbours' link-layer addresses are looked for (by ARP or
    IPv6 neighbour discovery); `min_mtu`, `max_mtu`, `master`, `peer` are 0 for none; `peer` is an
    ifindex, of another namespace when `peer_elsewhere`.
    """

    ifindex: int
    name: str
    kind: str
    link_type: int
    alias: str
    mac: str
    mtu: int
    min_mtu: int
    max_mtu: int
    admin_up: bool
    carrier: bool
    promiscuous: bool
    master: int
    peer: int
    peer_elsewhere: bool
    carrier_changes: int
    arp: bool


@dataclass(frozen=True, slots=True)
class DeviceStats:
    """The device's own counters, from its point of view (what it receives is rx).

    In the order of struct rtnl_link_stats64, of which these are the first 18 fields.
    """

    rx_packets: int
    tx_packets: int
    rx_bytes: int
    tx_bytes: int
    rx_errors: int
    tx_errors: int
    rx_dropped: int
    tx_dropped: int
    multicast: int
    collisions: int
    rx_length_errors: int
    rx_over_errors: int
    rx_crc_errors: int
    rx_frame_errors: int
    rx_fifo_errors: int
    rx_missed_errors: int
    tx_aborted_errors: int
    tx_carrier_errors: int


_STATS: Final = struct.Struct("=18Q")


def _string(data: bytes | None) -> str:
    return data.rstrip(b"\0").decode(errors="replace") if data else ""


def _number(data: bytes | None) -> int:
    return int(_U32.unpack_from(data)[0]) if data else 0


def parse_link(body: bytes) -> Device | None:
    """The device of an RTM_NEWLINK or RTM_DELLINK body; None when it tells of something else.

    The same message types in other families tell of bridge ports (an RTM_DELLINK there means
    that a device left its bridge) and of wireless scans: neither describes a device.
    """
    family, link_type, ifindex, flags, _ = IFINFO.unpack_from(body)
    found = attributes(body, IFINFO.size)
    if family or IFLA_WIRELESS in found or IFLA_IFNAME not in found:
        return None
    info = found.get(IFLA_LINKINFO)
    return Device(
        ifindex=ifindex,
        name=_string(found[IFLA_IFNAME]),
        kind=_string(attributes(info).get(IFLA_INFO_KIND)) if info else "",
        link_type=link_type,
        alias=_string(found.get(IFLA_IFALIAS)),
        mac=found.get(IFLA_ADDRESS, b"").hex(":"),
        mtu=_number(found.get(IFLA_MTU)),
        min_mtu=_number(found.get(IFLA_MIN_MTU)),
        max_mtu=_number(found.get(IFLA_MAX_MTU)),
        admin_up=bool(flags & IFF_UP),
        carrier=bool(flags & IFF_UP and flags & IFF_RUNNING),
        promiscuous=bool(flags & IFF_PROMISC),
        master=_number(found.get(IFLA_MASTER)),
        peer=_number(found.get(IFLA_LINK)),
        peer_elsewhere=IFLA_LINK_NETNSID in found,
        carrier_changes=_number(found.get(IFLA_CARRIER_CHANGES)),
        arp=link_type == ARPHRD_ETHER and not flags & (IFF_NOARP | IFF_POINTOPOINT),
    )


def peer_namespace(body: bytes) -> int | None:
    """The namespace id that an RTM_NEWLINK body gives for the device's peer, if elsewhere."""
    found = attributes(body, IFINFO.size).get(IFLA_LINK_NETNSID)
    return int(_S32.unpack_from(found)[0]) if found else None


def parse_stats(body: bytes) -> tuple[int, DeviceStats] | None:
    """(ifindex, counters) of an RTM_NEWSTATS body; None if it holds no counters."""
    (ifindex,) = struct.unpack_from("=4xI", body)
    counters = attributes(body, 12).get(IFLA_STATS_LINK_64)
    if counters is None or len(counters) < _STATS.size:
        return None
    return ifindex, DeviceStats(*_STATS.unpack_from(counters))


def link(ifindex: int, *parts: bytes, flags: int = 0, change: int = 0) -> bytes:
    """A request about one device (0: named by an attribute, or all): `flags` under `change`."""
    return IFINFO.pack(0, 0, ifindex, flags, change) + b"".join(parts)


def every_link() -> bytes:
    """The body of a dump of all devices, without their counters (a third of its bytes)."""
    return link(0, u32(IFLA_EXT_MASK, RTEXT_FILTER_SKIP_STATS))


def every_stats() -> bytes:
    """The body of a dump of all devices' 64-bit counters (struct if_stats_msg)."""
    return struct.pack("=BxHII", 0, 0, 0, 1 << (IFLA_STATS_LINK_64 - 1))


def link_elsewhere(ifindex: int, namespace: int) -> bytes:
    """A request about a device of another namespace, named by the id that ours has for it."""
    return link(ifindex, attribute(IFLA_TARGET_NETNSID, _S32.pack(namespace)))


def veth_pair(name: str, far_name: str, mac: bytes | None, mtu: int | None) -> bytes:
    """The body that creates an internal port: our end, without ARP, with the user's as its peer."""
    user_end = [text(IFLA_IFNAME, name)]
    if mac is not None:
        user_end.append(attribute(IFLA_ADDRESS, mac))
    if mtu is not None:
        user_end.append(u32(IFLA_MTU, mtu))
    return link(
        0,
        text(IFLA_IFNAME, far_name),
        u32(IFLA_MTU, FAR_MTU),
        attribute(
            IFLA_LINKINFO,
            text(IFLA_INFO_KIND, "veth"),
            attribute(IFLA_INFO_DATA, attribute(VETH_INFO_PEER, link(0, *user_end))),
        ),
        flags=IFF_NOARP,
        change=IFF_NOARP,
    )
