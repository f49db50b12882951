# SPDX-License-Identifier: Apache-2.0
"""Flows found by what they match, compared with trying all packets there are."""

from hypothesis import given, settings
from hypothesis import strategies as st
from tests.unit.flows.mods import mod

from heliograph.flows.tables import Tables
from heliograph.openflow.match import Match

NAMES = "reg0", "reg1"
MASKED = st.tuples(st.integers(0, 3), st.integers(0, 3))
MATCHES = st.dictionaries(st.sampled_from(NAMES), MASKED).map(Match.of)
PACKETS = [{"reg0": a, "reg1": b} for a in range(4) for b in range(4)]


def matched(match: Match) -> set[int]:
    return {
        n
        for n, packet in enumerate(PACKETS)
        if all(packet[name] & mask == value for name, value, mask in match)
    }


@settings(deadline=None)
@given(there=st.lists(st.tuples(MATCHES, st.integers(0, 1)), max_size=8), asked=MATCHES)
def test_loose_matching_and_overlaps_are_of_packets(
    there: list[tuple[Match, int]], asked: Match
) -> None:
    tables, known = Tables(), set(there)
    tables.change_all([mod(match=match, priority=priority) for match, priority in there], 0)
    table = tables.tables[0]
    assert {(f.match, f.priority) for f in table.covered(asked)} == {
        (match, priority) for match, priority in known if matched(asked) >= matched(match)
    }
    for priority in range(2):
        expected = {m for m, p in known if p == priority and matched(m) & matched(asked)}
        found = table.overlapping(asked, priority)
        assert (found is not None) == bool(expected)
        assert found is None or (found.match in expected and found.priority == priority)
