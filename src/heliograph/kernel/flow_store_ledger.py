# SPDX-License-Identifier: Apache-2.0
"""What was counted in rules and lists of ops that are gone, in cells that only user space writes,
so that it is still there for the next process; and where groups go on counting.

The header's first spare word leads to the first such cell, each cell to the next.
"""

import struct
from collections.abc import Hashable, Iterator, Mapping
from typing import NamedTuple

from heliograph.kernel import layouts
from heliograph.kernel.flow_store_cells import CELL, Cells, Memory
from heliograph.openflow.errors import OpenFlowError

RULE_COUNTS = struct.Struct("=IQQ")  # in a rule: tick, packets, bytes
RULE_COUNTS_AT, _FLOW = 20, 120
OP_COUNTS = struct.Struct("=QQ")  # in an op: packets, bytes
OP_COUNTS_AT = 16
_HEAD = 16  # in the header
_LONG = struct.Struct("=Q")
# Of a flow: its id, packets, bytes, tick, 0. Of a bucket: its group's id, packets, bytes, the
# number of the op that counts more or 0, its own number + 1.
_ENTRY = struct.Struct("=QQQQQ")
_PLACES = 3

Bucket = tuple[int, int]  # ids of group and bucket


class Count(NamedTuple):
    packets: int = 0
    bytes: int = 0
    tick: int = 0

    def plus(self, packets: int, octets: int, tick: int) -> "Count":
        return Count(self.packets + packets, self.bytes + octets, max(self.tick, tick))

    def since(self, before: "Count") -> "Count":
        return Count(self.packets - before.packets, self.bytes - before.bytes, self.tick)


NOTHING = Count()


def op_counts(memory: Memory, op: int) -> tuple[int, int]:
    """Packets and bytes that an op which counts has counted."""
    packets, octets = OP_COUNTS.unpack_from(memory.buffer, op * layouts.OP.size + OP_COUNTS_AT)
    return packets, octets


class Ledger:
    """What finds no room in it is not there for the next process."""

    def __init__(self, cells: Cells) -> None:
        self._cells = cells
        self._places: dict[Hashable, tuple[int, int]] = {}  # cell, offset
        self._counts: dict[int, Count] = {}
        self._free: list[tuple[int, int]] = []

    def get(self, flow: int) -> Count:
        return self._counts.get(flow, NOTHING)

    def add(self, flow: int, packets: int, octets: int, tick: int) -> None:
        """To what was counted under the id of a flow."""
        if not packets and not octets and not tick:
            return
        count = self._counts[flow] = self.get(flow).plus(packets, octets, tick)
        self._put(flow, (flow, *count, 0))

    def drop(self, flow: int) -> None:
        if self._counts.pop(flow, None):
            self._remove(flow)

    def set_bucket(self, bucket: Bucket, packets: int, octets: int) -> None:
        """What a bucket has counted, but for the ops that still count."""
        self._put(bucket, (bucket[0], packets, octets, 0, bucket[1] + 1))

    def drop_bucket(self, bucket: Bucket) -> None:
        self._remove(bucket)

    def add_op(self, bucket: Bucket, op: int) -> None:
        """An op counts for a bucket."""
        self._put((op,), (bucket[0], 0, 0, op, bucket[1] + 1))

    def drop_op(self, op: int) -> None:
        self._remove((op,))

    def _put(self, key: Hashable, entry: tuple[int, ...]) -> None:
        if key not in self._places:
            if not self._free:
                self._chain()
            if not self._free:
                return
            self._places[key] = self._free.pop()
        self._write(self._places[key], entry)

    def _remove(self, key: Hashable) -> None:
        place = self._places.pop(key, None)
        if place:
            self._write(place, (0,) * 5)
            self._free.append(place)

    def _write(self, place: tuple[int, int], entry: tuple[int, ...]) -> None:
        cell, offset = place
        _ENTRY.pack_into(self._cells.memory.buffer, cell * CELL + offset, *entry)

    def _chain(self) -> None:
        try:
            cell = self._cells.take()
        except OpenFlowError:
            return
        self._cells.memory.clear(cell)
        memory = self._cells.memory
        (head,) = memory.get(_LONG, 0, _HEAD)
        memory.put(_LONG, cell, head)
        self._free += [(cell, 8 + n * _ENTRY.size) for n in range(_PLACES)]
        memory.set64(0, _HEAD, cell)


class Counts(NamedTuple):
    """What a store has counted."""

    flows: Mapping[int, Count]  # by id
    buckets: Mapping[Bucket, Count]

    def since(self, before: "Counts") -> "Counts":
        return Counts(
            {n: c.since(before.flows.get(n, NOTHING)) for n, c in self.flows.items()},
            {n: c.since(before.buckets.get(n, NOTHING)) for n, c in self.buckets.items()},
        )


def counts_in(memory: Memory) -> Counts:
    flows: dict[int, Count] = {}
    buckets: dict[Bucket, Count] = {}
    for flow, *count in _rules(memory):
        flows[flow] = flows.get(flow, NOTHING).plus(*count)
    for number, packets, octets, tick, bucket in _entries(memory):
        if not bucket:
            flows[number] = flows.get(number, NOTHING).plus(packets, octets, tick)
            continue
        more = op_counts(memory, tick) if tick else (0, 0)
        key = number, bucket - 1
        buckets[key] = buckets.get(key, NOTHING).plus(packets + more[0], octets + more[1], 0)
    return Counts(flows, buckets)


def _rules(memory: Memory) -> Iterator[tuple[int, ...]]:
    header = layouts.StoreHeader.unpack(bytes(memory.buffer[:CELL]))
    for bucket in range(header.buckets, header.buckets + header.bucket_mask + 1):
        data = bytes(memory.buffer[bucket * CELL : (bucket + 1) * CELL])
        for cell in layouts.StoreBucket.unpack(data).rules:
            if cell:
                tick, packets, octets = memory.get(RULE_COUNTS, cell, RULE_COUNTS_AT)
                if tick or packets:
                    yield *memory.get(_LONG, cell, _FLOW), packets, octets, tick


def _entries(memory: Memory) -> Iterator[tuple[int, ...]]:
    (cell,) = memory.get(_LONG, 0, _HEAD)
    while cell:
        for place in range(_PLACES):
            entry = memory.get(_ENTRY, cell, 8 + place * _ENTRY.size)
            if any(entry):
                yield entry
        (cell,) = memory.get(_LONG, cell)
