# SPDX-License-Identifier: Apache-2.0
"""Matches brought to one form."""

from heliograph.openflow.match import ANYTHING, Match


def test_fields_without_a_mask_are_not_there() -> None:
    match = Match.of({"b": (7, 3), "a": (1, 0)})
    assert match.fields == (("b", 3, 3),)
    assert (match.get("a"), match.get("b"), len(match)) == (None, (3, 3), 1)
    assert Match.of({}) == ANYTHING
