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
_PRIORITY = 4
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

    def __init__(self, number: int, words: tuple[int, ...], masks: tuple[int, ...]) -> None:
        self.id, self.words, self.masks = number, words, masks
        self.priority = 0
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
            self.words[self.skip] if self.skip_mask else 0,
            0,
            self.skip_mask,
            self.skip_value & self.skip_mask,
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
        self.stale = False  # there are masks without rules, or with none of their priority

    def find(self, words: tuple[int, ...], masks: tuple[int, ...]) -> Mask | None:
        return self._known.get((words, masks))

    def update(
        self, new: Sequence[Mask], wanted: Iterable[tuple[Mask, int]], *, narrowed: bool
    ) -> None:
        """Make room for rules to come: for new masks, for higher priorities, and where they have
        less in common (`narrowed`).

        What has been done is of no harm if the rules do not come after all.
        """
        raised = [(mask, priority) for mask, priority in wanted if priority > mask.priority]
        places = {id(mask): n for n, mask in enumerate(self._row)} if raised else {}
        in_order = not narrowed
        for mask, priority in raised:
            mask.priority = priority
            place = places.get(id(mask))
            if place is None:
                continue
            if place and self._row[place - 1].priority < priority:
                in_order = False
            elif in_order:
                self._cells.memory.set16(self._first + place, _PRIORITY, priority)
        for mask in new:
            self._known[mask.words, mask.masks] = mask
        if len(new) == 1 and in_order and self._extend(new[0]):
            return
        if new or not in_order:
            self._rewrite([*self._row, *new])

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

    def _rewrite(self, row: list[Mask]) -> None:
        row.sort(key=lambda mask: -mask.priority)
        room = 1 << (len(row) + len(row) // 2).bit_length()
        run = self._cells.take(room)
        first = run + (room - len(row)) // 2
        memory = self._cells.memory
        for n, mask in enumerate(row):
            memory.put(_MASK, first + n, *mask.fields())
        if self._room:
            self._cells.give_later(self._run, self._room)
        self._row, self._run, self._room, self._first = row, run, room, first
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
