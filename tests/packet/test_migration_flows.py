# SPDX-License-Identifier: Apache-2.0
"""An upgrade to another layout: flows are built anew, with what they had counted."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from tools.lab.lab import Lab

from heliograph.flows.flow import Usage
from heliograph.flows.tables import Tables
from heliograph.kernel import bpffs, layouts
from heliograph.kernel.dataplane import DataPlane
from heliograph.kernel.layouts import VlanMode
from heliograph.kernel.snapshot import BridgeEntry, PortEntry
from heliograph.openflow.actions import Output, Port
from heliograph.openflow.flows import FlowCommand, FlowMod, PacketOut
from heliograph.switch.stores import BridgeStore

SLOT = 5
FLOW = FlowMod(command=FlowCommand.ADD, table_id=0, priority=1, actions=(Output(2),))
FRAME = bytes.fromhex("02000000000202000000000188b5") + bytes(46)
PORTS = tuple(PortEntry(n, 0, VlanMode.TRUNK, 0, frozenset(), 1, ofport=n) for n in (1, 2))


@pytest.fixture
def root() -> Iterator[Path]:
    with Lab() as lab:
        root = lab.path("bpf")
        bpffs.mount(root)
        try:
            yield root
        finally:
            bpffs.unmount(root)


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
            plane.switch_over(BridgeEntry(SLOT, True, False, 300, 100, PORTS, (), flows=True))
            store.packet_out(PacketOut(actions=(Output(Port.TABLE),), data=FRAME, in_port=1))
            counted = store.usage(flow.id)
            assert counted.packets == number + 1
        finally:
            store.close()
            plane.close()
        if number == 1:
            (root / f"layout-{layouts.LAYOUT}").rename(root / "layout-0123456789ab")
