# SPDX-License-Identifier: Apache-2.0
"""What was counted under the ids of flows in rules that are gone, in cells that only user space
writes, so that it is still there for the next process.

The header's first spare word leads to the first such cell, each cell to the next.
"""

import struct
from collections.abc import Iterator
from typing import NamedTuple

from heliograph.kernel import layouts
from heliograph.kernel.flow_store_cells import Cells, Memory
from heliograph.openflow.errors import OpenFlowError

RULE_COUNTS = struct.Struct("=IQQ")  # in a rule: tick, packets, bytes
RULE_COUNTS_AT, _FLOW = 20, 120
_HEAD = 16  # in the header
_LONG = struct.Struct("=Q")
_ENTRY = struct.Struct("=QQQQ8x")  # flow, packets, bytes, tick
_PLACES = 3
_EMPTY = (0, 0, 0, 0)


class Count(NamedTuple):
    packets: int = 0
    bytes: int = 0
    tick: int = 0

    def plus(self, packets: int, octets: int, tick: int) -> "Count":
        return Count(self.packets + packets, self.bytes + octets, max(self.tick, tick))


NOTHING = Count()


class Ledger:
    def __init__(self, cells: Cells) -> None:
        self._cells = cells
        self._places: dict[int, tuple[int, int]] = {}  # flow: cell, offset
        self._counts: dict[int, Count] = {}
        self._free: list[tuple[int, int]] = []

    def get(self, flow: int) -> Count:
        return self._counts.get(flow, NOTHING)

    def add(self, flow: int, packets: int, octets: int, tick: int) -> None:
        """Where there is no room it is not there for the next process."""
        if not packets and not octets and not tick:
            return
        count = self.get(flow).plus(packets, octets, tick)
        self._counts[flow] = count
        if flow not in self._places:
            if not self._free:
                self._chain()
            if not self._free:
                return
            self._places[flow] = self._free.pop()
        self._write(self._places[flow], (flow, *count))

    def drop(self, flow: int) -> None:
        self._counts.pop(flow, None)
        place = self._places.pop(flow, None)
        if place:
            self._write(place, _EMPTY)
            self._free.append(place)

    def _write(self, place: tuple[int, int], entry: tuple[int, ...]) -> None:
        cell, offset = place
        _ENTRY.pack_into(self._cells.memory.buffer, cell * 128 + offset, *entry)

    def _chain(self) -> None:
        try:
            cell = self._cells.take()
        except OpenFlowError:
            return
        memory = self._cells.memory
        (head,) = memory.get(_LONG, 0, _HEAD)
        memory.put(_LONG, cell, head)
        for offset in range(8, 8 + _PLACES * _ENTRY.size, _ENTRY.size):
            self._free.append((cell, offset))
            self._write((cell, offset), _EMPTY)
        memory.set64(0, _HEAD, cell)


def counts_in(memory: Memory) -> dict[int, Count]:
    """What a store has counted, by the ids of flows: in its rules and in its ledger."""
    found: dict[int, Count] = {}
    for flow, *count in _entries(memory):
        found[flow] = found.get(flow, NOTHING).plus(*count)
    return found


def _entries(memory: Memory) -> Iterator[tuple[int, ...]]:
    header = layouts.StoreHeader.unpack(_cell(memory, 0))
    for bucket in range(header.buckets, header.buckets + header.bucket_mask + 1):
        for cell in layouts.StoreBucket.unpack(_cell(memory, bucket)).rules:
            if cell:
                tick, packets, octets = memory.get(RULE_COUNTS, cell, RULE_COUNTS_AT)
                if tick or packets:
                    yield *memory.get(_LONG, cell, _FLOW), packets, octets, tick
    cell = header.spare[0]
    while cell:
        for place in range(_PLACES):
            entry = memory.get(_ENTRY, cell, 8 + place * _ENTRY.size)
            if entry[0]:
                yield entry
        (cell,) = memory.get(_LONG, cell)


def _cell(memory: Memory, cell: int) -> bytes:
    return bytes(memory.buffer[cell * 128 : (cell + 1) * 128])
