# SPDX-License-Identifier: Apache-2.0
"""Flow stores in plain memory, for tests."""

from collections.abc import Callable
from dataclasses import dataclass, field
from struct import Struct
from typing import Any

from heliograph.flows.flow import SECOND
from heliograph.flows.tables import Tables
from heliograph.kernel.flow_store import FlowStore
from heliograph.kernel.flow_store_cells import CELL, LIMIT, Memory
from heliograph.kernel.layouts import Op
from heliograph.openflow.errors import OpenFlowError
from heliograph.openflow.flows import FlowMod, GroupMod


class Watched(Memory):
    """Memory that calls somebody after each single store of its."""

    def __init__(self, size: int, look: Callable[[], None]) -> None:
        self._look = look
        super().__init__(bytearray(size))

    def set16(self, cell: int, offset: int, value: int) -> None:
        super().set16(cell, offset, value)
        self._look()

    def set32(self, cell: int, offset: int, value: int) -> None:
        super().set32(cell, offset, value)
        self._look()

    def set64(self, cell: int, offset: int, value: int) -> None:
        super().set64(cell, offset, value)
        self._look()

    def put(self, layout: Struct, cell: int, *values: Any) -> None:
        super().put(layout, cell, *values)
        self._look()

    def put_op(self, number: int, op: Op) -> None:
        super().put_op(number, op)
        self._look()


@dataclass
class Plain:
    """Places for stores. `graces` counts how often frames were waited for."""

    look: Callable[[], None] = lambda: None
    on_use: Callable[[], None] = lambda: None  # before frames find the new one
    size: int = 0
    graces: int = 0
    before: Memory | None = None  # an earlier process's
    used: Memory | None = None
    made: Memory | None = None

    def restart(self) -> None:
        """There is another process."""
        self.before, self.used = self.used, None

    def found(self) -> Memory | None:
        return None if self.before is None else _copy_of(self.before)

    def drop_found(self) -> None:
        self.before = None

    def make(self, cells: int) -> Memory:
        self.size = cells
        self.made = Watched(cells * CELL, self._stored)
        return self.made

    def _stored(self) -> None:
        self.look()

    def use(self) -> None:
        self.on_use()
        self.used = self.made
        self.graces += 1

    def grace(self) -> None:
        self.graces += 1

    def close(self) -> None:
        self.used = None


def _copy_of(memory: Memory) -> Memory:
    """The same bytes, which one may close."""
    assert isinstance(memory.buffer, bytearray)
    return Memory(memory.buffer)


@dataclass
class Bench:
    """Tables, their store, and a clock."""

    backing: Plain = field(default_factory=Plain)
    limit: int = LIMIT
    live: set[int] = field(default_factory=set)
    now: int = SECOND

    def __post_init__(self) -> None:
        self.start()

    def start(self, tables: Tables | None = None) -> None:
        """A process that finds what the one before left, with these tables, and takes over."""
        self.load(tables)
        self.store.settle()

    def load(self, tables: Tables | None = None) -> None:
        """The same, before frames are switched over."""
        self.backing.restart()
        self.store = FlowStore(
            self.backing, lambda port: port in self.live, lambda: self.now, self.limit
        )
        self.tables = Tables(self.store)
        if tables is not None:
            self.tables.restore(tables.flows.values(), tables.groups.values(), tables.next_id)
        self.store.load(self.tables)

    def change(self, *mods: FlowMod | GroupMod) -> None:
        """In one step. What the store does not take is undone, and the error raised."""
        change = self.tables.change_all(mods, self.now)
        try:
            self.store.apply(change.delta)
        except OpenFlowError:
            self.tables.undo(change)
            raise

    def wait(self, seconds: float = 3) -> None:
        """For all that is out of use to be free."""
        for _ in range(3):
            self.now += int(seconds * SECOND)
            self.store.tidy()

    @property
    def data(self) -> bytearray:
        """What frames find."""
        memory = self.backing.before or self.backing.used
        assert memory is not None and isinstance(memory.buffer, bytearray)
        return memory.buffer
