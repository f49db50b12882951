# SPDX-License-Identifier: Apache-2.0
"""What is told of flows and tables."""

import pytest
from tests.unit.flows.mods import MODIFY, TWO, Counted, dump, ip, mod, port

from heliograph.flows.flow import SECOND, Usage
from heliograph.flows.queries import aggregate, flow_stats, table_stats
from heliograph.flows.tables import Tables
from heliograph.openflow.actions import ALL_TABLES
from heliograph.openflow.errors import OpenFlowError
from heliograph.openflow.flows import AggregateReply, AggregateRequest, FlowStats, FlowStatsRequest


def filled() -> Tables:
    tables = Tables(Counted({1: Usage(3, 300, 6 * SECOND), 2: Usage(4, 400, 1)}))
    tables.change(mod(match=ip(0x0A000001), idle_timeout=60, cookie=9), 2 * SECOND)
    tables.change(mod(match=ip(0x0A000000, 8), priority=1), 0)
    tables.change(mod(match=ip(0x0B000001), table_id=5), 0)
    tables.change(mod(match=port(1), table_id=5), 0)
    return tables


def test_a_flow_is_told_with_its_ages_and_counters() -> None:
    tables = filled()
    tables.change(mod(MODIFY, match=ip(0x0A000001), actions=TWO), 5 * SECOND)
    reply = flow_stats(tables, FlowStatsRequest(match=ip(0x0A000001), nicira=True), 9 * SECOND)
    assert reply.nicira
    assert list(reply.entries) == [
        FlowStats(
            match=ip(0x0A000001),
            actions=TWO,
            cookie=9,
            duration_ns=7 * SECOND,
            idle_timeout=60,
            idle_age=3,
            hard_age=4,
            packets=3,
            bytes=300,
        )
    ]


def test_a_frame_that_comes_while_flows_are_told_makes_no_age_negative() -> None:
    """The reply's time is that of its beginning; the packet is of a second later."""
    tables = filled()
    (told,) = flow_stats(tables, FlowStatsRequest(match=ip(0x0A000001)), 5 * SECOND).entries
    assert (told.idle_age, told.hard_age) == (0, 3)


def test_matching_is_loose_and_table_by_table() -> None:
    tables = filled()
    ten = ip(0x0A000000, 8)
    assert [f.table_id for f in dump(tables, table_id=ALL_TABLES)] == [0, 0, 5, 5]
    assert [f.match for f in dump(tables, match=ten)] == [ip(0x0A000001), ten]
    assert [f.match for f in dump(tables, match=ip(0x0A000000, 7))] == [
        ip(0x0A000001),
        ten,
        ip(0x0B000001),
    ]
    assert len(dump(tables, match=ten, table_id=5)) == 0
    assert aggregate(tables, AggregateRequest(match=ten)) == AggregateReply(7, 700, 2)


def test_a_table_that_is_not_there_is_an_error() -> None:
    for ask in (
        lambda: flow_stats(filled(), FlowStatsRequest(table_id=64), 0),
        lambda: aggregate(filled(), AggregateRequest(table_id=64)),
    ):
        with pytest.raises(OpenFlowError, match="OFPBRC_BAD_TABLE_ID"):
            ask()


def test_every_table_is_told_of() -> None:
    entries = list(table_stats(filled(), lambda n: (n + 10, n)).entries)
    assert [(t.table_id, t.active) for t in entries if t.active] == [(0, 2), (5, 2)]
    assert (len(entries), entries[5].lookups, entries[5].matched) == (64, 15, 5)
