# SPDX-License-Identifier: Apache-2.0
"""Flow stores in maps of the kernel, which takes root."""

import os
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.oracle.flow_store import look_up, version_of
from tests.unit.flows.mods import TWO, mod, port

from heliograph.flows.tables import Tables
from heliograph.kernel import bpf
from heliograph.kernel.flow_store import FlowStore
from heliograph.kernel.flow_store_maps import KernelBacking, store_in_force
from heliograph.kernel.layouts import BridgeFlags
from heliograph.openflow.match import Match

_STORES = 6, 7
_ARRAY_OF_MAPS = 12


@pytest.fixture
def outer() -> Iterator[int]:
    """An array of stores, as bpf/maps.h has it."""
    inner = bpf.create_shared_array(1024, 1, "inner")
    fd = array_of(inner)
    os.close(inner)
    yield fd
    os.close(fd)


def array_of(inner: int) -> int:
    attribute = bpf._attribute("IIIIII", _ARRAY_OF_MAPS, 4, 4, 8, 0, inner)
    return bpf._call(bpf.MAP_CREATE, attribute)


class Bridge:
    def __init__(self, outer: int, tables: Tables | None = None, store: int = _STORES[0]) -> None:
        self.backing = KernelBacking(outer, store)
        self.store = FlowStore(self.backing, lambda port: True)
        self.tables = Tables(self.store)
        if tables is not None:
            self.tables.restore(tables.flows.values(), (), tables.next_id)
        self.store.load(self.tables)

    def add(self, **said: Any) -> None:
        self.store.apply(self.tables.change(mod(**said), 0).delta)


def seen(outer: int, store: int = _STORES[0]) -> bytes:
    """A store, as frames would read it."""
    found = bpf.lookup(outer, struct.pack("=I", store), 4)
    assert found is not None
    fd = bpf.get_by_id(*struct.unpack("=I", found))
    try:
        return b"".join(value for _, value in bpf.items(fd, 4, 1024))
    finally:
        os.close(fd)


def rule(data: bytes, in_port: int) -> tuple[int, int, int] | None:
    """Cell, flow and packets."""
    found = look_up(data, 0, [in_port << 32, *[0] * 31], version_of(data))
    return found and (found[0], found[1].flow, found[1].packets)


def count(outer: int, cell: int, packets: int) -> None:
    """As the program would, in the first store."""
    found = bpf.lookup(outer, struct.pack("=I", _STORES[0]), 4)
    assert found is not None
    fd = bpf.get_by_id(*struct.unpack("=I", found))
    key = struct.pack("=I", cell // 8)
    block = bytearray(bpf.lookup(fd, key, 1024) or b"")
    struct.pack_into("=QQ", block, cell % 8 * 128 + 24, packets, packets * 60)
    bpf.update(fd, key, bytes(block))
    os.close(fd)


def test_frames_find_what_is_written_and_it_is_there_for_the_next_process(outer: int) -> None:
    first = Bridge(outer)
    first.add(match=port(1))
    first.add(match=port(2), actions=TWO)
    found = rule(seen(outer), 1)
    assert found is not None and found[1:] == (1, 0)
    count(outer, found[0], 7)
    assert first.store.usage(1)[:2] == (7, 420)
    first.store.close()
    assert rule(seen(outer), 2) is not None
    before = seen(outer)
    second = Bridge(outer, first.tables, _STORES[1])
    assert seen(outer) == before, "frames are still at it"
    assert second.store.usage(1)[:2] == (7, 420)
    count(outer, found[0], 9)
    second.store.settle()
    assert second.store.usage(1)[:2] == (9, 540)
    assert bpf.lookup(outer, struct.pack("=I", _STORES[0]), 4) is None
    found = rule(seen(outer, _STORES[1]), 1)
    assert found is not None and found[1:] == (1, 0)
    second.store.settle()
    second.store.close()


def test_the_snapshot_says_which_store_is_in_force() -> None:
    snapshot = bpf.create_array(64, 1, "snapshot")
    bridges = array_of(snapshot)
    slot = struct.pack("=I", 3)
    assert store_in_force(bridges, 3) == 6
    bpf.update(bridges, slot, struct.pack("=I", snapshot))
    for flags, number in ((0, 6), (BridgeFlags.BRIDGE_SECOND_STORE, 7), (15, 6), (31, 7)):
        bpf.update(snapshot, bytes(4), struct.pack("=I", flags) + bytes(60))
        assert store_in_force(bridges, 3) == number
    os.close(snapshot)
    os.close(bridges)


def test_a_store_that_is_full_is_replaced_by_a_larger_one(outer: int) -> None:
    bridge = Bridge(outer)
    bridge.add(match=port(1))
    before = rule(seen(outer), 1)
    blocks, n = bpf.map_shape(bridge.backing.fd)[3], 0
    while bpf.map_shape(bridge.backing.fd)[3] == blocks:
        n += 1
        bridge.add(match=Match.of({"reg0": (n, 0xFFFF_FFFF)}))
    assert (rule(seen(outer), 1), len(seen(outer))) == (before, 2 * blocks * 1024)
    bridge.backing.grace()
    bridge.store.close()
    assert rule(seen(outer), 1) == before


def open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def test_nothing_stays_open(outer: int) -> None:
    before = open_files()
    Bridge(outer).store.close()
    Bridge(outer, store=_STORES[1]).store.close()
    second = Bridge(outer)
    second.store.settle()
    for n in range(700):
        second.add(match=Match.of({"reg0": (n, 0xFFFF_FFFF)}))
    second.store.close()
    assert open_files() == before
