# SPDX-License-Identifier: Apache-2.0
"""What the data plane shall know of one bridge, and its bytes (`struct snapshot`).

These types are the desired state that planning makes and reconciling compares: frozen, of plain
values, equal if and only if a frame would be treated equally.
"""

import struct
from array import array
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from functools import reduce
from operator import or_

from heliograph.kernel import layouts
from heliograph.kernel.layouts import BridgeFlags, Limits, PortFlags, PriorityTags, VlanMode

TICKS_PER_SECOND = 1e9 / (1 << Limits.TICK_SHIFT)
_SET_BYTES = Limits.VLAN_WORDS * 8


@dataclass(frozen=True, slots=True)
class PortEntry:
    """A port of a bridge.

    `trunks` empty: every VLAN; it is not looked at in access and dot1q-tunnel mode, for which
    `customer_vlans` (empty: all) and `service_tpid` are. `peer_mac` is that of the other end of
    its veth device if that is in another namespace, empty otherwise or if not known. A patch port
    has no device but a `peer`: the slot of a bridge, and the number of a port there. That of a
    `tunnel` is the segmenter's near end. `ofport` 0: flow tables do not know it. `config` has what
    OpenFlow set of it (PORT_NO_...).
    """

    number: int
    ifindex: int
    mode: VlanMode
    tag: int
    trunks: frozenset[int]
    generation: int
    peer_mac: bytes = b""
    protected: bool = False
    priority_tags: PriorityTags = PriorityTags.PRIORITY_NEVER
    service_tpid: int = 0x88A8
    customer_vlans: frozenset[int] = frozenset()
    peer: tuple[int, int] | None = None
    tunnel: bool = False
    ofport: int = 0
    config: int = 0

    def membership(self) -> tuple[bool, frozenset[int]]:
        """The VLANs it is a member of (rules 71, 72, 74): (True, all but these), (False, these)."""
        own = frozenset({self.tag})
        if self.mode in (VlanMode.ACCESS, VlanMode.DOT1Q_TUNNEL):
            return False, own
        if self.mode == VlanMode.TRUNK:
            return not self.trunks, self.trunks
        untagged = frozenset({0}) - own  # a native port carries no VLAN 0 but its own
        return (False, self.trunks - untagged | own) if self.trunks else (True, untagged)

    def carries(self, vlan: int) -> bool:
        """Whether it is a member of the VLAN."""
        everywhere, exceptions = self.membership()
        return everywhere != (vlan in exceptions)


@dataclass(frozen=True, slots=True)
class MirrorEntry:
    """A mirror that works. `vlans` empty: every VLAN. `number` is its bit, so its order.

    With an `output_vlan` other than 0, `output_port` is None.
    """

    number: int
    slot: int
    sources: frozenset[int]
    destinations: frozenset[int]
    vlans: frozenset[int]
    output_port: int | None
    snaplen: int
    output_vlan: int = 0


@dataclass(frozen=True, slots=True)
class BridgeEntry:
    """A bridge: everything that a frame consults. With `flows` its frames go through the tables of
    its store, the second of the slot's two or the first, else straight to NORMAL. `mirror_changed`
    is rule 26's behaviour."""

    slot: int
    forwarding: bool
    forward_bpdu: bool
    mac_age: int
    mac_limit: int
    ports: tuple[PortEntry, ...]
    mirrors: tuple[MirrorEntry, ...]
    flood_vlans: frozenset[int] = frozenset()
    vlan_limit: int = 1
    segmenter: int = 0
    flows: bool = False
    mirror_changed: bool = False
    second_store: bool = False


def mac_age_ticks(bridge: BridgeEntry) -> int:
    """The age past which an entry of its MAC table is void, in ticks of the program's clock."""
    return int(bridge.mac_age * TICKS_PER_SECOND) + 1


def _bits(numbers: Iterable[int]) -> int:
    return reduce(or_, (1 << number for number in numbers), 0)


def _words(bits: int) -> bytes:
    return bits.to_bytes(Limits.PORT_WORDS * 8, "little")


def _flags(bridge: BridgeEntry) -> int:
    return (
        (BridgeFlags.BRIDGE_FORWARD_BPDU if bridge.forward_bpdu else 0)
        | (0 if bridge.forwarding else BridgeFlags.BRIDGE_NO_FORWARDING)
        | (BridgeFlags.BRIDGE_FLOWS if bridge.flows else 0)
        | (BridgeFlags.BRIDGE_MIRROR_CHANGED if bridge.mirror_changed else 0)
        | (BridgeFlags.BRIDGE_SECOND_STORE if bridge.second_store else 0)
    )


def _port_flags(port: PortEntry) -> int:
    return (
        (PortFlags.PORT_PEER_ELSEWHERE if port.peer_mac else 0)
        | (PortFlags.PORT_PROTECTED if port.protected else 0)
        | (PortFlags.PORT_PATCH if port.peer else 0)
        | (PortFlags.PORT_TUNNEL if port.tunnel else 0)
        | port.config
    )


def vlan_sets(bridge: BridgeEntry) -> list[frozenset[int]]:
    """The different sets of customer VLANs, in the order of their numbers; the first is all."""
    sets = {port.customer_vlans for port in bridge.ports} - {frozenset()}
    return [frozenset(), *sorted(sets, key=sorted)]


def _ports(bridge: BridgeEntry) -> Iterable[tuple[int, bytes]]:
    sets = vlan_sets(bridge)
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
                flags=_port_flags(port),
                service_tpid=port.service_tpid,
                priority_tags=port.priority_tags,
                customer_vlans=sets.index(port.customer_vlans),
                peer_bridge=port.peer[0] if port.peer else 0,
                peer_port=port.peer[1] if port.peer else 0,
                peer_mac=port.peer_mac.ljust(6, b"\0"),
                ofport=port.ofport,
            ).pack(),
        )


def _mirrors(bridge: BridgeEntry) -> Iterable[tuple[int, bytes]]:
    for mirror in bridge.mirrors:
        same = _bits(
            m.number
            for m in bridge.mirrors
            if (m.output_port, m.output_vlan) == (mirror.output_port, mirror.output_vlan)
        )
        yield (
            mirror.number,
            layouts.Mirror(
                same=same,
                output_port=mirror.output_port or 0,
                snaplen=mirror.snaplen,
                slot=mirror.slot,
                output_vlan=mirror.output_vlan,
                padding=0,
            ).pack(),
        )


def _vlans(bridge: BridgeEntry) -> bytes:
    """All 4,096 VLANs: most are alike, so only those that some row names are worked out, and each
    port only touches those that it names."""
    members = mirrors = 0  # of a VLAN that nobody names
    member_of: defaultdict[int, int] = defaultdict(int)  # what is otherwise in those that are
    mirrored_by: defaultdict[int, int] = defaultdict(int)
    for port in bridge.ports:
        everywhere, exceptions = port.membership()
        members |= everywhere << port.number
        for vlan in exceptions:
            member_of[vlan] |= 1 << port.number
    for mirror in bridge.mirrors:
        mirrors |= (not mirror.vlans) << mirror.number
        for vlan in mirror.vlans:
            mirrored_by[vlan] |= 1 << mirror.number
    one = struct.Struct(f"=II{Limits.PORT_WORDS * 8}s")
    table = bytearray(one.pack(mirrors, False, _words(members)) * Limits.MAX_VLANS)
    for vlan in member_of.keys() | mirrored_by.keys() | bridge.flood_vlans:
        one.pack_into(
            table,
            vlan * one.size,
            mirrors ^ mirrored_by[vlan],
            vlan in bridge.flood_vlans,
            _words(members ^ member_of[vlan]),
        )
    return bytes(table)


def _reserved(bridge: BridgeEntry) -> int:
    outputs = {mirror.output_port for mirror in bridge.mirrors}
    return _bits(port for port in outputs if port is not None)


def _reached(bridge: BridgeEntry, excepted: int) -> int:
    """The ports that FLOOD and ALL send to: no mirror's output (D7), none so configured."""
    ports = _bits(port.number for port in bridge.ports if not port.config & excepted)
    return ports & ~_reserved(bridge)


def _numbers(bridge: BridgeEntry) -> bytes:
    """The number + 1 of the port that has an ofport, by ofport."""
    numbers = array("H", bytes(2 << 16))
    for port in bridge.ports:
        if port.ofport:
            numbers[port.ofport] = port.number + 1
    return numbers.tobytes()


def pack(bridge: BridgeEntry) -> bytes:
    """The bytes of `struct snapshot`."""
    data = bytearray(layouts.SNAPSHOT_SIZE)
    head = (_flags(bridge), mac_age_ticks(bridge), bridge.mac_limit, bridge.vlan_limit)
    struct.pack_into("=IIIII", data, 0, *head, bridge.segmenter)
    for start, words in (
        (layouts.SNAPSHOT_RESERVED, _words(_reserved(bridge))),
        (layouts.SNAPSHOT_ALL, _words(_reached(bridge, 0))),
        (layouts.SNAPSHOT_FLOOD, _words(_reached(bridge, PortFlags.PORT_NO_FLOOD))),
        (layouts.SNAPSHOT_NUMBERS, _numbers(bridge)),
    ):
        data[start : start + len(words)] = words
    for start, rows in (
        (layouts.SNAPSHOT_MIRRORS, _mirrors(bridge)),
        (layouts.SNAPSHOT_PORTS, _ports(bridge)),
    ):
        for number, record in rows:
            at = start + number * len(record)
            data[at : at + len(record)] = record
    for number, allowed in enumerate(vlan_sets(bridge)):
        at = layouts.SNAPSHOT_VLAN_SETS + number * _SET_BYTES
        data[at : at + _SET_BYTES] = _bits(allowed).to_bytes(_SET_BYTES, "little")
    data[layouts.SNAPSHOT_VLANS :] = _vlans(bridge)
    return bytes(data)
