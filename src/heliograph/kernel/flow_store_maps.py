# SPDX-License-Identifier: Apache-2.0
"""Flow stores in maps of the kernel: one slot of `flow_stores` (bpf/maps.h)."""

import mmap
import os
import struct

from heliograph.kernel import bpf
from heliograph.kernel.flow_store_cells import CELL, Memory
from heliograph.kernel.layouts import FlowLimits

_NUMBER = struct.Struct("=I")
_NAME = "flow_store"
_BLOCK = CELL * FlowLimits.BLOCK_CELLS  # the map's value


class KernelBacking:
    def __init__(self, outer_fd: int, slot: int) -> None:
        """`outer_fd`: of the array of stores; stays the caller's."""
        self._outer, self._slot = outer_fd, _NUMBER.pack(slot)
        self._used = self._made = -1

    @property
    def fd(self) -> int:
        """Of the map that frames find."""
        return self._used

    def found(self) -> Memory | None:
        found = bpf.lookup(self._outer, self._slot, 4)
        if found is None:
            return None
        fd = bpf.get_by_id(*_NUMBER.unpack(found))
        try:
            _, _, size, entries = bpf.map_shape(fd)
            return Memory(mmap.mmap(fd, size * entries))
        finally:
            os.close(fd)

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
        bpf.update(self._outer, self._slot, _NUMBER.pack(self._made))
        if self._used >= 0:
            os.close(self._used)
        self._used, self._made = self._made, -1

    def grace(self) -> None:
        """As `use`: that is what an update of an outer map ends with."""
        if self._used >= 0:
            bpf.update(self._outer, self._slot, _NUMBER.pack(self._used))

    def close(self) -> None:
        self._drop_made()
        if self._used >= 0:
            os.close(self._used)
        self._used = -1

    def _drop_made(self) -> None:
        if self._made >= 0:
            os.close(self._made)
        self._made = -1
