# SPDX-License-Identifier: Apache-2.0
"""The MAC table's counts, what a sweep removes, and the places it frees."""

import struct
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace

import pytest
from tests.packet.conftest import Switch

from heliograph.kernel import bpf, fdb, layouts
from heliograph.kernel.fdb import now_tick
from heliograph.kernel.layouts import FdbKey, FdbPlace, FdbValue
from heliograph.kernel.snapshot import BridgeEntry

OTHER = 63  # the slot of a bridge that the switch of the tests does not have
Entries = dict[tuple[int, int], FdbValue]  # by bridge and the MAC's number


@pytest.fixture
def bridge(switch: Switch) -> Iterator[BridgeEntry]:
    """The switch's bridge as it is in force, with an empty table."""
    switch.configure()
    clear(switch)
    yield BridgeEntry(
        slot=switch.slot,
        forwarding=True,
        forward_bpdu=False,
        mac_age=300,
        mac_limit=8192,
        ports=tuple(switch.entries.values()),
        mirrors=(),
    )
    clear(switch)
    for _ in switch.plane.fdb.sweep(dict):
        pass


def clear(switch: Switch) -> None:
    for name, keys, values in (("fdb", 12, 24), ("fdb_order", 8, 12)):
        table = switch.plane.map_fd(name)
        bpf.delete_batch(table, [key for key, _ in bpf.items(table, keys, values)])


def sweep(switch: Switch, *bridges: BridgeEntry) -> int:
    """Sweep to the end; returns the number of slices."""
    known = {bridge.slot: bridge for bridge in bridges}
    return sum(1 for _ in switch.plane.fdb.sweep(lambda: known))


def put(switch: Switch, number: int, port: str, *, age: int = 0, bridge: int | None = None) -> None:
    """An entry, its place and its counts, as the program would make them."""
    plane, slot = switch.plane, switch.slot if bridge is None else bridge
    entry = switch.entries[port]
    key = FdbKey(b"\x02\0" + number.to_bytes(4, "big"), 0, slot).pack()
    value = FdbValue(entry.number, entry.generation, (now_tick() - age) % 2**32, number, 0, 0)
    bpf.update(plane.map_fd("fdb"), key, value.pack())
    bpf.update(plane.map_fd("fdb_order"), FdbPlace(slot, number).pack(), key)
    for name, index, size in ("fdb_learned", slot, 20), ("fdb_port_learned", entry.number, 4):
        at = struct.pack("=I", index)
        data = bpf.lookup(plane.map_fd(name), at, size) or b""
        (count,) = struct.unpack_from("=I", data)
        bpf.update(plane.map_fd(name), at, struct.pack("=I", count + 1) + data[4:])


def entries(switch: Switch) -> Entries:
    found = bpf.items(switch.plane.map_fd("fdb"), layouts.FDB_KEY.size, layouts.FDB_VALUE.size)
    pairs = ((FdbKey.unpack(key), FdbValue.unpack(value)) for key, value in found)
    return {(key.bridge, int.from_bytes(key.mac[2:], "big")): value for key, value in pairs}


def places(switch: Switch) -> set[tuple[int, int]]:
    found = bpf.items(switch.plane.map_fd("fdb_order"), layouts.FDB_PLACE.size, 12)
    return {tuple(layouts.FDB_PLACE.unpack(key)) for key, _ in found}


def test_sweeps_mend_counts_that_have_gone_wrong(switch: Switch, bridge: BridgeEntry) -> None:
    """As those of a MAC that two CPUs move at once; when they are seen twice to be wrong."""
    for number in range(3):
        switch.learn(f"02:00:00:00:01:{number:02x}", "a")  # behind the program's back
    table = switch.plane.fdb
    before = table.entries(switch.slot)
    assert before != 3
    sweep(switch, bridge)
    assert table.entries(switch.slot) == before
    sweep(switch, bridge)
    assert table.entries(switch.slot) == 3
    key = struct.pack("=I", switch.numbers["a"])
    learned, removed = (
        struct.unpack("=I", bpf.lookup(switch.plane.map_fd(name), key, 4) or b"")[0]
        for name in ("fdb_port_learned", "fdb_port_removed")
    )
    assert (learned - removed) & 0xFFFFFFFF == 3
    clear(switch)
    sweep(switch, bridge)
    sweep(switch, bridge)
    assert table.entries(switch.slot) == 0


def test_a_sweep_in_slices_removes_what_is_void_and_counts_it(
    switch: Switch, bridge: BridgeEntry, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fdb, "_ENTRIES", 64)  # of a slice
    for number in range(500):
        put(switch, number, "a", age=1000 if number % 2 else 0)
    table = switch.plane.fdb
    sweep(switch, bridge)
    before = table.entries(switch.slot)
    assert entries(switch).keys() == {(switch.slot, number) for number in range(0, 500, 2)}
    assert sweep(switch, bridge) >= 4
    sweep(switch, bridge)
    assert table.entries(switch.slot) == before == 250


def test_rule_61_a_gone_ports_macs_go_from_all_bridges(switch: Switch, bridge: BridgeEntry) -> None:
    """Also from those that were looked at first."""
    other = replace(bridge, slot=OTHER)
    for number in range(100):
        put(switch, number, "a")
        put(switch, number, "b", bridge=OTHER)
        put(switch, 1000 + number, "b", bridge=OTHER)
    gone = switch.numbers["a"]
    left = tuple(port for port in bridge.ports if port.number != gone)
    sweep(switch, replace(bridge, ports=left), other)
    assert entries(switch).keys() == {(OTHER, 1000 + number) for number in range(100)}


def test_departure_11_over_the_limit_the_oldest_of_the_largest_ports_go(
    switch: Switch, bridge: BridgeEntry
) -> None:
    for number in range(90):
        put(switch, number, "a", age=90 - number)
    for number in range(100, 160):
        put(switch, number, "b", age=number % 2)
    for number in range(200, 205):
        put(switch, number, "c", age=200)
    sweep(switch, replace(bridge, mac_limit=64))
    left = entries(switch)
    assert len(left) == switch.plane.fdb.entries(switch.slot) == 64
    assert Counter(value.port for value in left.values()) == {
        switch.numbers["a"]: 30,
        switch.numbers["b"]: 29,
        switch.numbers["c"]: 5,
    }
    of_a = sorted(number for _, number in left if number < 90)
    assert of_a == list(range(90 - len(of_a), 90)), "not the oldest"
    assert all(number in range(100, 160, 2) for _, number in left if 100 <= number < 160)


def test_places_are_freed(switch: Switch, bridge: BridgeEntry) -> None:
    """Of a bridge that is gone, beyond the limit, and of entries that are gone or elsewhere."""
    slot = switch.slot
    for number in range(200):
        put(switch, number, "a")
        put(switch, 1000 + number, "a", bridge=OTHER)
    for number in (5, 6):  # aged out, by a sweep that did not see to the places
        key = FdbKey(b"\x02\0" + number.to_bytes(4, "big"), 0, slot).pack()
        bpf.delete(switch.plane.map_fd("fdb"), key)
    moved = FdbKey(b"\x02\0" + (7).to_bytes(4, "big"), 0, slot).pack()
    bpf.update(switch.plane.map_fd("fdb_order"), FdbPlace(slot, 8).pack(), moved)
    assert len(places(switch)) == 400
    sweep(switch, replace(bridge, mac_limit=150))
    held = {number for _, number in entries(switch)}
    assert len(held) == 150
    assert places(switch) == {(slot, number) for number in held if number < 150 and number != 8}


def test_places_are_freed_when_as_many_entries_went_as_stay(
    switch: Switch, bridge: BridgeEntry
) -> None:
    """Looking them over costs a system call for each."""
    sweep(switch, bridge)
    for number in range(100):
        put(switch, number, "a", age=1000 if number < 40 else 0)
    sweep(switch, bridge)
    assert len(places(switch)) == 100
    for number in range(200, 230):
        put(switch, number, "a", age=1000)
    sweep(switch, bridge)
    assert len(places(switch)) == 60


def test_what_is_in_force_is_asked_between_slices(
    switch: Switch, bridge: BridgeEntry, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A port that came during a sweep keeps its entries."""
    monkeypatch.setattr(fdb, "_ENTRIES", 16)
    without = replace(bridge, ports=())
    for number in range(100):
        put(switch, number, "a")
    force = [{bridge.slot: without}]
    slices = switch.plane.fdb.sweep(lambda: force[0])
    next(slices)
    some = len(entries(switch))
    assert 0 < some < 100
    force[0] = {bridge.slot: bridge}
    for _ in slices:
        pass
    assert len(entries(switch)) == some
