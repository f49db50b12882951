# SPDX-License-Identifier: Apache-2.0
"""Matches compared with each other: the same packets, more, some."""

from hypothesis import given, settings
from hypothesis import strategies as st

from heliograph.openflow.match import ANYTHING, Match

NAMES = "a", "b"
MASKED = st.tuples(st.integers(0, 3), st.integers(0, 3))
MATCHES = st.dictionaries(st.sampled_from(NAMES), MASKED).map(Match.of)
PACKETS = [{"a": a, "b": b} for a in range(4) for b in range(4)]


def matched(match: Match) -> set[int]:
    """The packets there are that it matches, by trying them all."""
    return {
        n
        for n, packet in enumerate(PACKETS)
        if all(packet[name] & mask == value for name, value, mask in match)
    }


@settings(deadline=None)
@given(one=MATCHES, other=MATCHES)
def test_covering_and_overlapping_are_of_packets(one: Match, other: Match) -> None:
    assert one.covers(other) == (matched(one) >= matched(other))
    assert one.overlaps(other) == bool(matched(one) & matched(other))
    assert (one == other) == (matched(one) == matched(other))
    assert one != other or hash(one) == hash(other)


def test_fields_without_a_mask_are_not_there() -> None:
    match = Match.of({"b": (7, 3), "a": (1, 0)})
    assert match.fields == (("b", 3, 3),)
    assert (match.get("a"), match.get("b"), len(match)) == (None, (3, 3), 1)
    assert Match.of({}) == ANYTHING
