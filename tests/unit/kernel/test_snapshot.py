# SPDX-License-Identifier: Apache-2.0
"""A bridge's snapshot says in bytes what its entries say (bpf/types.h, struct snapshot)."""

import struct
from dataclasses import replace

import pytest

from heliograph.kernel import layouts
from heliograph.kernel.layouts import BridgeFlags, Limits, PortFlags, VlanMode
from heliograph.kernel.snapshot import BridgeEntry, MirrorEntry, PortEntry, pack

VLAN = struct.Struct(f"=II{Limits.PORT_WORDS * 8}s")


def port(number: int, mode: VlanMode, tag: int = 0, trunks: tuple[int, ...] = ()) -> PortEntry:
    return PortEntry(number, 100 + number, mode, tag, frozenset(trunks), number)


def mirror(
    number: int, output: int | None, vlans: tuple[int, ...] = (), vlan: int = 0
) -> MirrorEntry:
    everything = frozenset({1, 2})
    return MirrorEntry(number, number, everything, everything, frozenset(vlans), output, 0, vlan)


def bridge(
    *ports: PortEntry, mirrors: tuple[MirrorEntry, ...] = (), flood: tuple[int, ...] = ()
) -> BridgeEntry:
    return BridgeEntry(3, True, False, 300, 100, ports, mirrors, frozenset(flood))


def vlan_of(data: bytes, vlan: int) -> tuple[int, int, set[int]]:
    """(mirrors, flood, numbers of member ports) of a VLAN."""
    mirrors, flood, words = VLAN.unpack_from(data, layouts.SNAPSHOT_VLANS + vlan * VLAN.size)
    bits = int.from_bytes(words, "little")
    return mirrors, flood, {n for n in range(Limits.MAX_PORTS) if bits >> n & 1}


@pytest.mark.parametrize(
    ("entry", "carried", "not_carried"),
    [
        (port(1, VlanMode.ACCESS, 5, (6,)), {5}, {0, 6, 7}),
        (port(1, VlanMode.ACCESS, 0), {0}, {1, 4095}),
        (port(1, VlanMode.TRUNK), {0, 1, 4095}, set()),
        (port(1, VlanMode.TRUNK, 5, (6, 7)), {6, 7}, {0, 5}),
        (port(1, VlanMode.NATIVE_TAGGED, 5), {5, 1, 4095}, {0}),
        (port(1, VlanMode.NATIVE_UNTAGGED, 5, (0, 6)), {5, 6}, {0, 7}),
        (port(1, VlanMode.NATIVE_TAGGED, 0, (6,)), {0, 6}, {5}),
        (port(1, VlanMode.DOT1Q_TUNNEL, 9, (6,)), {9}, {0, 6}),
    ],
)
def test_rules_71_to_74_membership(
    entry: PortEntry, carried: set[int], not_carried: set[int]
) -> None:
    data = pack(bridge(port(2, VlanMode.TRUNK), entry))
    for vlan in carried | not_carried:
        assert entry.carries(vlan) == (vlan in carried), vlan
        assert vlan_of(data, vlan)[2] == ({1, 2} if vlan in carried else {2}), vlan


def test_select_vlan_and_flood_vlans() -> None:
    mirrors = (mirror(0, 2), mirror(4, 2, (7, 8)))
    data = pack(bridge(port(1, VlanMode.TRUNK), mirrors=mirrors, flood=(8,)))
    assert [vlan_of(data, vlan)[:2] for vlan in (6, 7, 8)] == [(1, 0), (17, 0), (17, 1)]


def test_rule_22_one_destination_and_rule_51_its_reservation() -> None:
    mirrors = (mirror(0, 2), mirror(1, None, vlan=9), mirror(2, 2), mirror(3, None, vlan=8))
    data = pack(bridge(port(1, VlanMode.TRUNK), port(2, VlanMode.TRUNK), mirrors=mirrors))
    size = layouts.MIRROR.size
    same = [
        layouts.Mirror.unpack(data[at : at + size]).same
        for at in range(layouts.SNAPSHOT_MIRRORS, layouts.SNAPSHOT_MIRRORS + 4 * size, size)
    ]
    assert same == [0b0101, 0b0010, 0b0101, 0b1000]
    (reserved,) = struct.unpack_from("=Q", data, layouts.SNAPSHOT_RESERVED)
    assert reserved == 1 << 2


def ports_at(data: bytes, start: int) -> set[int]:
    """The ports of a set of them."""
    bits = int.from_bytes(data[start : start + Limits.PORT_WORDS * 8], "little")
    return {number for number in range(Limits.MAX_PORTS) if bits >> number & 1}


def test_flood_and_all_leave_out_mirror_outputs_and_what_openflow_excludes() -> None:
    """D7, and OFPPC_NO_FLOOD, which ALL does not look at."""
    ports = tuple(port(number, VlanMode.TRUNK) for number in (1, 2, 3, 70))
    quiet = replace(ports[2], config=PortFlags.PORT_NO_FLOOD | PortFlags.PORT_NO_PACKET_IN)
    data = pack(bridge(*ports[:2], quiet, ports[3], mirrors=(mirror(0, 2),)))
    assert ports_at(data, layouts.SNAPSHOT_ALL) == {1, 3, 70}
    assert ports_at(data, layouts.SNAPSHOT_FLOOD) == {1, 70}
    assert ports_at(data, layouts.SNAPSHOT_RESERVED) == {2}
    entry = layouts.Port.unpack(
        data[layouts.SNAPSHOT_PORTS + 3 * layouts.PORT.size :][: layouts.PORT.size]
    )
    assert entry.flags == PortFlags.PORT_NO_FLOOD | PortFlags.PORT_NO_PACKET_IN


def test_ports_are_found_by_their_ofport() -> None:
    numbered = [(0, 65534), (7, 1), (1023, 65279)]
    ports = [replace(port(n, VlanMode.TRUNK), ofport=ofport) for n, ofport in numbered]
    data = pack(bridge(*ports, port(5, VlanMode.TRUNK)))
    numbers = struct.unpack_from("=65536H", data, layouts.SNAPSHOT_NUMBERS)
    found = {ofport: number - 1 for ofport, number in enumerate(numbers) if number}
    assert found == {ofport: number for number, ofport in numbered}
    entry = layouts.Port.unpack(
        data[layouts.SNAPSHOT_PORTS + 7 * layouts.PORT.size :][: layouts.PORT.size]
    )
    assert entry.ofport == 1


def test_flags_of_a_bridge() -> None:
    plain = bridge(port(1, VlanMode.TRUNK))
    for entry, flags in (
        (plain, 0),
        (replace(plain, flows=True), BridgeFlags.BRIDGE_FLOWS),
        (replace(plain, mirror_changed=True), BridgeFlags.BRIDGE_MIRROR_CHANGED),
        (replace(plain, second_store=True), BridgeFlags.BRIDGE_SECOND_STORE),
        (replace(plain, forwarding=False), BridgeFlags.BRIDGE_NO_FORWARDING),
    ):
        (found,) = struct.unpack_from("=I", pack(entry), layouts.SNAPSHOT_FLAGS)
        assert found == flags
