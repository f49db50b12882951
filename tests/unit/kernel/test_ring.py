# SPDX-License-Identifier: Apache-2.0
"""Frames for controllers: a packet-out through the program, and out of the ring again."""

import select
from collections.abc import Iterator

import pytest
from tools.lab.lab import Lab, sweep

from heliograph.flows.tables import Tables
from heliograph.kernel import bpffs, packet_out
from heliograph.kernel.dataplane import DataPlane
from heliograph.kernel.flow_store import FlowStore
from heliograph.kernel.flow_store_maps import KernelBacking
from heliograph.kernel.layouts import PacketIn
from heliograph.kernel.ring import Ring
from heliograph.kernel.snapshot import BridgeEntry
from heliograph.openflow.actions import Controller, Output

SLOT = 3
STORE = 2 * SLOT
FRAME = bytes.fromhex("020000000002020000000001" + "88b5") + bytes(range(100))


@pytest.fixture(scope="module")
def plane() -> Iterator[DataPlane]:
    sweep()
    with Lab() as lab:
        root = lab.path("bpf")
        bpffs.mount(root)
        try:
            loaded = DataPlane.open(root)
            yield loaded
            loaded.close()
        finally:
            bpffs.unmount(root)


@pytest.fixture
def store(plane: DataPlane) -> Iterator[FlowStore]:
    """An empty bridge with flow tables."""
    plane.switch_over(
        BridgeEntry(
            slot=SLOT,
            forwarding=True,
            forward_bpdu=False,
            mac_age=300,
            mac_limit=8192,
            ports=(),
            mirrors=(),
            flows=True,
        )
    )
    found = FlowStore(KernelBacking(plane.map_fd("flow_stores"), STORE), lambda port: True)
    found.load(Tables(found))
    yield found
    found.close()


@pytest.fixture
def ring(plane: DataPlane) -> Iterator[Ring]:
    opened = Ring(plane.map_fd("packet_ins"))
    yield opened
    opened.close()


def tell(plane: DataPlane, store: FlowStore, frame: bytes, *actions: Controller | Output) -> int:
    """Send a frame to controllers; returns the number of the first op."""
    ops = store.run_ops(actions)
    program = plane.program_fd("packet_out")
    packet_out.send(program, frame, store=STORE, in_port=0xFFFD, ops=ops)
    return ops[0]


def readable(ring: Ring) -> bool:
    return bool(select.select([ring.fd], [], [], 0)[0])


def test_frames_come_out_as_they_went_in(plane: DataPlane, store: FlowStore, ring: Ring) -> None:
    assert (readable(ring), list(ring.read())) == (False, [])
    first = tell(plane, store, FRAME, Controller(), Controller(20))
    assert readable(ring)
    both = list(ring.read())
    assert [data for _, data in both] == [FRAME, FRAME], "whole, whatever max_len says"
    assert [told.op for told, _ in both] == [first, first + 1]
    told = both[0][0]
    assert (told.store, told.captured, told.length, told.rule) == (STORE, *[len(FRAME)] * 2, 0)
    assert [store.controllers_at(t.op)[0].max_len for t, _ in both] == [0xFFFF, 20]
    assert not readable(ring)


def test_the_ring_goes_round(plane: DataPlane, store: FlowStore, ring: Ring) -> None:
    """More than it has room for, in the end; odd lengths, so that a record lies over its end."""
    for n in range(1500):
        frame = FRAME + bytes([n % 256]) * (700 + n % 13)
        tell(plane, store, frame, Controller())
        ((packet_in, data),) = ring.read()
        assert (data, packet_in.captured) == (frame, len(frame))


def test_what_is_not_read_now_is_read_later(plane: DataPlane, store: FlowStore, ring: Ring) -> None:
    for n in range(5):
        tell(plane, store, FRAME + bytes([n]), Controller())
    found: list[tuple[PacketIn, bytes]] = list(ring.read(limit=2))
    reading = ring.read()
    found.append(next(reading))
    found += ring.read()
    assert [data[-1] for _, data in found] == [0, 1, 2, 3, 4]
