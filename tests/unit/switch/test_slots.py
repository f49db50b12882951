# SPDX-License-Identifier: Apache-2.0
"""Whose slot is which."""

from uuid import uuid4

from heliograph.switch.slots import assign


def test_slots_are_kept_and_the_lowest_is_taken() -> None:
    a, b, c, d = (uuid4() for _ in range(4))
    assert assign([a, b], {}, range(4)) == {a: 0, b: 1}
    assert assign([c, a], {a: 1, b: 0}, range(4)) == {a: 1, c: 2}, "one given up is the last choice"
    assert assign([c, d, a], {a: 1, b: 0}, range(3)) == {a: 1, c: 2, d: 0}
    assert assign([a, b, c], {}, range(2)) == {a: 0, b: 1}, "there is none for the third"
