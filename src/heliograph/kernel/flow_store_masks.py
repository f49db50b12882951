# SPDX-License-Identifier: Apache-2.0
"""The masks of a table's rules in a flow store, in a row sorted by priority.

A row serves the frames of the version before as well as those of the one to come, so a mask stays
and keeps its priority for as long as a rule is in the buckets that was ever seen with it. What can
be changed under the eyes of frames by one store is; otherwise the row is written anew elsewhere.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from struct import Struct
from sys import byteorder

from heliograph.kernel import layouts
from heliograph.kernel.flow_store_cells import Cells
from heliograph.kernel.layouts import KeyWord

_MASK = layouts.STORE_MASK
_PAIR = Struct("=II")
_PRIORITY, _SKIP_MASK = 4, 16
_NO_WORDS = (0,) * 10
# Where what all rules have in common parts the most frames from them.
_SKIP_WORDS = (KeyWord.KEY_METADATA, KeyWord.KEY_PORT, KeyWord.KEY_ETH_DST)


def pair(low: int, high: int) -> int:
    """Two words of 32 bits, for one store of 64."""
    return int.from_bytes(_PAIR.pack(low, high), byteorder)


class Mask:
    """`priorities`: of its rules that are in buckets, those that are removed included. `cell`: its
    place in the row; 0: it has none yet."""

    __slots__ = (
        "cell",
        "id",
        "masks",
        "priorities",
        "priority",
        "skip",
        "skip_mask",
        "skip_value",
        "words",
    )

    def __init__(self, number: int, words: tuple[int, ...], masks: tuple[int, ...]) -> None:
        self.id, self.words, self.masks = number, words, masks
        self.cell = self.priority = 0
        self.priorities: Counter[int] = Counter()
        self.skip, self.skip_mask, self.skip_value = -1, 0, 0

    def narrow(self, values: Sequence[int]) -> bool:
        """Keep of what tells its frames apart what this rule shares; whether that is less now."""
        if self.skip < 0:
            known = [word for word in _SKIP_WORDS if word in self.words]
            self.skip = self.words.index(known[0]) if known else 0
            if self.words:
                self.skip_mask, self.skip_value = self.masks[self.skip], values[self.skip]
            return False
        if not self.skip_mask:
            return False
        different = (values[self.skip] ^ self.skip_value) & self.skip_mask
        self.skip_mask &= ~different
        return bool(different)

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


class Masks:
    """Those of one table."""

    def __init__(self, cells: Cells, table: int) -> None:
        self._cells, self._cell = cells, 1 + table
        self._known: dict[tuple[tuple[int, ...], tuple[int, ...]], Mask] = {}
        self._row: list[Mask] = []
        self._first = 0  # cell of the row's first mask, in a run of cells from _run
        self._run = self._room = 0
        self._in_order = True  # or there was no room for another row
        self.stale = False  # there are masks without rules, or with none of their priority

    def find(self, words: tuple[int, ...], masks: tuple[int, ...]) -> Mask | None:
        return self._known.get((words, masks))

    # What these two have done is of no harm if the rules do not come after all.

    def narrow(self, mask: Mask, values: Sequence[int]) -> None:
        """Have frames that a rule to come is for not skip its mask."""
        if mask.narrow(values) and mask.cell:
            self._cells.memory.set64(mask.cell, _SKIP_MASK, mask.skip_mask)

    def update(self, new: Sequence[Mask], wanted: Iterable[tuple[Mask, int]]) -> None:
        """Make room for rules to come: for new masks, and for higher priorities."""
        for mask, priority in wanted:
            if priority <= mask.priority:
                continue
            mask.priority = priority
            place = mask.cell - self._first
            if mask.cell and place and self._row[place - 1].priority < priority:
                self._in_order = False
            elif mask.cell and self._in_order:
                self._cells.memory.set16(mask.cell, _PRIORITY, priority)
        extended = len(new) == 1 and self._in_order and self._extend(new[0])
        if not extended and (new or not self._in_order):
            self._rewrite([*self._row, *new])
        for mask in new:
            self._known[mask.words, mask.masks] = mask

    def _extend(self, mask: Mask) -> bool:
        """Add it at one end of the row, if it belongs there and there is room."""
        row, end = self._row, self._first + len(self._row)
        if not row:
            return False
        if mask.priority <= row[-1].priority and end < self._run + self._room:
            self._put(mask, end)
            row.append(mask)
        elif mask.priority >= row[0].priority and self._first > self._run:
            self._first -= 1
            self._put(mask, self._first)
            row.insert(0, mask)
        else:
            return False
        self._show()
        return True

    def _put(self, mask: Mask, cell: int) -> None:
        self._cells.memory.put(_MASK, cell, *mask.fields())
        mask.cell = cell

    def _rewrite(self, row: list[Mask]) -> None:
        row.sort(key=lambda mask: -mask.priority)
        room = 1 << (len(row) + len(row) // 2).bit_length()
        run = self._cells.take(room)
        first = run + (room - len(row)) // 2
        for n, mask in enumerate(row):
            self._put(mask, first + n)
        if self._room:
            self._cells.give_later(self._run, self._room)
        self._row, self._run, self._room, self._first = row, run, room, first
        self._in_order = True
        self._show()

    def _show(self) -> None:
        self._cells.memory.set64(self._cell, 0, pair(self._first, len(self._row)))

    def tidy(self) -> None:
        """Let go of masks without rules, and of priorities that none of their rules has."""
        if not self.stale:
            return
        self.stale = False
        row = [mask for mask in self._row if mask.priorities]
        for mask in row:
            mask.priority = max(mask.priorities)
        self._known = {(mask.words, mask.masks): mask for mask in row}
        if row:
            self._rewrite(row)
            return
        if self._room:
            self._cells.give_later(self._run, self._room)
        self._row, self._room, self._first = [], 0, 0
        self._show()

    def added(self, mask: Mask, priority: int) -> None:
        mask.priorities[priority] += 1

    def gone(self, mask: Mask, priority: int) -> None:
        mask.priorities[priority] -= 1
        if not mask.priorities[priority]:
            del mask.priorities[priority]
            self.stale = True
