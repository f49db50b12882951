# SPDX-License-Identifier: Apache-2.0
"""The cells of a flow store: memory, which of them are free, and when used ones may be again.

What frames may have come across is free only after GRACE, when none is on its way any more that
has. A store that is full is copied into a larger one, under the same numbers.
"""

import mmap
import struct
from collections import deque
from collections.abc import Callable
from typing import Any, Protocol

from heliograph.kernel import layouts
from heliograph.kernel.layouts import FlowLimits
from heliograph.openflow.errors import Code, OpenFlowError

CELL = 128
GRACE = 10**9  # ns
LIMIT = 1 << 21  # cells of a store: 256 MiB
_FIRST_SIZE = 1024
_FIXED = 1 + FlowLimits.MAX_TABLES  # the header and the tables


class Memory:
    """The bytes of a store, and the ways to write them: single stores, and whole records.

    What frames may read at that moment is written only by `set16` to `set64`, each one store.
    """

    def __init__(self, buffer: bytearray | mmap.mmap) -> None:
        self.buffer = buffer
        self._bytes = memoryview(buffer)
        self._halves = self._bytes.cast("H")
        self._words = self._bytes.cast("I")
        self._longs = self._bytes.cast("Q")

    def set16(self, cell: int, offset: int, value: int) -> None:
        self._halves[(cell * CELL + offset) >> 1] = value

    def set32(self, cell: int, offset: int, value: int) -> None:
        self._words[(cell * CELL + offset) >> 2] = value

    def set64(self, cell: int, offset: int, value: int) -> None:
        self._longs[(cell * CELL + offset) >> 3] = value

    def put(self, layout: struct.Struct, cell: int, *values: Any) -> None:
        layout.pack_into(self.buffer, cell * CELL, *values)

    def put_op(self, number: int, op: layouts.Op) -> None:
        layouts.OP.pack_into(self.buffer, number * layouts.OP.size, *op)

    def get(self, layout: struct.Struct, cell: int, offset: int = 0) -> tuple[Any, ...]:
        return layout.unpack_from(self.buffer, cell * CELL + offset)

    def clear(self, first: int, count: int = 1) -> None:
        """Zeroes, in cells that no frame looks at."""
        self.buffer[first * CELL : (first + count) * CELL] = bytes(count * CELL)

    def close(self) -> None:
        for view in (self._longs, self._words, self._halves, self._bytes):
            view.release()
        if isinstance(self.buffer, mmap.mmap):
            self.buffer.close()


class Backing(Protocol):
    """Where stores come from, and the place in which frames find one."""

    def found(self) -> Memory | None:
        """The one of before, which frames find until they are switched over, if there is one."""

    def make(self, cells: int) -> Memory:
        """A new one of zeroes, or OSError."""

    def drop_found(self) -> None:
        """Frames have been switched over; returns when none is at it."""

    def use(self) -> None:
        """Put the one made last where frames look; returns when none is at one that was there."""

    def grace(self) -> None:
        """Returns when no frame is on its way that was at the beginning."""

    def close(self) -> None: ...


Moved = Callable[[bytes, Memory], None]


class Cells:
    """Cells are taken in runs: so many in a row as is a power of two."""

    def __init__(
        self, backing: Backing, clock: Callable[[], int], limit: int, moved: Moved
    ) -> None:
        """`moved` gets what was copied of the store before, and that store as it is at its end."""
        self.backing, self.clock = backing, clock
        self._limit, self._moved = limit, moved
        self.in_use = False  # where frames look, or are about to
        self._graced = clock() - GRACE
        self._size = _FIRST_SIZE
        self.memory = self._make(self._size)
        self._next = _FIXED
        self._free: dict[int, list[int]] = {}  # runs by their size
        self._waiting: deque[tuple[int, Callable[..., None], tuple[Any, ...]]] = deque()

    @property
    def used(self) -> int:
        return self._next - sum(size * len(runs) for size, runs in self._free.items())

    def take(self, count: int = 1) -> int:
        """The first of at least so many cells. Raises OpenFlowError where there is no room."""
        size = 1 << (count - 1).bit_length()
        free = self._free
        if size in free:
            return self._pop(size)
        larger = min((n for n in free if n > size), default=0) if free else 0
        if larger:
            first = self._pop(larger)
            while larger > size:
                larger >>= 1
                free.setdefault(larger, []).append(first + larger)
            return first
        start = -(-self._next // size) * size
        if start + size > self._size:
            try:
                self._grow()
            except OpenFlowError:
                if not self._merge() and not self.hurry():
                    raise
            return self.take(count)
        while self._next < start:  # a run begins at a multiple of its length
            length = self._next & -self._next
            self.give(self._next, length)
            self._next += length
        self._next += size
        return start

    def _merge(self) -> bool:
        """Make one run of two that are side by side; whether there were any."""
        found = False
        size = 1
        while size <= max(self._free, default=0):
            runs = set(self._free.pop(size, ()))
            for first in list(runs):
                if first & size == 0 and first in runs and first + size in runs:
                    runs -= {first, first + size}
                    self._free.setdefault(2 * size, []).append(first)
                    found = True
            if runs:
                self._free[size] = list(runs)
            size *= 2
        return found

    def _pop(self, size: int) -> int:
        runs = self._free[size]
        first = runs.pop()
        if not runs:
            del self._free[size]
        return first

    def give(self, first: int, count: int = 1) -> None:
        """Free again, at once."""
        self._free.setdefault(1 << (count - 1).bit_length(), []).append(first)

    def give_later(self, first: int, count: int = 1) -> None:
        self.later(self.give, first, count)

    # Time

    def later(self, what: Callable[..., None], *arguments: Any) -> None:
        """Call it after GRACE."""
        self._waiting.append((self.clock() + GRACE, what, arguments))

    def ripen(self) -> None:
        """Do what its time has come for."""
        now, waiting = self.clock(), self._waiting
        while waiting and waiting[0][0] <= now:
            _, what, arguments = waiting.popleft()
            what(*arguments)

    def hurry(self) -> bool:
        """Wait for the frames that are on their way, then do all that waits; whether any did."""
        if not self._waiting:
            return False
        self.grace()
        ready, self._waiting = self._waiting, deque()  # what is done may wait and hurry itself
        while ready:
            _, what, arguments = ready.popleft()
            what(*arguments)
        return True

    def grace(self) -> None:
        """Wait for the frames that are on their way. Raises OpenFlowError."""
        now = self.clock()
        try:
            self.backing.grace()
        except OSError as error:
            raise OpenFlowError(
                Code.OFPFMFC_TABLE_FULL, f"the kernel does not wait for frames: {error}"
            ) from error
        self._graced = now

    def gone_since(self) -> int:
        """When those frames came, at the latest, of which none is on its way any more."""
        return max(self.clock() - GRACE, self._graced)

    # Size

    def use(self) -> None:
        """From the next switch-over on frames find it."""
        self.backing.use()
        self.in_use = True

    def renew(self, change: Callable[[], None]) -> None:
        """Have frames find a copy, in which `change` has been made. Raises OpenFlowError, and then
        they find what they did."""
        self._copy_to(self._size, change)

    def _grow(self) -> None:
        size = self._size * 2
        if size > self._limit:
            raise OpenFlowError(
                Code.OFPFMFC_TABLE_FULL,
                f"the flows of this bridge take more than {self._limit * CELL >> 20} MiB",
            )
        self._copy_to(size)

    def _copy_to(self, size: int, change: Callable[[], None] = lambda: None) -> None:
        old, old_size = self.memory, self._size
        copy = bytes(old.buffer[: self._next * CELL])
        self.memory, self._size = self._make(size), size
        self.memory.buffer[: len(copy)] = copy
        change()
        if self.in_use:
            try:
                self.backing.use()
            except OSError as error:
                self.memory.close()
                self.memory, self._size = old, old_size
                raise OpenFlowError(
                    Code.OFPFMFC_TABLE_FULL, f"frames cannot be led to larger tables: {error}"
                ) from error
            self._moved(copy, old)
        old.close()

    def _make(self, size: int) -> Memory:
        try:
            return self.backing.make(size)
        except OSError as error:
            raise OpenFlowError(
                Code.OFPFMFC_TABLE_FULL,
                f"the kernel gives no {size * CELL >> 20} MiB for the bridge's flows: {error}",
            ) from error
