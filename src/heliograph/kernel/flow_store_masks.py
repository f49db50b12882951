# SPDX-License-Identifier: Apache-2.0
"""The masks of a table's rules in a flow store, in a row sorted by priority.

A row serves the frames of the version before as well as those of the one to come, so a mask stays
and keeps its priority for as long as a rule is in the buckets that was ever seen with it. What can
be changed under the eyes of frames by one store is; otherwise the row is written anew elsewhere.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from struct import Struct
from sys import byteorder

from heliograph.kernel import layouts
from heliograph.kernel.flow_store_cells import Cells
from heliograph.kernel.layouts import KeyWord
from heliograph.openflow.errors import OpenFlowError

_MASK = layouts.STORE_MASK
_PAIR = Struct("=II")
_PRIORITY, _SKIP_MASK = 4, 16
_ABOVE_ALL = 1 << 16
_NO_WORDS = (0,) * 10
# Where what all rules have in common parts the most frames from them.
_SKIP_WORDS = (KeyWord.KEY_METADATA, KeyWord.KEY_PORT, KeyWord.KEY_ETH_DST)


def pair(low: int, high: int) -> int:
    """Two words of 32 bits, for one store of 64."""
    return int.from_bytes(_PAIR.pack(low, high), byteorder)


class Mask:
    """`priorities`: of its rules that are in buckets, those that are removed included."""

    __slots__ = (
        "id",
        "masks",
        "priorities",
        "priority",
        "skip",
        "skip_mask",
        "skip_value",
        "words",
    )

    def __init__(
        self,
        number: int,
        words: tuple[int, ...],
        masks: tuple[int, ...],
        values: Sequence[int],
    ) -> None:
        """`values`: of its first rule."""
        self.id, self.words, self.masks = number, words, masks
        self.priority = 0
        self.priorities: Counter[int] = Counter()
        known = [word for word in _SKIP_WORDS if word in words]
        # What tells its frames apart: all its rules share it.
        self.skip = words.index(known[0]) if known else 0
        self.skip_mask = masks[self.skip] if words else 0
        self.skip_value = values[self.skip] if words else 0

    def apart(self, values: Sequence[int]) -> int:
        """The bits of what its rules share that are other ones in this rule."""
        return (values[self.skip] ^ self.skip_value) & self.skip_mask if self.skip_mask else 0

    def take_in(self, coming: "Coming") -> None:
        self.priority = max(self.priority, coming.priority)
        self.skip_mask &= ~coming.apart

    def fields(self) -> tuple[int | bytes, ...]:
        count = len(self.words)
        return (
            self.id,
            self.priority,
            count,
            self.words[self.skip] if self.words else 0,
            0,
            self.skip_mask,
            self.skip_value,
            bytes(self.words),
            *self.masks,
            *_NO_WORDS[count:],
        )


@dataclass(slots=True)
class Coming:
    """The rules to come with a mask: their highest priority, and the bits that they do not share
    with those that are there."""

    priority: int
    apart: int


class Masks:
    """Those of one table."""

    def __init__(self, cells: Cells, table: int) -> None:
        self._cells, self._cell = cells, 1 + table
        self._known: dict[tuple[tuple[int, ...], tuple[int, ...]], Mask] = {}
        self._row: list[Mask] = []
        self._first = 0  # cell of the row's first mask, in a run of cells from _run
        self._run = self._room = 0
        self.stale = False  # there are masks without rules, or with none of their priority

    def find(self, words: tuple[int, ...], masks: tuple[int, ...]) -> Mask | None:
        return self._known.get((words, masks))

    def update(self, new: Sequence[Mask], coming: Mapping[Mask, Coming]) -> None:
        """Make room for rules to come, some with new masks. Raises OpenFlowError, and then these
        are not known.

        What has been done is of no harm if the rules do not come after all.
        """
        for mask in new:
            mask.take_in(coming[mask])
        changed = {
            mask: rules
            for mask, rules in coming.items()
            if rules.priority > mask.priority or rules.apart & mask.skip_mask
        }
        if not new and not changed:
            return
        if self._stays_in_order(changed):
            for n, mask in enumerate(self._row if changed else ()):
                if mask in changed:
                    mask.take_in(changed[mask])
                    self._cells.memory.set16(self._first + n, _PRIORITY, mask.priority)
                    self._cells.memory.set64(self._first + n, _SKIP_MASK, mask.skip_mask)
            if not new or (len(new) == 1 and self._extend(new[0])):
                self._know(new)
                return
        run, room = self._take(len(self._row) + len(new))
        for mask, rules in changed.items():
            mask.take_in(rules)
        self._know(new)
        self._put([*self._row, *new], run, room)

    def _know(self, new: Sequence[Mask]) -> None:
        for mask in new:
            self._known[mask.words, mask.masks] = mask

    def _stays_in_order(self, changed: Mapping[Mask, Coming]) -> bool:
        """Whether the row is sorted by their priorities to come as well."""
        last = _ABOVE_ALL
        for mask in self._row if changed else ():
            rules = changed.get(mask)
            priority = max(mask.priority, rules.priority) if rules else mask.priority
            if priority > last:
                return False
            last = priority
        return True

    def _extend(self, mask: Mask) -> bool:
        """Add it at one end of the row, if it belongs there and there is room."""
        row, end = self._row, self._first + len(self._row)
        if not row:
            return False
        if mask.priority <= row[-1].priority and end < self._run + self._room:
            self._cells.memory.put(_MASK, end, *mask.fields())
            row.append(mask)
        elif mask.priority >= row[0].priority and self._first > self._run:
            self._cells.memory.put(_MASK, self._first - 1, *mask.fields())
            row.insert(0, mask)
            self._first -= 1
        else:
            return False
        self._show()
        return True

    def _take(self, length: int) -> tuple[int, int]:
        """A run of cells for a row, and their number."""
        room = 1 << (length + length // 2).bit_length()
        return self._cells.take(room), room

    def _put(self, row: list[Mask], run: int, room: int) -> None:
        row.sort(key=lambda mask: -mask.priority)
        first = run + (room - len(row)) // 2
        for n, mask in enumerate(row):
            self._cells.memory.put(_MASK, first + n, *mask.fields())
        if self._room:
            self._cells.give_later(self._run, self._room)
        self._row, self._run, self._room, self._first = row, run, room, first
        self._show()

    def _show(self) -> None:
        self._cells.memory.set64(self._cell, 0, pair(self._first, len(self._row)))

    def tidy(self) -> None:
        """Let go of masks without rules, and of priorities that none of their rules has; where
        there is no room for that, another time."""
        if not self.stale:
            return
        run = room = 0
        if any(mask.priorities for mask in self._row):
            try:
                run, room = self._take(len(self._row))
            except OpenFlowError:
                return
        self.stale = False  # to find room, more rules may have gone: look only now
        row = [mask for mask in self._row if mask.priorities]
        for mask in row:
            mask.priority = max(mask.priorities)
        self._known = {(mask.words, mask.masks): mask for mask in row}
        self._put(row, run, room)

    def added(self, mask: Mask, priority: int) -> None:
        mask.priorities[priority] += 1

    def gone(self, mask: Mask, priority: int) -> None:
        mask.priorities[priority] -= 1
        if not mask.priorities[priority]:
            del mask.priorities[priority]
            self.stale = True
