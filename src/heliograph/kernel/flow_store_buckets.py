# SPDX-License-Identifier: Apache-2.0
"""The buckets of a flow store: where rules are found by the hash of what they match.

There are enough of them for a bucket to be full only by rare chance. Then all rules go to twice as
many, elsewhere, and frames find those by one store.
"""

import struct
from collections.abc import Iterable

from heliograph.kernel.flow_store_cells import Cells
from heliograph.kernel.flow_store_masks import pair
from heliograph.kernel.layouts import FlowLimits
from heliograph.openflow.errors import Code, OpenFlowError

_BUCKETS = 8  # in the header: the first bucket and their number less 1
_PLACES = FlowLimits.BUCKET_RULES
_SIGNATURE, _PRINTS, _RULES = 0, 8, 8 + 4 * _PLACES
_RULE_NUMBERS = struct.Struct(f"={_PLACES}I")
_LONG_NUMBER = struct.Struct("=Q")
_FEWEST, _FILLED = 64, 4  # buckets; rules for each, on average, at most
_SPARSE = 16  # so many buckets for each rule are never needed
_ALIKE = 10  # rules with the same hash, at most, so that others find room beside them
_ODD, _ODD_END = 0x9E3779B97F4A7C15, 0xFF51AFD7ED558CCD
_LOW, _LONG = 0xFFFF_FFFF, 0xFFFF_FFFF_FFFF_FFFF


def hash_of(seed: int, mask: int, words: Iterable[int]) -> int:
    """As in bpf/classify.h: the print in the lower half, the bucket in the upper."""
    value = seed << 32 | mask
    for word in words:
        value = (value ^ word) * _ODD & _LONG
        value ^= value >> 29
    value = (value ^ value >> 32) * _ODD_END & _LONG
    return value ^ value >> 33


class Buckets:
    def __init__(self, cells: Cells) -> None:
        self._cells = cells
        self._number = 0
        self._first = 0
        self._make(_FEWEST)
        self._show()
        self.hashes: dict[int, int] = {}  # of each rule's cell

    def reserve(self, more: int) -> None:
        """Have buckets enough for so many rules more. Raises OpenFlowError."""
        if self._holds(more):
            return
        number = self._number
        while len(self.hashes) + more > number * _FILLED:
            number *= 2
        try:
            self._move(number)
        except OpenFlowError:
            if not self._holds(more):  # rules that are over may be gone by now
                raise

    def _holds(self, more: int) -> bool:
        return len(self.hashes) + more <= self._number * _FILLED

    def link(self, cell: int, value: int) -> None:
        """Have a rule found. Raises OpenFlowError, and then it is not."""
        while not self._place(cell, value):
            # Rules that are over may fill it, many of one flow that is changed over and over.
            if not self._cells.hurry():
                self._move(self._room_for(value))
        self.hashes[cell] = value

    def unlink(self, cell: int) -> None:
        value = self.hashes.pop(cell)
        bucket = self._first + (value >> 32 & self._number - 1)
        memory = self._cells.memory
        place = memory.get(_RULE_NUMBERS, bucket, _RULES).index(cell)
        memory.set32(bucket, _PRINTS + 4 * place, 0)
        memory.set32(bucket, _RULES + 4 * place, 0)
        signature = 0
        for print_ in memory.get(_RULE_NUMBERS, bucket, _PRINTS):
            if print_:
                signature |= 1 << (print_ & 63)
        memory.set64(bucket, _SIGNATURE, signature)

    def _place(self, cell: int, value: int) -> bool:
        bucket = self._first + (value >> 32 & self._number - 1)
        memory = self._cells.memory
        numbers = memory.get(_RULE_NUMBERS, bucket, _RULES)
        print_ = value & _LOW or 1
        if 0 not in numbers or memory.get(_RULE_NUMBERS, bucket, _PRINTS).count(print_) >= _ALIKE:
            return False
        place = 4 * numbers.index(0)
        (signature,) = memory.get(_LONG_NUMBER, bucket, _SIGNATURE)
        memory.set64(bucket, _SIGNATURE, signature | 1 << (print_ & 63))
        memory.set32(bucket, _RULES + place, cell)
        memory.set32(bucket, _PRINTS + place, print_)
        return True

    def _room_for(self, value: int) -> int:
        """How many buckets let one more rule in. Raises OpenFlowError where no number does that
        the rules are worth: hashes of that kind are no accident."""
        near = [n for n in self.hashes.values() if not (n ^ value) >> 32 & self._number - 1]
        most = (len(self.hashes) + _FEWEST) * _SPARSE
        number = self._number * 2
        while sum(not (n ^ value) >> 32 & number - 1 for n in near) >= _PLACES and number <= most:
            number *= 2
        if number > most or sum(n == value for n in near) >= _ALIKE:
            raise OpenFlowError(
                Code.OFPFMFC_TABLE_FULL, "other flows have the same hash: more find no room"
            )
        return number

    def _make(self, number: int) -> None:
        self._first, self._number = self._cells.take(number), number
        self._cells.memory.clear(self._first, number)

    def _move(self, number: int) -> None:
        first, before = self._first, self._number
        self._make(number)
        for cell, value in self.hashes.items():
            self._place(cell, value)
        self._show()
        self._cells.give_later(first, before)

    def _show(self) -> None:
        self._cells.memory.set64(0, _BUCKETS, pair(self._first, self._number - 1))
