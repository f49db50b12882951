# SPDX-License-Identifier: Apache-2.0
"""What the kernel says about routes, addresses and neighbours: rtnetlink messages and back.

Pure functions over bytes; numbers are those of linux/rtnetlink.h, if_addr.h and neighbour.h.
"""

import socket
import struct
from dataclasses import dataclass
from enum import IntEnum
from ipaddress import IPv4Address, IPv6Address
from typing import Final, NamedTuple

from heliograph.kernel.netlink import attribute, attributes

Address = IPv4Address | IPv6Address

RTM_NEWADDR: Final = 20
RTM_DELADDR: Final = 21
RTM_GETADDR: Final = 22
RTM_GETROUTE: Final = 26
RTM_NEWNEIGH: Final = 28
RTM_DELNEIGH: Final = 29
RTM_GETNEIGH: Final = 30

# Event groups, as bits: RTNLGRP_NEXTHOP is number 32, the last that a bit mask can name.
RTMGRP_NEIGH: Final = 1 << 2
RTMGRP_ADDRESSES: Final = 1 << 4 | 1 << 8
RTMGRP_ROUTES: Final = 1 << 6 | 1 << 10 | 1 << 7 | 1 << 18 | 1 << 31  # with rules and nexthops

RTA_DST: Final = 1
RTA_SRC: Final = 2
RTA_OIF: Final = 4
RTA_GATEWAY: Final = 5
RTA_PREFSRC: Final = 7
RTA_METRICS: Final = 8
RTA_VIA: Final = 18
RTA_ENCAP_TYPE: Final = 21
RTAX_MTU: Final = 2

IFA_ADDRESS: Final = 1
IFA_LOCAL: Final = 2
IFA_FLAGS: Final = 8
IFA_F_OPTIMISTIC: Final = 0x04
IFA_F_DADFAILED: Final = 0x08
IFA_F_TENTATIVE: Final = 0x40

NDA_DST: Final = 1
NTF_USE: Final = 0x01
NUD_INCOMPLETE: Final = 0x01
NUD_REACHABLE: Final = 0x02
NUD_STALE: Final = 0x04
NUD_DELAY: Final = 0x08
NUD_PROBE: Final = 0x10
NUD_FAILED: Final = 0x20
NUD_NOARP: Final = 0x40
NUD_PERMANENT: Final = 0x80
NUD_VALID: Final = (
    NUD_PERMANENT | NUD_NOARP | NUD_REACHABLE | NUD_PROBE | NUD_STALE | NUD_DELAY
)  # the link-layer address is known, and used

_RTMSG: Final = struct.Struct("=8BI")  # family, dst_len, src_len, tos, table, .., type, flags
_IFADDRMSG: Final = struct.Struct("=4BI")  # family, prefix length, flags, scope, ifindex
_NDMSG: Final = struct.Struct("=B3xiHBB")  # family, ifindex, state, flags, type
_U16: Final = struct.Struct("=H")
_U32: Final = struct.Struct("=I")
_DSCP: Final = 0xFC  # routes are chosen by these bits of the TOS


class RouteType(IntEnum):
    """What the kernel does with packets of a route (RTN_*)."""

    UNICAST = 1
    LOCAL = 2
    BROADCAST = 3
    ANYCAST = 4
    MULTICAST = 5
    BLACKHOLE = 6
    UNREACHABLE = 7
    PROHIBIT = 8


@dataclass(frozen=True, slots=True)
class RouteAnswer:
    """How the kernel would send; `gateway` None: to the destination itself, `mtu` 0: unsaid."""

    kind: int
    ifindex: int
    gateway: Address | None
    source: Address | None
    mtu: int
    encapsulated: bool


class AddressEntry(NamedTuple):
    """One address of a device. The kernel may have the same one in networks of several sizes."""

    ifindex: int
    address: Address
    prefix: int


class Neighbour(NamedTuple):
    """Who is asked for on which device."""

    ifindex: int
    hop: Address


def _family(address: Address) -> int:
    return socket.AF_INET if address.version == 4 else socket.AF_INET6


def _address(data: bytes) -> Address:
    # ipaddress.ip_address() makes an IPv6 address after an exception about IPv4: thrice the time.
    return IPv4Address(data) if len(data) == 4 else IPv6Address(data)


def _number(data: bytes | None) -> int:
    return int(_U32.unpack_from(data)[0]) if data else 0


def route_request(remote: Address, local: Address | None, tos: int) -> bytes:
    """The body that asks how a packet from here to `remote` is sent."""
    bits = remote.max_prefixlen
    head = _RTMSG.pack(_family(remote), bits, bits if local else 0, tos & _DSCP, *bytes(4), 0)
    source = attribute(RTA_SRC, local.packed) if local else b""
    return head + attribute(RTA_DST, remote.packed) + source


def parse_route(body: bytes) -> RouteAnswer:
    """The answer to a `route_request`."""
    kind = _RTMSG.unpack_from(body)[7]
    found = attributes(body, _RTMSG.size)
    metrics = attributes(found.get(RTA_METRICS, b""))
    # A gateway of the other family has its family before it (struct rtvia).
    gateway = found.get(RTA_GATEWAY) or found.get(RTA_VIA, b"")[2:]
    source = found.get(RTA_PREFSRC)
    return RouteAnswer(
        kind=kind,
        ifindex=_number(found.get(RTA_OIF)),
        gateway=_address(gateway) if gateway else None,
        source=_address(source) if source else None,
        mtu=_number(metrics.get(RTAX_MTU)),
        encapsulated=_U16.unpack_from(found.get(RTA_ENCAP_TYPE, b"\0\0"))[0] != 0,
    )


def every_address() -> bytes:
    """The body of a dump of all addresses of both families."""
    return _IFADDRMSG.pack(socket.AF_UNSPEC, 0, 0, 0, 0)


def parse_address(body: bytes) -> tuple[AddressEntry, bool] | None:
    """The address of an RTM_NEWADDR or RTM_DELADDR body, and whether it is in use already: an
    IPv6 address is not before no other host was found to have it. None for other families."""
    family, prefix, short_flags, _, ifindex = _IFADDRMSG.unpack_from(body)
    found = attributes(body, _IFADDRMSG.size)
    # On a point-to-point device IFA_ADDRESS is the other end's.
    address = found.get(IFA_LOCAL) or found.get(IFA_ADDRESS)
    if family not in (socket.AF_INET, socket.AF_INET6) or not address:
        return None
    flags = _number(found.get(IFA_FLAGS)) or short_flags
    waits = flags & IFA_F_TENTATIVE and not flags & IFA_F_OPTIMISTIC
    ready = not waits and not flags & IFA_F_DADFAILED
    return AddressEntry(ifindex, _address(address), prefix), ready


def neighbour_request(neighbour: Neighbour, flags: int = 0) -> bytes:
    """A request about one neighbour."""
    head = _NDMSG.pack(_family(neighbour.hop), neighbour.ifindex, 0, flags, 0)
    return head + attribute(NDA_DST, neighbour.hop.packed)


def parse_neighbour(body: bytes) -> tuple[Neighbour, int] | None:
    """The neighbour of an RTM_NEWNEIGH or RTM_DELNEIGH body and its state (NUD_*).

    None for what bridges tell of their MAC tables in the same message types.
    """
    family, ifindex, state, _, _ = _NDMSG.unpack_from(body)
    if family not in (socket.AF_INET, socket.AF_INET6):
        return None
    hop = attributes(body, _NDMSG.size).get(NDA_DST)
    return (Neighbour(ifindex, _address(hop)), state) if hop else None
