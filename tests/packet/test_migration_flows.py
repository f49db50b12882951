# SPDX-License-Identifier: Apache-2.0
"""An upgrade to another layout: flows are built anew, with what they had counted."""

import struct
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from tools.lab.lab import Lab

from heliograph.flows.flow import Usage
from heliograph.flows.tables import Tables
from heliograph.kernel import bpf, bpffs, layouts, recorder
from heliograph.kernel.dataplane import DataPlane
from heliograph.kernel.layouts import EventKind, VlanMode
from heliograph.kernel.snapshot import BridgeEntry, PortEntry
from heliograph.openflow.actions import Output, Port
from heliograph.openflow.flows import FlowCommand, FlowMod, PacketOut
from heliograph.openflow.match import Match
from heliograph.switch.stores import BridgeStore

SLOT = 5
FLOW = FlowMod(command=FlowCommand.ADD, table_id=0, priority=1, actions=(Output(2),))
FRAME = bytes.fromhex("02000000000202000000000188b5") + bytes(46)
PORTS = tuple(PortEntry(n, 999, VlanMode.TRUNK, 0, frozenset(), 1, ofport=n) for n in (1, 2))


@pytest.fixture
def root() -> Iterator[Path]:
    with Lab() as lab:
        root = lab.path("bpf")
        bpffs.mount(root)
        try:
            yield root
        finally:
            bpffs.unmount(root)


def switch_over(plane: DataPlane, store: BridgeStore) -> None:
    second = store.number == 2 * SLOT + 1
    entry = BridgeEntry(SLOT, True, False, 300, 100, PORTS, (), flows=True, second_store=second)
    plane.switch_over(entry)
    store.settle()


def send(store: BridgeStore) -> None:
    """A frame in by port 1."""
    store.packet_out(PacketOut(actions=(Output(Port.TABLE),), data=FRAME, in_port=1))


def rules_met(plane: DataPlane) -> list[int | None]:
    """Their cells, by a frame that comes in by port 1 now."""
    program, records = plane.program_fd("recorder"), plane.map_fd("records")
    events = recorder.record(program, records, FRAME, bridge=SLOT, port=1)
    return [event.rule for event in events if event.kind == EventKind.EVENT_FLOW]


def test_frames_stay_in_the_old_store_until_they_are_switched_over(root: Path) -> None:
    """The next process's store has other numbers, and nobody finds them before its snapshot."""
    tables = Tables()
    tables.change(FLOW, now=0)
    (flow,) = tables.flows.values()
    plane = DataPlane.open(root)
    first = BridgeStore(plane, SLOT, lambda port: True)
    first.load(tables)
    switch_over(plane, first)
    send(first)
    for priority in range(2, 9):
        tables.change(replace(FLOW, priority=priority, match=Match.of({"metadata": (9, 15)})), 0)
    (cell,) = rules_met(plane)
    next_plane = DataPlane.open(root)
    second = BridgeStore(next_plane, SLOT, lambda port: True)
    assert {first.number, second.number} == {2 * SLOT, 2 * SLOT + 1}
    second.load(tables)
    assert second.usage(flow.id).packets == 1
    assert cell is not None and rules_met(plane) == [cell] and first.rule_at(cell) == flow.id
    send(first)
    assert (first.usage(flow.id).packets, second.usage(flow.id).packets) == (2, 1)
    send(second)
    switch_over(next_plane, second)
    assert second.usage(flow.id).packets == 3, "what the old one counted is not carried over"
    (new,) = rules_met(next_plane)
    assert new is not None and second.rule_at(new) == flow.id
    assert new != cell, "that is no other number"
    stores = next_plane.map_fd("flow_stores")
    left = [bpf.lookup(stores, struct.pack("=I", 2 * SLOT + n), 4) is not None for n in (0, 1)]
    assert left == [n == second.number % 2 for n in (0, 1)]
    next_plane.clear_bridge(SLOT)
    assert bpf.lookup(stores, struct.pack("=I", second.number), 4) is None
    for opened in (first, second, plane, next_plane):
        opened.close()


def test_flows_count_on(root: Path) -> None:
    tables = Tables()
    tables.change(FLOW, now=0)
    (flow,) = tables.flows.values()
    counted = Usage()
    for number in range(3):
        plane = DataPlane.open(root)
        store = BridgeStore(plane, SLOT, lambda port: True)
        try:
            assert plane.adopted == (number > 0)
            store.load(tables)
            found = store.usage(flow.id)
            assert (found.packets, found.bytes) == (counted.packets, counted.bytes)
            switch_over(plane, store)
            send(store)
            counted = store.usage(flow.id)
            assert counted.packets == number + 1
        finally:
            store.close()
            plane.close()
        if number == 1:
            (root / f"layout-{layouts.LAYOUT}").rename(root / "layout-0123456789ab")
