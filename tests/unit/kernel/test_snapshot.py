# SPDX-License-Identifier: Apache-2.0
"""A bridge's snapshot says in bytes what its entries say (bpf/types.h, struct snapshot)."""

import struct

import pytest

from heliograph.kernel import layouts
from heliograph.kernel.layouts import Limits, VlanMode
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
