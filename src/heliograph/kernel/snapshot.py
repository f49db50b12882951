# SPDX-License-Identifier: Apache-2.0
"""What the data plane shall know of one bridge, and its bytes (`struct snapshot`).

These types are the desired state that planning makes and reconciling compares: frozen, of plain
values, equal if and only if a frame would be treated equally.
"""

import struct
from collections.abc import Iterable
from dataclasses import dataclass
from functools import reduce
from operator import or_

from heliograph.kernel import layouts
from heliograph.kernel.layouts import BridgeFlags, Limits, PortFlags, VlanMode

TICKS_PER_SECOND = 1e9 / (1 << Limits.TICK_SHIFT)


@dataclass(frozen=True, slots=True)
class PortEntry:
    """A port of a bridge. `trunks` empty: every VLAN; it is not looked at in access mode."""

    number: int
    ifindex: int
    mode: VlanMode
    tag: int
    trunks: frozenset[int]
    generation: int
    peer_elsewhere: bool

    def carries(self, vlan: int) -> bool:
        """Whether the port is a member of the VLAN (rules 71, 72, 74)."""
        if self.mode == VlanMode.ACCESS:
            return vlan == self.tag
        if self.mode != VlanMode.TRUNK and self.tag:
            if vlan == self.tag:
                return True
            if vlan == 0:
                return False
        return not self.trunks or vlan in self.trunks


@dataclass(frozen=True, slots=True)
class MirrorEntry:
    """A mirror that works. `vlans` empty: every VLAN. `number` is its bit, so its order."""

    number: int
    slot: int
    sources: frozenset[int]
    destinations: frozenset[int]
    vlans: frozenset[int]
    output_port: int
    snaplen: int


@dataclass(frozen=True, slots=True)
class BridgeEntry:
    """A bridge: everything that a frame consults."""

    slot: int
    forwarding: bool
    forward_bpdu: bool
    mac_age: int
    mac_limit: int
    ports: tuple[PortEntry, ...]
    mirrors: tuple[MirrorEntry, ...]


def mac_age_ticks(bridge: BridgeEntry) -> int:
    """The age past which an entry of its MAC table is void, in ticks of the program's clock."""
    return int(bridge.mac_age * TICKS_PER_SECOND) + 1


def _bits(numbers: Iterable[int]) -> int:
    return reduce(or_, (1 << number for number in numbers), 0)


def _words(bits: int) -> bytes:
    return bits.to_bytes(Limits.PORT_WORDS * 8, "little")


def _flags(bridge: BridgeEntry) -> int:
    return (BridgeFlags.BRIDGE_FORWARD_BPDU if bridge.forward_bpdu else 0) | (
        0 if bridge.forwarding else BridgeFlags.BRIDGE_NO_FORWARDING
    )


def _ports(bridge: BridgeEntry) -> Iterable[tuple[int, bytes]]:
    for port in bridge.ports:
        yield (
            port.number,
            layouts.Port(
                ifindex=port.ifindex,
                source=_bits(m.number for m in bridge.mirrors if port.number in m.sources),
                destination=_bits(
                    m.number for m in bridge.mirrors if port.number in m.destinations
                ),
                generation=port.generation,
                tag=port.tag,
                mode=port.mode,
                flags=PortFlags.PORT_PEER_ELSEWHERE if port.peer_elsewhere else 0,
            ).pack(),
        )


def _mirrors(bridge: BridgeEntry) -> Iterable[tuple[int, bytes]]:
    for mirror in bridge.mirrors:
        same = _bits(m.number for m in bridge.mirrors if m.output_port == mirror.output_port)
        yield (
            mirror.number,
            layouts.Mirror(
                same=same,
                output_port=mirror.output_port,
                snaplen=mirror.snaplen,
                slot=mirror.slot,
            ).pack(),
        )


def _vlans(bridge: BridgeEntry) -> bytes:
    """All 4,096 VLANs: most are alike, so only those that some row names are worked out."""

    def one(vlan: int) -> bytes:
        mirrors = _bits(m.number for m in bridge.mirrors if not m.vlans or vlan in m.vlans)
        members = _bits(p.number for p in bridge.ports if p.carries(vlan))
        return struct.pack("=II", mirrors, 0) + _words(members)

    named = {0}
    for port in bridge.ports:
        named |= {port.tag} | port.trunks
    for mirror in bridge.mirrors:
        named |= mirror.vlans
    other = next((vlan for vlan in range(Limits.MAX_VLANS) if vlan not in named), 0)
    table = bytearray(one(other) * Limits.MAX_VLANS)
    for vlan in named:
        record = one(vlan)
        table[vlan * len(record) : (vlan + 1) * len(record)] = record
    return bytes(table)


def pack(bridge: BridgeEntry) -> bytes:
    """The bytes of `struct snapshot`."""
    data = bytearray(layouts.SNAPSHOT_SIZE)
    head = (_flags(bridge), mac_age_ticks(bridge), bridge.mac_limit)
    struct.pack_into("=III", data, 0, *head)
    reserved = _words(_bits(m.output_port for m in bridge.mirrors))
    data[layouts.SNAPSHOT_RESERVED : layouts.SNAPSHOT_RESERVED + len(reserved)] = reserved
    for start, rows in (
        (layouts.SNAPSHOT_MIRRORS, _mirrors(bridge)),
        (layouts.SNAPSHOT_PORTS, _ports(bridge)),
    ):
        for number, record in rows:
            at = start + number * len(record)
            data[at : at + len(record)] = record
    data[layouts.SNAPSHOT_VLANS :] = _vlans(bridge)
    return bytes(data)
