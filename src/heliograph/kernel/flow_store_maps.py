# SPDX-License-Identifier: Apache-2.0
"""Flow stores in maps of the kernel: a place in `flow_stores`, which has two for each bridge's slot
(bpf/maps.h)."""

import mmap
import os
import struct

from heliograph.kernel import bpf, layouts
from heliograph.kernel.flow_store_cells import CELL, Memory
from heliograph.kernel.layouts import BridgeFlags, FlowLimits

_NUMBER = struct.Struct("=I")
_NAME = "flow_store"
_BLOCK = CELL * FlowLimits.BLOCK_CELLS  # the map's value


def store_in_force(bridges_fd: int, slot: int) -> int:
    """The number of the store that a bridge's frames find, of its first where it has no snapshot.

    `bridges_fd`: of the array of snapshots.
    """
    found = bpf.lookup(bridges_fd, _NUMBER.pack(slot), 4)
    if found is None:
        return 2 * slot
    fd = bpf.get_by_id(*_NUMBER.unpack(found))
    try:
        snapshot = bpf.lookup(fd, _NUMBER.pack(0), bpf.map_shape(fd)[2]) or bytes(4)
    finally:
        os.close(fd)
    (flags,) = _NUMBER.unpack_from(snapshot, layouts.SNAPSHOT_FLAGS)
    return 2 * slot + bool(flags & BridgeFlags.BRIDGE_SECOND_STORE)


class KernelBacking:
    def __init__(self, outer_fd: int, number: int) -> None:
        """`outer_fd`: of the array of stores; stays the caller's. `number`: of the place to use; in
        the bridge's other one is the store of before."""
        self._outer = outer_fd
        self._place, self._other = _NUMBER.pack(number), _NUMBER.pack(number ^ 1)
        self._used = self._made = -1

    @property
    def fd(self) -> int:
        """Of the map that frames find."""
        return self._used

    def found(self) -> Memory | None:
        found = bpf.lookup(self._outer, self._other, 4)
        if found is None:
            return None
        fd = bpf.get_by_id(*_NUMBER.unpack(found))
        try:
            _, _, size, entries = bpf.map_shape(fd)
            return Memory(mmap.mmap(fd, size * entries))
        finally:
            os.close(fd)

    def drop_found(self) -> None:
        """The kernel itself waits for frames, those of programs that were just replaced too."""
        bpf.delete(self._outer, self._other)

    def make(self, cells: int) -> Memory:
        fd = bpf.create_shared_array(_BLOCK, cells // FlowLimits.BLOCK_CELLS, _NAME)
        try:
            memory = Memory(mmap.mmap(fd, cells * CELL))
        except BaseException:
            os.close(fd)
            raise
        self._drop_made()
        self._made = fd
        return memory

    def use(self) -> None:
        """The kernel itself waits for the frames that are at the one before."""
        bpf.update(self._outer, self._place, _NUMBER.pack(self._made))
        if self._used >= 0:
            os.close(self._used)
        self._used, self._made = self._made, -1

    def grace(self) -> None:
        """As `use`: that is what an update of an outer map ends with."""
        if self._used >= 0:
            bpf.update(self._outer, self._place, _NUMBER.pack(self._used))

    def close(self) -> None:
        self._drop_made()
        if self._used >= 0:
            os.close(self._used)
        self._used = -1

    def _drop_made(self) -> None:
        if self._made >= 0:
            os.close(self._made)
        self._made = -1
