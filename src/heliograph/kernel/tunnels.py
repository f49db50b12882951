# SPDX-License-Identifier: Apache-2.0
"""What the data plane shall know of tunnel ports, and its bytes (`struct underlay`, endpoints).

Like those of snapshot.py these types are desired state: frozen, of plain values.
"""

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address

from heliograph.kernel import layouts
from heliograph.kernel.layouts import Match, Reason, TunnelFlags, TunnelKind

Address = IPv4Address | IPv6Address
_NOWHERE = bytes(16)
_HERE = struct.pack("=I", 1)


@dataclass(frozen=True, slots=True)
class Way:
    """How outer packets leave: by device `ifindex` to the neighbour `hop`, from address `source`.
    `mtu` is of a whole outer packet; `state` why nothing can be sent now, or DELIVERED."""

    state: Reason
    ifindex: int = 0
    source: Address | None = None
    hop: Address | None = None
    mtu: int = 0


@dataclass(frozen=True, slots=True)
class TunnelEntry:
    """A tunnel port: `number` of the port, `bridge` its bridge's slot.

    It sends to `remote` (None: nowhere) with `key`, `ttl` and so on as struct tunnel has them, and
    receives from there (None: from anywhere) what has `in_key` (None: any) and comes to `local`;
    without one, to any address of the underlay's. `family` is 4 or 6; None, where no address tells,
    is both. `copies`: some mirror's go there. `alone`: the host has no such
    tunnels of its own, whose packets those might be that only nearly match.
    """

    number: int
    bridge: int
    kind: TunnelKind
    flags: int
    remote: Address | None
    local: Address | None
    family: int | None
    in_key: int | None
    way: Way
    key: int = 0
    ttl: int = 64
    tos: int = 0
    dst_port: int = 0
    index: int = 0
    hwid: int = 0
    direction: int = 0
    copies: bool = False
    alone: bool = True


@dataclass(frozen=True, slots=True)
class UnderlayEntry:
    """Every tunnel port, and what they share: `segmenter` is the ifindex of its near end,
    `tai_offset` the seconds that the clock TAI is ahead of UTC; `addresses` are those of this host
    at which ports may receive."""

    segmenter: int = 0
    tai_offset: int = 0
    addresses: frozenset[Address] = frozenset()
    tunnels: tuple[TunnelEntry, ...] = ()


def _octets(address: Address | None) -> bytes:
    return address.packed.ljust(16, b"\0") if address else _NOWHERE


def _tunnel(entry: TunnelEntry) -> layouts.Tunnel:
    via_ipv6 = entry.way.hop is not None and entry.way.hop.version == 6
    ipv6 = entry.remote is not None and entry.remote.version == 6
    return layouts.Tunnel(
        kind=entry.kind,
        flags=entry.flags
        | (TunnelFlags.TUNNEL_IPV6 if ipv6 else 0)
        | (TunnelFlags.TUNNEL_VIA_IPV6 if via_ipv6 else 0),
        state=entry.way.state,
        ifindex=entry.way.ifindex,
        mtu=entry.way.mtu,
        key=entry.key,
        erspan_index=entry.index,
        dst_port=entry.dst_port,
        ttl=entry.ttl,
        tos=entry.tos,
        hwid=entry.hwid,
        direction=entry.direction,
        padding=0,
        local=_octets(entry.way.source),
        remote=_octets(entry.remote),
        hop=_octets(entry.way.hop),
    )


def pack(underlay: UnderlayEntry) -> bytes:
    """The bytes of `struct underlay`."""
    data = bytearray(layouts.UNDERLAY_SIZE)
    struct.pack_into("=II", data, 0, underlay.segmenter, underlay.tai_offset)
    for entry in underlay.tunnels:
        at = layouts.UNDERLAY_TUNNELS + entry.number * layouts.TUNNEL.size
        data[at : at + layouts.TUNNEL.size] = _tunnel(entry).pack()
        if entry.kind == TunnelKind.VXLAN:
            data[layouts.UNDERLAY_UDP_PORTS + entry.dst_port // 8] |= 1 << entry.dst_port % 8
    return bytes(data)


def _match(entry: TunnelEntry) -> Match:
    if entry.remote is None:
        return Match.MATCH_ANY if entry.in_key is None else Match.MATCH_KEY
    return Match.MATCH_REMOTE if entry.in_key is None else Match.MATCH_ALL


def _kind(entry: TunnelEntry) -> TunnelKind:
    return TunnelKind.ERSPAN_II if entry.kind == TunnelKind.ERSPAN_III else entry.kind


def _sent(entry: TunnelEntry) -> Iterator[layouts.Endpoint]:
    """What the port sends, that it be known when it comes back."""
    if entry.remote is not None and entry.way.source is not None:
        one = layouts.Endpoint(
            kind=_kind(entry),
            match=Match.SENT,
            ipv6=entry.remote.version == 6,
            padding=0,
            dst_port=entry.dst_port,
            key=entry.key,
            local=_octets(entry.way.source),
            remote=_octets(entry.remote),
        )
        yield one
        if entry.copies:
            yield one._replace(match=Match.SENT_COPY)


def _received(entry: TunnelEntry, *, ipv6: bool) -> Iterator[layouts.Endpoint]:
    """What arrives for a port; then what misses it by one thing."""
    own = layouts.Endpoint(
        kind=_kind(entry),
        match=_match(entry),
        ipv6=ipv6,
        padding=0,
        dst_port=entry.dst_port,
        key=entry.in_key or 0,
        local=_octets(entry.local),
        remote=_octets(entry.remote),
    )
    yield own
    if entry.remote is not None and entry.alone:
        yield own._replace(match=Match.MISSED_KEY, key=0)
        yield own._replace(match=Match.MISSED_PROTOCOL, key=0, dst_port=0)
        if entry.in_key is not None:
            yield own._replace(match=Match.MISSED_REMOTE, remote=_NOWHERE)


def endpoints(underlay: UnderlayEntry) -> dict[bytes, bytes]:
    """The map `endpoints`. Where two ports would receive the same, as far as that can be said in
    it, the one of one family only does. Nothing is received at a local address that this host
    does not have: such packets are on their way to another one."""
    found: dict[bytes, bytes] = {}
    order = sorted(underlay.tunnels, key=lambda entry: (entry.family is None, entry.number))
    for entry in order:
        owner = layouts.Device(entry.bridge, entry.number).pack()
        families = (4, 6) if entry.family is None else (entry.family,)
        for family in families:
            if entry.local is None or entry.local in underlay.addresses:
                for key in _received(entry, ipv6=family == 6):
                    found.setdefault(key.pack(), owner)
        for key in _sent(entry):
            found.setdefault(key.pack(), owner)
    return found


def addresses(underlay: UnderlayEntry) -> dict[bytes, bytes]:
    """The map `addresses`."""
    return {
        layouts.OwnAddress(address.version == 6, _octets(address)).pack(): _HERE
        for address in underlay.addresses
    }
